"""The main call of each kind of Databricks object, as an agent's author writes it with the unmodified clients.

Every function takes whoever acts and the name of one object, and tells what came back; where the answer says whom the
workspace saw, that is `seen`. The table of what is allowed to whom is `rows.py`. Knows nothing of Valetkey.
"""

from __future__ import annotations

import base64
import io
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mcp_work
import tracking
import work
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.dashboards import GenieFeedbackRating
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, ExternalFunctionRequestHttpMethod
from databricks.sdk.service.sql import ExecuteStatementRequestOnWaitTimeout
from openai import OpenAI

Told = dict[str, Any]


@dataclass(frozen=True)
class Acting:
    """Whoever acts: the app, or the user of a request."""

    client: WorkspaceClient
    #: The forwarded token, where the user acts.
    token: str | None
    #: The other identity's client: templates name the user's memories while the app acts.
    user: WorkspaceClient
    #: Further words of the request.
    words: dict[str, str]

    @property
    def host(self) -> str:
        return self.client.config.host

    def do(self, method: str, path: str, **more: Any) -> Any:
        """What the SDK has no method for."""
        return self.client.api_client.do(method, path, **more)

    def gateway(self) -> OpenAI:
        """The OpenAI client on the AI Gateway."""
        if work.HAS_DATABRICKS_OPENAI:
            return work.DatabricksOpenAI(workspace_client=self.client, use_ai_gateway=True)
        bearer = self.client.config.authenticate()["Authorization"].removeprefix("Bearer ")
        return OpenAI(base_url=f"{self.host}/ai-gateway/mlflow/v1", api_key=bearer)


def who_said(text: str) -> Told:
    """The embedded models begin with whom they take the caller for."""
    return {"text": text, "seen": text.removeprefix("You are ").split(". You said")[0]}


# --- SQL -----------------------------------------------------------------------------------------------------------------


def statement(acting: Acting, warehouse: str) -> Told:
    """Runs a statement, looks at it again, fetches its first chunk."""
    sql = acting.client.statement_execution
    done = sql.execute_statement(warehouse_id=warehouse, statement="SELECT current_user()", wait_timeout="10s")
    again = sql.get_statement(done.statement_id)
    chunk = sql.get_statement_result_chunk_n(done.statement_id, 0)
    return {"state": again.status.state.value, "seen": chunk.data_array[0][0], "id": done.statement_id}


def statement_cancelled(acting: Acting, warehouse: str) -> Told:
    """Starts a statement without waiting for it and takes it back."""
    sql = acting.client.statement_execution
    goes_on = ExecuteStatementRequestOnWaitTimeout.CONTINUE
    begun = sql.execute_statement(
        warehouse_id=warehouse, statement="SELECT current_user()", wait_timeout="0s", on_wait_timeout=goes_on
    )
    sql.cancel_execution(begun.statement_id)
    return {"state": sql.get_statement(begun.statement_id).status.state.value}


def statement_again(acting: Acting, statement_id: str) -> Told:
    """Looks at a statement by its id alone."""
    return {"state": acting.client.statement_execution.get_statement(statement_id).status.state.value}


# --- models --------------------------------------------------------------------------------------------------------------


def serving_query(acting: Acting, endpoint: str) -> Told:
    messages = [ChatMessage(role=ChatMessageRole.USER, content="hello")]
    answer = acting.client.serving_endpoints.query(name=endpoint, messages=messages)
    return who_said(answer.choices[0].message.content)


def chat(acting: Acting, model: str) -> Told:
    answer = work.openai_client(acting.client).chat.completions.create(model=model, messages=hello())
    return who_said(answer.choices[0].message.content)


def embeddings(acting: Acting, model: str) -> Told:
    answer = work.openai_client(acting.client).embeddings.create(model=model, input=["hello", "there"])
    return {"vectors": len(answer.data)}


def responses(acting: Acting, model: str) -> Told:
    return who_said(work.openai_client(acting.client).responses.create(model=model, input=hello()).output_text)


def gateway_chat(acting: Acting, model: str) -> Told:
    answer = acting.gateway().chat.completions.create(model=model, messages=hello())
    return who_said(answer.choices[0].message.content)


def supervisor_genie(acting: Acting, space: str) -> Told:
    """A response of an allowed model with two hosted tools, of which one may be another's."""
    own = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}
    return supervisor(acting, [own, {"type": "genie_space", "genie_space": {"id": space}}])


def supervisor_function(acting: Acting, function: str) -> Told:
    space = {"type": "genie_space", "genie_space": {"id": acting.words["space"]}}
    return supervisor(acting, [space, {"type": "uc_function", "uc_function": {"name": function}}])


def supervisor(acting: Acting, tools: list[Any]) -> Told:
    answer = acting.gateway().responses.create(model=acting.words["model"], input=hello(), tools=tools)
    return who_said(answer.output_text)


def hello() -> list[Any]:
    return [{"role": "user", "content": "hello"}]


# --- Genie, vector search ------------------------------------------------------------------------------------------------


def genie(acting: Acting, space: str) -> Told:
    """A conversation: the question, its answer, the rows behind it, and a thumb up."""
    asked = acting.client.genie.start_conversation_and_wait(space, "How many orders?")
    place = (space, asked.conversation_id, asked.message_id)
    again = acting.client.genie.get_message(*place)
    query = next(a for a in again.attachments if a.query)
    rows = acting.client.genie.get_message_attachment_query_result(*place, query.attachment_id)
    acting.client.genie.send_message_feedback(*place, GenieFeedbackRating.POSITIVE)
    words = next(a.text.content for a in again.attachments if a.text)
    told = {"rows": len(rows.statement_response.result.data_array), "conversation": asked.conversation_id}
    return told | {"seen": words.split(" asked:")[0]}


def genie_again(acting: Acting, conversation: str) -> Told:
    """Asks on in a conversation."""
    space = acting.words["space"]
    return {"message": acting.client.genie.create_message(space, conversation, "And today?").message_id}


def search(acting: Acting, index: str) -> Told:
    """The dedicated client, on the old path."""
    rows = work.search(acting.token, index, "orders", ["id", "seen_as"])["rows"]
    return {"rows": len(rows), "seen": rows[0][1]}


def search_as_renamed(acting: Acting, index: str) -> Told:
    """The new path of the same index, which names workspace and endpoint too."""
    parent = f"workspaces/{acting.words['workspace']}/endpoints/{acting.words['endpoint']}/indexes/{index}"
    query = {"columns": ["id", "seen_as"], "query_text": "orders", "max_results": 5}
    answer = acting.do("POST", f"/api/2.0/ai-search/{parent}:query", body=query)
    return {"members": sorted(answer)}


# --- Unity Catalog -------------------------------------------------------------------------------------------------------


def table(acting: Acting, name: str) -> Told:
    return {"columns": [column.name for column in acting.client.tables.get(name).columns]}


def function(acting: Acting, name: str) -> Told:
    return {"function": acting.client.functions.get(name).full_name}


def connection(acting: Acting, name: str) -> Told:
    """A call of an outside service as `http_request` makes it."""
    get = ExternalFunctionRequestHttpMethod.GET
    answer = json.loads(acting.client.serving_endpoints.http_request(name, get, "/tickets").text)
    return {"path": answer["received"]["path"], "seen": answer["called_for"]}


def connection_proxy(acting: Acting, name: str) -> Told:
    """The same through the connection's proxy."""
    answer = acting.do("GET", f"/api/2.0/unity-catalog/connections/{name}/proxy/tickets")
    return {"path": answer["received"]["path"], "seen": answer["called_for"]}


def volume_write(acting: Acting, volume: str) -> Told:
    """A file goes up, is seen in its directory, comes down, and goes."""
    path = f"{volume}/row-{uuid.uuid4().hex}.txt"
    acting.client.files.upload(path, io.BytesIO(b"kept"), overwrite=True)
    listed = [entry.path for entry in acting.client.files.list_directory_contents(volume)]
    with acting.client.files.download(path).contents as contents:
        kept = contents.read().decode()
    acting.client.files.delete(path)
    return {"listed": path in listed, "kept": kept}


def volume_read(acting: Acting, volume: str) -> Told:
    return {"entries": len(list(acting.client.files.list_directory_contents(volume)))}


# --- Lakebase, secrets, jobs, identity, memories -------------------------------------------------------------------------


def lakebase_provisioned(acting: Acting, instance: str) -> Told:
    """A password for Postgres."""
    made = acting.client.database.generate_database_credential(
        instance_names=[instance], request_id=str(uuid.uuid4())
    )
    return {"password": made.token}


def lakebase_autoscaling(acting: Acting, branch: str) -> Told:
    return {"password": acting.client.postgres.generate_database_credential(f"{branch}/endpoints/primary").token}


def secret(acting: Acting, name: str) -> Told:
    scope, key = name.split("/")
    return {"secret": base64.b64decode(acting.client.secrets.get_secret(scope, key).value).decode()}


def job(acting: Acting, job_id: str) -> Told:
    """Starts a job, looks at the run, and takes its output."""
    run = acting.client.jobs.run_now(int(job_id)).run_id
    state = acting.client.jobs.get_run(run).state.life_cycle_state.value
    output = acting.client.jobs.get_run_output(run).notebook_output.result
    return {"state": state, "seen": output.removeprefix("run by ")}


def me(acting: Acting, path: str) -> Told:
    """Whom the workspace takes the caller for: `Me`, or another page of the directory."""
    return {"seen": acting.do("GET", f"/api/2.0/preview/scim/v2/{path}")["userName"]}


def user_number(acting: Acting, _: str) -> Told:
    """The number by which memories are kept apart."""
    return {"number": acting.user.current_user.me().id}


def memory(acting: Acting, store: str) -> Told:
    """The templates' way: whoever acts, the scope is the user's number; `whose` puts another in its place."""
    scope = acting.words.get("whose") or acting.user.current_user.me().id
    path = f"/memories/{uuid.uuid4().hex}"
    base = f"/api/2.1/unity-catalog/memory-stores/{store}"
    acting.do("POST", f"{base}/entries", body={"scope": scope, "memory_entry": {"path": path, "contents": "likes tea"}})
    found = acting.do("POST", f"{base}/entries:search", body={"scope": scope, "query": "tea"})["entries"]
    kept = acting.do("GET", f"{base}/entries:get", query={"scope": scope, "path": path})["contents"]
    acting.do("DELETE", f"{base}/entries", query={"scope": scope, "path": path})
    return {"kept": kept, "found": len(found)}


# --- MCP: the object is SERVER#TOOL --------------------------------------------------------------------------------------

#: What the tools of the embedded servers want.
ARGUMENTS = {"query": "SELECT current_user()", "order_id": "7", "title": "broken", "text": "loud"}
#: Which of these each tool takes, by the last part of its name.
TAKES = {
    "order_total": ["order_id"],
    "order_region": ["order_id"],
    "docs_index": ["query"],
    "execute_sql": ["query"],
    "execute_sql_read_only": ["query"],
    "create_ticket": ["title"],
    "shout": ["text"],
}


def mcp_tool(acting: Acting, place: str) -> Told:
    """Handshake, tools/list, tools/call with the plain client; `session` claims another's session."""
    path, tool = place.split("#")
    arguments = arguments_of(tool)
    return mcp_work.call(acting.client, acting.host + path, tool, arguments, acting.words.get("session"))


def mcp_tool_with_databricks_mcp(acting: Acting, place: str) -> Told:
    path, tool = place.split("#")
    return mcp_work.call_with_databricks_mcp(acting.client, acting.host + path, tool, arguments_of(tool))


def custom_app(acting: Acting, place: str) -> Told:
    """A tool of another app, whose address the Apps API tells."""
    app, tool = place.split("#")
    told = mcp_work.call(acting.client, f"{acting.client.apps.get(app).url}/mcp", tool, arguments_of(tool))
    return told | {"seen": told["text"]}


def arguments_of(tool: str) -> dict[str, str]:
    if tool.startswith("query_space_"):
        return {"query": "How many orders?"}
    return {name: ARGUMENTS[name] for name in TAKES.get(tool.split("__")[-1], [])}


# --- MLflow: always as the app -------------------------------------------------------------------------------------------


def mlflow_run(_: Acting, experiment: str) -> Told:
    return tracking.run(experiment)


def mlflow_experiment_by_name(_: Acting, name: str) -> Told:
    return tracking.experiment_by_name(name)


def mlflow_trace(_: Acting, experiment: str) -> Told:
    return tracking.trace(experiment)


def mlflow_otlp(_: Acting, table_name: str) -> Told:
    return tracking.otlp(table_name)


def mlflow_prompt(_: Acting, name: str) -> Told:
    return tracking.prompt(name)


CALLS: dict[str, Callable[[Acting, str], Told]] = {
    call.__name__: call
    for call in (
        statement, statement_cancelled, statement_again, serving_query, chat, embeddings, responses, gateway_chat,
        supervisor_genie, supervisor_function, genie, genie_again, search, search_as_renamed, table, function,
        connection, connection_proxy, volume_write, volume_read, lakebase_provisioned, lakebase_autoscaling, secret,
        job, me, user_number, memory, mcp_tool, mcp_tool_with_databricks_mcp, custom_app, mlflow_run,
        mlflow_experiment_by_name, mlflow_trace, mlflow_otlp, mlflow_prompt,
    )
}
