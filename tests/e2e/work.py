"""What the sample agent does with the real clients: databricks-sdk, databricks-openai or openai, databricks-vectorsearch.

Only documented calls, as an agent's author would write them. Knows nothing of HTTP servers, of Valetkey or of the suite.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import random
import time
from collections.abc import Iterator
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.service.sql import StatementState
from databricks.vector_search.client import VectorSearchClient

HAS_DATABRICKS_OPENAI = importlib.util.find_spec("databricks_openai") is not None
if HAS_DATABRICKS_OPENAI:
    from databricks_openai import DatabricksOpenAI

PIECE_BYTES = 1 << 20


@functools.cache
def app_client() -> WorkspaceClient:
    """The app itself, from the environment."""
    return WorkspaceClient()


def user_client(token: str | None) -> WorkspaceClient:
    """The user of a request, as the app templates do it."""
    return WorkspaceClient(token=token, auth_type="pat")


def name_of(client: WorkspaceClient) -> str | None:
    """Whom the workspace takes this client for."""
    return client.current_user.me().user_name


def run_sql(client: WorkspaceClient, warehouse: str, statement: str) -> dict[str, Any]:
    """The rows of a statement, polled where it takes longer."""
    done = client.statement_execution.execute_statement(
        warehouse_id=warehouse, statement=statement, wait_timeout="10s"
    )
    deadline = time.monotonic() + 60
    while done.status.state in (StatementState.PENDING, StatementState.RUNNING) and time.monotonic() < deadline:
        done = client.statement_execution.get_statement(done.statement_id)
    rows = done.result.data_array if done.result else None
    return {"state": done.status.state.value, "rows": rows}


def openai_client(client: WorkspaceClient) -> Any:
    """The client of this generation."""
    if HAS_DATABRICKS_OPENAI:
        return DatabricksOpenAI(workspace_client=client)
    return client.serving_endpoints.get_open_ai_client()


def chat(client: WorkspaceClient, model: str, text: str) -> Iterator[dict[str, Any]]:
    """The pieces of a chat completion as they arrive."""
    openai = openai_client(client)
    pieces = openai.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], stream=True
    )
    for piece in pieces:
        said = piece.choices[0].delta.content if piece.choices else None
        yield {"client": type(openai).__name__, "text": said or ""}


def search(token: str | None, index: str, text: str, columns: list[str]) -> dict[str, Any]:
    """A similarity search, as the app where no token is given; the client sends it as a GET with a body."""
    host = os.environ["DATABRICKS_HOST"]
    if token is None:
        client = VectorSearchClient(
            workspace_url=host,
            service_principal_client_id=os.environ["DATABRICKS_CLIENT_ID"],
            service_principal_client_secret=os.environ["DATABRICKS_CLIENT_SECRET"],
            disable_notice=True,
        )
    else:
        client = VectorSearchClient(workspace_url=host, personal_access_token=token, disable_notice=True)
    found = client.get_index(index_name=index).similarity_search(query_text=text, columns=columns, num_results=5)
    return {"rows": found["result"]["data_array"]}


class MadeUpFile(io.RawIOBase):
    """A file of any size that takes no room: a fixed random megabyte over and over, each time with its number in front."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.place = 0
        self.piece = random.Random(size).randbytes(PIECE_BYTES - 8)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        self.place = start + offset
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        number, offset = divmod(self.place, PIECE_BYTES)
        data = (number.to_bytes(8, "big") + self.piece)[offset:]
        count = max(0, min(len(view), len(data), self.size - self.place))
        view[:count] = data[:count]
        self.place += count
        return count


def digest_of(source: Any) -> tuple[str, int]:
    """SHA-256 and length of whatever can be read."""
    sha, size = hashlib.sha256(), 0
    while data := source.read(PIECE_BYTES):
        sha.update(data)
        size += len(data)
    return sha.hexdigest(), size


def upload(client: WorkspaceClient, path: str, size: int) -> dict[str, Any]:
    """Sends a made-up file and tells its digest."""
    client.files.upload(path, io.BufferedReader(MadeUpFile(size), PIECE_BYTES), overwrite=True)
    sha, length = digest_of(MadeUpFile(size))
    return {"sha256": sha, "bytes": length}


def download(client: WorkspaceClient, path: str) -> dict[str, Any]:
    """Reads a file to its end and tells its digest."""
    with client.files.download(path).contents as contents:
        sha, length = digest_of(contents)
    return {"sha256": sha, "bytes": length}
