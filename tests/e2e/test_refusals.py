"""What is refused, and that it is refused so that the caller understands: SDK exceptions outbound, 401 inbound."""

from __future__ import annotations

from typing import Any

from conftest import Door
from facts import Facts


def test_a_call_outside_the_policy_raises_permission_denied_with_the_reason(facts: Facts, door: Door) -> None:
    token = facts.users[0].tokens[0]
    answer = door.get("/sql", token, warehouse=facts.warehouse_refused, statement="SELECT 1")
    told = answer.json()
    assert answer.status_code == 500 and told["error"] == "PermissionDenied", told
    assert "DatabricksError" in told["bases"]
    assert told["message"].startswith("valetkey:"), told["message"]
    assert "valetkey explain" in told["message"]


def test_no_token_is_401(facts: Facts, door: Door) -> None:
    assert_unauthorized(door.get("/whoami", None), "missing")


def test_an_expired_token_is_401(facts: Facts, door: Door, say: Any) -> None:
    if facts.expired_token is None:
        say("an expired token: none was given for the real workspace")
        return
    assert_unauthorized(door.get("/whoami", facts.expired_token), "expired")


def test_a_token_with_a_broken_signature_is_401(facts: Facts, door: Door) -> None:
    head, claims, signature = facts.users[0].tokens[0].split(".")
    forged = ".".join([head, claims, ("B" if signature[0] == "A" else "A") + signature[1:]])
    assert_unauthorized(door.get("/whoami", forged), "invalid")


def test_something_that_is_no_token_is_401(facts: Facts, door: Door) -> None:
    assert_unauthorized(door.get("/whoami", "not-a-token"), "invalid")


def assert_unauthorized(answer: Any, word: str) -> None:
    assert answer.status_code == 401, f"{answer.status_code} {answer.text}"
    assert "bearer" in answer.headers["www-authenticate"].lower()
    assert word in (answer.text + answer.headers["www-authenticate"]).lower(), answer.text
