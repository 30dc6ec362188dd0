"""A sample agent that works as two identities. It knows nothing of Valetkey: templates write the same two lines.

    GET  /              who the user is, and who the app is
    POST /sql           {"statement": ..., "warehouse": ...}   a query as the user: their row filters and grants apply
    POST /ask           {"question": ...}                      a model, as the app

Traces go to MLflow as the app, where mlflow is installed and MLFLOW_EXPERIMENT_ID is set.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import uvicorn
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service.serving import ChatMessage, ChatMessageRole
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

try:
    from mlflow import trace
except ImportError:  # tracing is a convenience, not a need

    def trace(function):
        return function


TOKEN_HEADER = "x-forwarded-access-token"


@functools.cache
def app_client() -> WorkspaceClient:
    """The app itself: DATABRICKS_HOST, _CLIENT_ID and _CLIENT_SECRET."""
    return WorkspaceClient()


def user_client(token: str) -> WorkspaceClient:
    """The user of this request."""
    return WorkspaceClient(token=token, auth_type="pat")


@trace
def who_am_i(token: str) -> dict[str, Any]:
    return {
        "user": user_client(token).current_user.me().user_name,
        "app": app_client().current_user.me().user_name,
    }


@trace
def query(token: str, statement: str, warehouse: str) -> dict[str, Any]:
    # An agent that lets a model choose the warehouse is told "no" by the sidecar, not by good luck.
    done = user_client(token).statement_execution.execute_statement(
        warehouse_id=warehouse, statement=statement, wait_timeout="30s"
    )
    rows = done.result.data_array if done.result else None
    return {"state": done.status.state.value, "rows": rows}


@trace
def ask(question: str) -> dict[str, Any]:
    message = ChatMessage(role=ChatMessageRole.USER, content=question)
    answer = app_client().serving_endpoints.query(os.environ["MODEL"], messages=[message])
    return {"answer": answer.choices[0].message.content}


async def answered(work, *arguments: str) -> JSONResponse:
    """The SDK blocks, so it works in a thread; what the sidecar or the workspace refuses is told to the caller."""
    try:
        return JSONResponse(await run_in_threadpool(work, *arguments))
    except DatabricksError as fault:
        return JSONResponse({"error": type(fault).__name__, "message": str(fault)}, status_code=403)


async def home(request: Request) -> JSONResponse:
    return await answered(who_am_i, request.headers[TOKEN_HEADER])


async def sql(request: Request) -> JSONResponse:
    body = await request.json()
    warehouse = body.get("warehouse", os.environ["WAREHOUSE_ID"])
    return await answered(query, request.headers[TOKEN_HEADER], body["statement"], warehouse)


async def question(request: Request) -> JSONResponse:
    return await answered(ask, (await request.json())["question"])


app = Starlette(
    routes=[
        Route("/", home),
        Route("/sql", sql, methods=["POST"]),
        Route("/ask", question, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["DATABRICKS_APP_PORT"]))
