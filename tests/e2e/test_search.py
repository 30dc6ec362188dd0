"""Vector search with the dedicated client, whose queries are GET requests with a body."""

from __future__ import annotations

from conftest import Door
from facts import Facts


def test_a_query_reaches_the_index_as_the_user(facts: Facts, door: Door) -> None:
    for user in facts.users:
        rows = search(facts, door, user.tokens[0])
        assert rows
        if "seen_as" in facts.index_columns:
            place = facts.index_columns.index("seen_as")
            assert {row[place] for row in rows} == {user.name}


def test_a_service_principals_query_does_not_walk_round_the_sidecar(facts: Facts, door: Door) -> None:
    """This client takes a token for the index and follows `status.index_url`: both must lead to the sidecar."""
    rows = search(facts, door, facts.users[0].tokens[0], identity="app")
    assert rows
    if "seen_as" in facts.index_columns:
        place = facts.index_columns.index("seen_as")
        assert {row[place] for row in rows} == {facts.app_name}


def search(facts: Facts, door: Door, token: str, identity: str = "user") -> list[list[object]]:
    query = {"index": facts.index, "columns": ",".join(facts.index_columns), "text": "orders", "as": identity}
    return door.asked("/search", token, **query)["rows"]
