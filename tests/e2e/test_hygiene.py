"""What the agent can find out: no real token nor secret in its environment, in /proc, or in its headers.

This file asserts the shape; the driver searches everything that was kept for every secret there is.
"""

from __future__ import annotations

from typing import Any

from conftest import Door
from facts import Facts

#: CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON as bits of `CapEff`.
MAY_TRACE_BITS = 1 << 19 | 1 << 21 | 1 << 38
#: Parts of the sidecar's /proc that must be closed.
CLOSED = ("parent_environ", "parent_memory", "parent_files")


def test_the_environment_is_wired_to_the_sidecar_and_holds_no_credential(facts: Facts, door: Door) -> None:
    told = door.asked("/env", facts.users[0].tokens[0])
    environment: dict[str, str] = told["environment"]
    assert environment["DATABRICKS_HOST"].startswith("http://127.0.0.1:")
    assert environment["DATABRICKS_CLIENT_ID"] == facts.app_name
    assert environment["DATABRICKS_CLIENT_SECRET"]
    assert environment["DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT"] == "true"
    assert environment["VALETKEY_ADMIN_URL"] == facts.admin
    ports = {environment[name] for name in ("PORT", "UVICORN_PORT", "FLASK_RUN_PORT", "DATABRICKS_APP_PORT")}
    assert len(ports) == 1
    assert "127.0.0.1" in environment["NO_PROXY"]
    for gone in ("DATABRICKS_TOKEN", "DATABRICKS_PASSWORD", "DATABRICKS_CONFIG_PROFILE", "ARM_CLIENT_SECRET"):
        assert gone not in environment
    # Only names in what a failure prints: on a real workspace the rest is real.
    leaked = [name for name, value in environment.items() if any(decoy in value for decoy in facts.decoys)]
    assert leaked == [], "a credential of the sidecar's environment reached the agent"


def test_the_sidecars_memory_and_environment_are_closed_to_the_agent(facts: Facts, door: Door, say: Any) -> None:
    if facts.agent_may_trace:
        say("the sidecar's memory against its agent: this process may trace any other (root, and no setpriv here)")
        return
    told = door.asked("/env", facts.users[0].tokens[0], parent="yes")
    assert not int(told["capabilities"]["text"], 16) & MAY_TRACE_BITS
    assert told["parent"] == facts.sidecar_pid
    assert told["parent_name"]["text"].startswith("valetkey")
    # Only the outcome in what a failure prints: on a real workspace the rest is real.
    outcomes = {name: told[name].get("refused", "was read") for name in CLOSED}
    assert outcomes == dict.fromkeys(CLOSED, "PermissionError")
    command_line = told["parent_cmdline"]["text"].split("\0")
    assert "run" in command_line


def test_the_admin_port_tells_no_secret_and_is_ready(facts: Facts, door: Door) -> None:
    for page in ("/metrics", "/status", "/readyz", "/livez"):
        answer = door.client.get(facts.admin + page)
        door.keep(f"/admin{page}", answer.headers, answer.content)
        assert answer.status_code == 200, page
