"""MLflow with the real client: runs, traces, OTLP spans and prompts, all as the app, whose environment it reads.

Knows nothing of Valetkey or of the suite.
"""

from __future__ import annotations

import functools
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.store.tracking.databricks_rest_store import DatabricksTracingRestStore
from mlflow.utils.databricks_utils import get_databricks_host_creds


@functools.cache
def client() -> MlflowClient:
    """MLflow's own, on the workspace of the environment."""
    mlflow.set_tracking_uri("databricks")
    mlflow.set_registry_uri("databricks-uc")
    return MlflowClient()


def run(experiment: str) -> dict[str, Any]:
    """A run with a parameter and a metric, read back."""
    ml = client()
    run_id = ml.create_run(experiment_id=experiment).info.run_id
    ml.log_param(run_id, "model", "demo")
    ml.log_metric(run_id, "tokens", 42)
    ml.set_terminated(run_id)
    kept = ml.get_run(run_id)
    return {"status": kept.info.status, "tokens": kept.data.metrics["tokens"], "model": kept.data.params["model"]}


def experiment_by_name(name: str) -> dict[str, Any]:
    """What an agent asks for when it starts with the name of its experiment."""
    found = client().get_experiment_by_name(name)
    return {"experiment": found.experiment_id if found else None}


def trace(experiment: str) -> dict[str, Any]:
    """A trace of one span that leaves in the background, as an agent's do, and is found again."""
    ml = client()
    ml.search_traces(locations=[experiment], max_results=1)
    mlflow.set_experiment(experiment_id=experiment)
    with mlflow.start_span("answer") as span:
        span.set_inputs({"question": "how many?"})
    mlflow.flush_trace_async_logging(terminate=False)
    return {"trace": ml.get_trace(span.trace_id, display=False).info.trace_id}


def otlp(table: str) -> dict[str, Any]:
    """Spans for a table of Unity Catalog, as MLflow's own store exports them: protobuf, the table in a header."""
    client()
    with mlflow.start_span("exported") as span:
        pass
    store = DatabricksTracingRestStore(functools.partial(get_databricks_host_creds, "databricks"))
    return {"spans": len(store.log_spans(table, [span], tracking_uri="databricks"))}


def prompt(name: str) -> dict[str, Any]:
    """The first version of a prompt, and another one."""
    client()
    first = mlflow.genai.load_prompt(f"prompts:/{name}/1")
    made = mlflow.genai.register_prompt(name=name, template="Good day {{name}}")
    return {"template": first.template, "version": int(made.version)}
