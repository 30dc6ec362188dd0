"""Streamed answers leave event by event, in both directions of the sidecar.

No clock where it can be helped: an event is let go only after the one before it has been read, so a proxy that holds
anything back makes the reader's wait run out.
"""

from __future__ import annotations

import time
from typing import Any

from conftest import Door, Levers
from facts import Facts

WORDS = "one two three four five"
#: On a real workspace: the first piece must be here well before the last one.
FIRST_PIECE_SHARE_MAX = 0.8
EVENTS_MAX = 100


def test_a_chat_completion_arrives_piece_by_piece(facts: Facts, door: Door, levers: Levers | None, say: Any) -> None:
    if levers is None:
        say("the gate between two events of a chat; arrival times are compared instead")
        compare_arrival_times(facts, door)
        return
    user = facts.users[0]
    levers.pull("hold")
    said, pieces = "", 0
    # One event is let go to begin with: the client may not return before it has read the first.
    levers.pull("release")
    with door.events("/chat", user.tokens[0], model=facts.model, text=WORDS) as events:
        for event in events:
            assert "error" not in event, event
            said += event["text"]
            pieces += 1
            assert pieces <= EVENTS_MAX
            levers.pull("release")
    assert said.endswith(WORDS) and user.name in said
    assert pieces >= len(WORDS.split())


def compare_arrival_times(facts: Facts, door: Door) -> None:
    begin = time.monotonic()
    text = "Count from one to two hundred in words."
    with door.events("/chat", facts.users[0].tokens[0], model=facts.model, text=text) as events:
        times = [time.monotonic() - begin for event in events if event["text"]]
    assert len(times) > 5
    assert times[0] < FIRST_PIECE_SHARE_MAX * times[-1], times


def test_a_chat_runs_with_the_client_of_this_generation(facts: Facts, door: Door) -> None:
    try:
        import databricks_openai  # noqa: F401

        wanted = "DatabricksOpenAI"
    except ImportError:
        wanted = "OpenAI"
    with door.events("/chat", facts.users[1].tokens[0], model=facts.model, text=WORDS) as events:
        assert {event["client"] for event in events} == {wanted}


def test_the_agents_own_stream_arrives_event_by_event(facts: Facts, door: Door) -> None:
    token = facts.users[0].tokens[0]
    words = [f"word-{number}" for number in range(10)]
    with door.events("/stream", token) as events:
        assert next(events) == {"word": "begin"}
        for word in words:
            door.asked("/step", token, word=word)
            assert next(events) == {"word": word}
        door.asked("/step", token, word="end")
        assert list(events) == []
