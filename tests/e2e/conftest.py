"""Shared by all tests of the suite: the facts, and a door to the sidecar that keeps whatever comes back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import facts as facts_module
import httpx
import pytest
from facts import Facts

#: How long any single answer may take, and how long a stream may stay silent.
ANSWER_SECONDS_MAX = 60.0
#: A transfer of a large file, on a slow machine.
TRANSFER_SECONDS_MAX = 300.0
TOKEN_HEADER = "x-forwarded-access-token"
#: Where the table of rows is gathered.
TABLE = pytest.StashKey[dict[str, dict[str, str]]]()


class Door:
    """The front door's side of the sidecar: sends what the platform would forward, and keeps what comes back."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.client = httpx.Client(
            base_url=facts.inbound,
            timeout=ANSWER_SECONDS_MAX,
            limits=httpx.Limits(max_connections=100),
            trust_env=False,
        )
        self.numbers = itertools.count()

    def get(self, page: str, token: str | None, timeout: float = ANSWER_SECONDS_MAX, **query: str) -> httpx.Response:
        """One request of a user, or of nobody."""
        answer = self.client.get(page, params=query, headers=headers_of(token), timeout=timeout)
        self.keep(page, answer.headers, answer.content)
        return answer

    def asked(self, page: str, token: str | None, timeout: float = ANSWER_SECONDS_MAX, **query: str) -> dict[str, Any]:
        """The agent's answer to a request that must succeed."""
        answer = self.get(page, token, timeout, **query)
        assert answer.status_code == 200, f"{page}: {answer.status_code} {answer.text}"
        return answer.json()

    @contextmanager
    def events(self, page: str, token: str, **query: str) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a streamed answer, each as soon as it is here."""
        with self.client.stream("GET", page, params=query, headers=headers_of(token)) as answer:
            assert answer.status_code == 200, f"{page}: {answer.status_code}"
            yield self.read_events(page, answer)

    def read_events(self, page: str, answer: httpx.Response) -> Iterator[dict[str, Any]]:
        for line in answer.iter_lines():
            self.keep(page, answer.headers, line.encode())
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    def keep(self, page: str, headers: httpx.Headers, body: bytes) -> None:
        """Writes an answer down for the canary test."""
        name = f"{next(self.numbers):05}-{page.strip('/').replace('/', '-')}"
        head = "".join(f"{name}: {value}\n" for name, value in headers.multi_items()).encode()
        Path(self.facts.store, name).write_bytes(head + b"\n" + body)


class Levers:
    """The driver's hold on the embedded workspace's streams."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=ANSWER_SECONDS_MAX, trust_env=False)

    def pull(self, lever: str) -> None:
        """`hold`: events wait from now on. `release`: one may go. `flow`: all may go."""
        self.client.post(f"/{lever}").raise_for_status()


def headers_of(token: str | None) -> dict[str, str]:
    return {} if token is None else {TOKEN_HEADER: token}


@pytest.fixture(scope="session")
def facts() -> Facts:
    return facts_module.read()


@pytest.fixture(scope="session")
def door(facts: Facts) -> Door:
    return Door(facts)


@pytest.fixture
def levers(facts: Facts) -> Iterator[Levers | None]:
    """None on a real workspace. Whatever a test held back flows again after it."""
    if facts.control is None:
        yield None
        return
    levers = Levers(facts.control)
    yield levers
    levers.pull("flow")


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> dict[str, dict[str, str]]:
    """What was tried of the rows, told at the end."""
    return pytestconfig.stash.setdefault(TABLE, {})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of rows, for the driver to show."""
    clients = ", ".join(f"{client} {version(client)}" for client in ("databricks-sdk", "openai", "mcp", "mlflow-skinny"))
    terminalreporter.write_line(f"ROW: --- rows with {clients}: as whom, allowed, refused, by which exception and route ---")
    for name, row in config.stash.get(TABLE, {}).items():
        cells = f"{name:30} {row['as']:9} {row['allowed']:64} {row['refused']:64}"
        terminalreporter.write_line(f"ROW: {cells} {row['says']}")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    """Says aloud that something could not be tested here."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\nNOT TESTED HERE: {text}", flush=True)

    return line
