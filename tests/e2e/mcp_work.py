"""MCP servers with the real clients: `mcp` 1.x or 2.x, whichever is installed, and DatabricksMCPClient of databricks-mcp.

Written as the documentation of each has it. Knows nothing of Valetkey or of the suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks_mcp import DatabricksMCPClient

try:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    GENERATION = 2
except ImportError:
    from mcp.client.session import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    GENERATION = 1

SESSION = "mcp-session-id"


@dataclass
class Open:
    """A client that has shaken hands, and the id of its session."""

    client: Any
    session: str | None


@asynccontextmanager
async def opened(url: str, headers: dict[str, str]) -> AsyncIterator[Open]:
    """A session with a server."""
    if GENERATION == 1:
        async with streamablehttp_client(url, headers=headers) as (read, write, session_id):
            async with ClientSession(read, write) as client:
                await client.initialize()
                yield Open(client, session_id())
        return
    given: list[str] = []

    async def note(response: httpx2.Response) -> None:
        given.extend(value for name, value in response.headers.items() if name.lower() == SESSION)

    async with httpx2.AsyncClient(headers=headers, event_hooks={"response": [note]}) as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            yield Open(client, given[0] if given else None)


def call(client: WorkspaceClient, url: str, tool: str, arguments: dict[str, str], session: str | None = None) -> Any:
    """Lists the tools, calls one, and tells what it said; `session` claims a session that somebody else began."""
    headers = client.config.authenticate() | ({} if session is None else {SESSION: session})

    async def work() -> Any:
        async with opened(url, headers) as server:
            tools = [tool.name for tool in (await server.client.list_tools()).tools]
            said = await server.client.call_tool(tool, arguments)
            return {"tools": tools, "text": said.content[0].text, "session": server.session}

    return asyncio.run(work())


def call_with_databricks_mcp(client: WorkspaceClient, url: str, tool: str, arguments: dict[str, str]) -> Any:
    """The same with the client of Databricks, which opens a session for each question."""
    server = DatabricksMCPClient(server_url=url, workspace_client=client)
    tools = [tool.name for tool in server.list_tools()]
    said = server.call_tool(tool, arguments)
    return {"tools": tools, "text": said.content[0].text}
