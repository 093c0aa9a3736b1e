"""Asking for a stream: its position, and its first bytes."""

from __future__ import annotations

import json

import pytest
import trio

from broadcasterd.access.grants import EVERYONE
from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.room import TurnedAway
from broadcasterd.api.subscribe import Admission, Over, admit
from broadcasterd.broadcast.hub import Hub
from broadcasterd.errors import BadRequest, Unavailable
from tests.support.broadcast import drafts, retained, start_hub
from tests.support.sse import parse

RETAINED = 10
LETTERS = "abcde"


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub, whose session "s" has five events."""
    hub = await start_hub(nursery, max_history_events=RETAINED, retry_ms=1234)
    await hub.open("s").publish(drafts(*LETTERS))
    return hub


def event_id(hub: Hub, seq: int) -> str:
    """Return the id of an event of the session."""
    return hub.find("s").log.id_of(seq)


def ask(
    hub: Hub, query: str = "", last_event_id: str = "", name: str = "s"
) -> Admission | TurnedAway | Over:
    """Ask for a stream."""
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    head = Head("GET", "/", parse_query(query.encode()), headers, "127.0.0.1", "1.1")
    return admit(head, name, EVERYONE, hub)


def admitted(hub: Hub, query: str = "", last_event_id: str = "") -> Admission:
    """Ask for a stream that is granted."""
    found = ask(hub, query, last_event_id)

    assert isinstance(found, Admission)
    return found


def starts_after(hub: Hub, query: str = "", last_event_id: str = "") -> int:
    """Ask for a stream without a gap; return the number of events that it leaves out."""
    position = admitted(hub, query, last_event_id).position

    assert position.gap is None
    return position.cursor


@pytest.mark.parametrize(
    ("query", "left_out", "primed"),
    [
        ("", 0, False),
        ("from=start", 0, False),
        ("from=", 0, False),
        ("from=now", 5, True),
        ("from=last:2", 3, True),
        ("from=last:0", 5, True),
        ("from=last:99", 0, True),
        ("from=now&from=start", 0, False),
        ("from=1970-01-01T00:00:00Z", 0, True),
        ("from=2999-12-31T23:59:59%2B01:00", 5, True),
        ("from=2999-12-31T23:59:59+01:00", 5, True),
    ],
)
async def test_from_says_where_a_stream_starts(
    hub: Hub, query: str, left_out: int, *, primed: bool
) -> None:
    admission = admitted(hub, query)
    retry, comment, *rest = admission.opening.decode().split("\n")

    assert admission.position.cursor == left_out
    assert (retry, comment) == ("retry: 1234", f": stream {admission.stream_id}")
    # An id without data: a client that is cut now resumes here, and fires no event.
    assert rest == ([f"id: {event_id(hub, left_out)}", "", ""] if primed else [""])


@pytest.mark.parametrize(
    "query",
    ["from=yesterday", "from=last:", "from=last:-1", "from=2024-01-01T00:00:00", "from=last:1e3"],
)
async def test_other_starts_are_refused(hub: Hub, query: str) -> None:
    with pytest.raises(BadRequest):
        ask(hub, query)


@pytest.mark.parametrize(
    "parameter",
    ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "evs_last_event_id"],
)
async def test_a_stream_resumes_after_the_id_of_the_query(hub: Hub, parameter: str) -> None:
    assert 2 == starts_after(hub, f"{parameter}={event_id(hub, 2)}")


async def test_of_several_ids_the_last_that_is_not_empty_counts(hub: Hub) -> None:
    query = f"lastEventId={event_id(hub, 1)}&last_event_id={event_id(hub, 3)}"

    assert 3 == starts_after(hub, f"{query}&lastEventId=&from=now")


async def test_the_header_wins_unless_it_is_empty(hub: Hub) -> None:
    query = f"lastEventId={event_id(hub, 3)}&from=now"

    assert 2 == starts_after(hub, query, event_id(hub, 2))
    assert 3 == starts_after(hub, query, "")


async def test_a_very_long_id_is_refused(hub: Hub) -> None:
    assert admitted(hub, last_event_id="x" * 256).position.gap
    with pytest.raises(BadRequest):
        ask(hub, last_event_id="x" * 257)


@pytest.mark.parametrize("asked", ["unknown", "0", '"', "00000000-1", "a-b-c", "-1", "x-999"])
async def test_an_id_that_this_log_never_gave_is_a_gap(hub: Hub, asked: str) -> None:
    position = admitted(hub, last_event_id=asked).position

    assert position.gap is not None
    assert (position.gap.asked, position.gap.oldest) == (asked, event_id(hub, 1))
    assert position.cursor == 0


async def test_an_id_of_the_future_is_a_gap(hub: Hub) -> None:
    gap = admitted(hub, last_event_id=event_id(hub, 6)).position.gap

    assert gap is not None
    assert (gap.asked, gap.oldest) == (event_id(hub, 6), event_id(hub, 1))


async def test_only_an_id_before_the_last_that_was_evicted_is_a_gap(hub: Hub) -> None:
    await hub.find("s").publish(drafts(*"fghijklm"))

    assert RETAINED == len(retained(hub.find("s")))
    assert admitted(hub, last_event_id=event_id(hub, 2)).position.gap
    assert 3 == starts_after(hub, last_event_id=event_id(hub, 3))


async def test_every_stream_has_a_name_of_its_own(hub: Hub) -> None:
    assert admitted(hub).stream_id != admitted(hub).stream_id


async def test_a_session_that_was_closed_is_over(hub: Hub) -> None:
    hub.end("s")

    assert Over() == ask(hub)


async def test_a_stream_that_there_is_no_room_for_says_why_and_ends(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_sessions=1, retry_ms=1000)
    await hub.open("s").publish(drafts("a"))
    turned_away = ask(hub, name="other")

    assert isinstance(turned_away, TurnedAway)
    [end] = parse(turned_away.body.decode().split("\n"))
    assert end.type == "broadcaster.end"
    assert json.loads(end.data)["reason"] == "memory"


async def test_a_client_may_ask_for_a_status_instead(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_sessions=1)
    await hub.open("s").publish(drafts("a"))

    with pytest.raises(Unavailable) as refused:
        ask(hub, "overload=status", name="other")

    assert int(refused.value.headers["Retry-After"]) > 0
