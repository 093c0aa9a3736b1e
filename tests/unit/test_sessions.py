"""Looking at sessions: the list in pages, and what is said of each."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.sessions import (
    MAX_LISTED,
    SESSION_ORDER,
    STREAM_ORDER,
    describe,
    end_stream,
    list_sessions,
    list_streams,
)
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import BadRequest, Problem
from tests.support.broadcast import Recorder, drafts, start_hub


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub with five sessions."""
    hub = await start_hub(nursery)
    for name in ["e", "a", "c", "b", "d"]:
        hub.open(name)
    return hub


def listed(hub: Hub, query: str = "") -> tuple[list[object], object]:
    """Return the names on a page, and the cursor of the next one."""
    head = Head("GET", "/v1/sessions", parse_query(query.encode()), {}, "127.0.0.1", "1.1")
    page = list_sessions(head, hub)
    shown = page["sessions"]

    assert isinstance(shown, list)
    assert page["total"] == len(hub.sessions)
    return [session["session"] for session in shown], page["next"]


@pytest.mark.parametrize(
    ("query", "names", "following"),
    [
        ("", "abcde", None),
        ("limit=5", "abcde", None),
        ("limit=2", "ab", "b"),
        ("limit=2&cursor=b", "cd", "d"),
        ("limit=2&cursor=d", "e", None),
        ("cursor=bb", "cde", None),
        ("cursor=z", "", None),
        (f"limit={MAX_LISTED}", "abcde", None),
    ],
)
async def test_sessions_are_listed_by_name_in_pages(
    hub: Hub, query: str, names: str, following: str | None
) -> None:
    assert (list(names), following) == listed(hub, query)


@pytest.mark.parametrize("limit", ["0", "-1", "x", str(MAX_LISTED + 1)])
async def test_a_page_has_bounds(hub: Hub, limit: str) -> None:
    with pytest.raises(BadRequest):
        listed(hub, f"limit={limit}")


async def test_a_session_is_described_with_the_age_of_all(
    hub: Hub, mock_clock: trio.testing.MockClock
) -> None:
    session = hub.open("new")
    mock_clock.jump(10)
    await session.publish(drafts("a", "b"))
    mock_clock.jump(5)

    assert describe(session) == {
        "session": "new",
        "subscribers": 0,
        "retained_events": 2,
        "retained_bytes": session.log.bytes,
        "oldest_id": session.log.id_of(1),
        "last_id": session.log.id_of(2),
        "oldest_age_s": 5,
        "age_s": 15,
        "idle_s": 5,
    }


async def test_a_session_without_events_has_no_oldest(hub: Hub) -> None:
    described = describe(hub.find("a"))

    assert (described["oldest_id"], described["oldest_age_s"]) == (None, None)


@pytest.mark.parametrize(
    ("query", "names", "following"),
    [
        ("offset=3", "de", None),
        ("offset=5", "", None),
        ("limit=1&offset=1", "b", "b"),
        ("sort=-session&limit=2", "ed", None),
        ("sort=session&limit=2", "ab", "b"),
        ("q=C", "c", None),
        ("q=cc", "", None),
        ("sort=-retained_events&limit=2", "da", None),
        ("sort=retained_events&limit=3", "ecb", None),
        ("sort=-subscribers&limit=1", "b", None),
    ],
)
async def test_a_listing_is_filtered_and_sorted(
    hub: Hub, query: str, names: str, following: str | None
) -> None:
    await hub.find("d").publish(drafts("1", "2"))
    await hub.find("a").publish(drafts("1"))
    Recorder(hub.find("b"))

    assert (list(names), following) == listed(hub, query)


@pytest.mark.parametrize("order", SESSION_ORDER)
async def test_sessions_are_sorted_by_each_figure_as_it_is_shown(
    hub: Hub, order: str, mock_clock: trio.testing.MockClock
) -> None:
    for seconds, name in enumerate(["b", "d"], start=1):
        mock_clock.jump(seconds)
        session = hub.open(f"{name}{name}")
        await session.publish(drafts(*("x" * seconds for _ in range(seconds))))
        for _ in range(seconds):
            Recorder(session)
    query = parse_query(f"sort={order}".encode())
    page = list_sessions(Head("GET", "/v1/sessions", query, {}, "127.0.0.1", "1.1"), hub)
    shown = page["sessions"]
    assert isinstance(shown, list)
    values = [session[order] for session in shown]

    assert sorted(values) == values
    assert len(set(values)) > 1


@pytest.mark.parametrize("query", ["sort=size", "sort=--session", "offset=-1"])
async def test_an_order_that_is_not_known_is_refused(hub: Hub, query: str) -> None:
    with pytest.raises(BadRequest):
        listed(hub, query)


async def test_many_sessions_are_listed_in_any_order_in_pages(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery)
    names = [f"s{number:05}" for number in range(1_000)]
    for name in names:
        hub.open(name)
    shown, _ = listed(hub, "sort=-subscribers&offset=990&limit=100&q=S")

    assert names[-10:] == shown


def streams_of(hub: Hub, query: str = "") -> dict[str, object]:
    head = Head("GET", "/", parse_query(query.encode()), {}, "127.0.0.1", "1.1")
    return list_streams(head, hub.find("a"))


async def test_streams_are_listed_with_their_lag(
    hub: Hub, mock_clock: trio.testing.MockClock
) -> None:
    session = hub.find("a")
    behind = Recorder(session)
    mock_clock.jump(2)
    live = Recorder(session)
    await session.publish(drafts("1", "2", "3"))
    live.cursor, live._sent_events, live._sent_bytes = 3, 3, 90

    assert {
        "session": "a",
        "streams": [
            {
                "stream": behind.stream_id,
                "peer": "127.0.0.1",
                "subject": None,
                "age_s": 2.0,
                "lag_events": 3,
                "sent_events": 0,
                "sent_bytes": 0,
                "pending_bytes": 7,
            },
            {
                "stream": live.stream_id,
                "peer": "127.0.0.1",
                "subject": None,
                "age_s": 0.0,
                "lag_events": 0,
                "sent_events": 3,
                "sent_bytes": 90,
                "pending_bytes": 7,
            },
        ],
        "total": 2,
    } == streams_of(hub)


@pytest.mark.parametrize("order", STREAM_ORDER)
async def test_streams_are_sorted_and_paged(hub: Hub, order: str) -> None:
    for number in range(3):
        Recorder(hub.find("a"))._sent_events = number
    page = streams_of(hub, f"sort=-{order}&offset=1&limit=1")
    shown = page["streams"]

    assert isinstance(shown, list)
    assert (1, 3) == (len(shown), page["total"])


async def test_one_stream_is_ended_for_good(hub: Hub) -> None:
    ended, other = Recorder(hub.find("a")), Recorder(hub.find("a"))
    end_stream(ended.stream_id, hub)

    assert ("disconnect", EndReason.REVOKED, None) == ended.last_words
    assert not other.closed
    with pytest.raises(Problem) as raised:
        end_stream(ended.stream_id, hub)
    assert 404 == raised.value.status
