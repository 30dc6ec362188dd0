"""As whom the agent's calls run: the app for `WorkspaceClient()`, the right user for the forwarded token, never a mix-up."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conftest import TOKEN_HEADER, Door
from facts import Facts, User

CONCURRENT = 50
ROUNDS = 4
WAIT_SECONDS_MAX = 60.0


def test_the_app_is_the_app_and_the_user_is_the_user(facts: Facts, door: Door) -> None:
    for user in facts.users:
        answer = door.asked("/whoami", user.tokens[0])
        assert (answer["app"], answer["user"]) == (facts.app_name, user.name)


def test_a_statement_runs_as_the_user(facts: Facts, door: Door) -> None:
    for user in facts.users:
        answer = door.asked("/sql", user.tokens[0], warehouse=facts.warehouse, statement="SELECT current_user()")
        assert answer == {"state": "SUCCEEDED", "rows": [[user.name]]}


def test_the_agent_gets_one_stand_in_for_the_token_and_the_verified_identity(facts: Facts, door: Door) -> None:
    user = facts.users[0]
    headers = door.asked("/whoami", user.tokens[0])["headers"]
    given = [value for name, value in headers if name.lower() == TOKEN_HEADER]
    assert len(given) == 1 and given[0].startswith("vks_"), [name for name, _ in headers]
    assert [value for name, value in headers if name.lower() == "x-forwarded-email"] == [user.name]
    assert not any(name.lower() == "authorization" for name, _ in headers)


def test_what_a_client_claims_to_be_is_not_believed(facts: Facts, door: Door) -> None:
    user, other = facts.users
    claims = [
        (TOKEN_HEADER, user.tokens[0]),
        ("X-Forwarded-Email", other.name),
        ("X_Forwarded_Email", other.name),
        ("x-forwarded-user", other.name),
        ("X-Forwarded-Preferred-Username", other.name),
        ("X-Forwarded-Groups", "admins"),
        ("Authorization", "Bearer of-the-client"),
    ]
    answer = door.client.get("/whoami", headers=claims)
    door.keep("/whoami", answer.headers, answer.content)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["user"] == user.name
    got = {name.lower().replace("_", "-"): value for name, value in told["headers"]}
    assert (got["x-forwarded-email"], got["x-forwarded-user"]) == (user.name, user.name)
    assert "x-forwarded-groups" not in got and "authorization" not in got
    # Not in the claims of the token: the front door's word stands, but marked.
    if got.get("x-forwarded-preferred-username") == other.name:
        assert got["x-valetkey-identity"] == "asserted"


def test_fifty_requests_at_once_by_two_users_are_never_mixed_up(facts: Facts, door: Door) -> None:
    start = threading.Barrier(CONCURRENT)

    def one(number: int, round_number: int) -> str | None:
        user = facts.users[number % 2]
        token = user.tokens[(number // 2 + round_number) % len(user.tokens)]
        start.wait(WAIT_SECONDS_MAX)
        return mistake(facts, door, user, token, by_sql=(number // 4 + round_number) % 2 == 0)

    with ThreadPoolExecutor(CONCURRENT) as pool:
        for round_number in range(ROUNDS):
            asked = [pool.submit(one, number, round_number) for number in range(CONCURRENT)]
            mistakes = [found for each in asked if (found := each.result(timeout=2 * WAIT_SECONDS_MAX))]
            assert mistakes == []


def mistake(facts: Facts, door: Door, user: User, token: str, by_sql: bool) -> str | None:
    """What was wrong about one answer."""
    wanted: dict[str, Any]
    if by_sql:
        query = {"warehouse": facts.warehouse, "statement": "SELECT current_user()"}
        wanted = {"state": "SUCCEEDED", "rows": [[user.name]]}
        answer = door.get("/sql", token, **query)
        got = answer.json()
    else:
        wanted = {"app": facts.app_name, "user": user.name}
        answer = door.get("/whoami", token)
        got = {key: answer.json().get(key) for key in wanted}
    return None if (answer.status_code, got) == (200, wanted) else f"{user.name}: {answer.status_code} {answer.text}"
