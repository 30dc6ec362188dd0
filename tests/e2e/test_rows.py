"""Every row of the table (rows.py), through the unmodified clients: allowed on one object, refused on another so that a
developer sees why and what to change. And what one user made is nobody else's.
"""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Door
from facts import Facts, User
from rows import APP, ROWS, USER, Row

TRIALS = [(row, identity) for row in ROWS for identity in row.identities]
#: A Genie answer is polled for a few seconds.
ROW_SECONDS_MAX = 120.0
Table = dict[str, dict[str, str]]


@pytest.mark.parametrize(("row", "identity"), TRIALS, ids=[f"{row.name} as {identity}" for row, identity in TRIALS])
def test_a_row(row: Row, identity: str, facts: Facts, door: Door, table: Table, say: Any) -> None:
    allowed, refused = facts.named(row.allowed), facts.named(row.refused)
    words = {name: facts.named(word) for name, word in row.words.items()}
    if allowed is None or refused is None or None in words.values():
        say(f"{row.name}: no such object was given")
        return
    told = asked(facts, door, row, identity, allowed)
    assert "error" not in told, told
    if "seen" in told and facts.workspace == "embedded":
        runs_as = row.runs_as or identity
        assert told["seen"] == {APP: facts.app_name, USER: facts.users[0].name}[runs_as]
    refusal = asked(facts, door, row, identity, refused)
    assert refusal.get("error") in row.errors, refusal
    assert_helpful(refusal["message"], row.route)
    entry = table.setdefault(row.name, {"as": "", "allowed": allowed, "refused": refused})
    entry["as"] = f"{entry['as']} {identity}".strip()
    entry["says"] = f"{refusal['error']} by {row.route or 'no route'}"


def assert_helpful(message: str, route: str | None) -> None:
    """Names the route and the remedy."""
    assert "valetkey: no route allows" in message, message
    assert "valetkey explain --as " in message, message
    if route is None:
        assert "add a route with" in message, message
    else:
        assert f"the nearest route is `{route}`" in message and "change it or add one" in message, message


def asked(facts: Facts, door: Door, row: Row, identity: str, thing: str) -> dict[str, Any]:
    words = {name: facts.named(word) or "" for name, word in row.words.items()}
    return told(door, facts.users[0], row.call, thing, identity, **words)


def told(door: Door, user: User, call: str, thing: str, identity: str = USER, **words: str) -> dict[str, Any]:
    """What the agent says of one call: an answer, or the client's exception."""
    query = words | {"call": call, "object": thing, "as": identity}
    return door.get("/row", user.tokens[0], ROW_SECONDS_MAX, **query).json()


def test_a_users_statement_is_not_another_users(facts: Facts, door: Door) -> None:
    one, other = facts.users
    made = told(door, one, "statement", facts.warehouse)["id"]
    assert told(door, one, "statement_again", made) == {"state": "SUCCEEDED"}
    assert_foreign(told(door, other, "statement_again", made))


def test_a_users_conversation_is_not_another_users(facts: Facts, door: Door, say: Any) -> None:
    space = facts.named("{genie_space}")
    if space is None:
        say("conversations: no Genie space was given")
        return
    one, other = facts.users
    made = told(door, one, "genie", space)["conversation"]
    assert "message" in told(door, one, "genie_again", made, space=space)
    assert_foreign(told(door, other, "genie_again", made, space=space))


def test_a_users_mcp_session_is_not_another_users(facts: Facts, door: Door, say: Any) -> None:
    server = facts.named("/api/2.0/mcp/functions/{schema_path}#{function_tool}")
    if server is None:
        say("MCP sessions: no function was given")
        return
    one, other = facts.users
    session = told(door, one, "mcp_tool", server)["session"]
    assert session
    assert_foreign(told(door, other, "mcp_tool", server, session=session))


def assert_foreign(refusal: dict[str, Any]) -> None:
    assert "error" in refusal, refusal
    assert "names an id that somebody else's call created" in refusal["message"], refusal
    assert "valetkey explain" in refusal["message"], refusal


def test_memories_are_only_the_verified_users(facts: Facts, door: Door, say: Any) -> None:
    """By number, as the templates do it: the user cannot name the other one, and the app nobody whom it does not serve."""
    store = facts.named("{memory_store}")
    if store is None:
        say("memories: no memory store was given")
        return
    one, other = facts.users
    number = told(door, other, "user_number", "own")["number"]
    told(door, one, "user_number", "own")
    assert told(door, other, "memory", store, whose=number)["kept"] == "likes tea"
    trials = [told(door, one, "memory", store, whose=number), told(door, one, "memory", store, APP, whose="4711")]
    for refusal in trials:
        assert refusal.get("error") == "PermissionDenied", refusal
        for word in ("route `memories`", "partition of the verified user", "take its name from", "valetkey explain"):
            assert word in refusal["message"], refusal
