"""A session's log in pages: where each begins and ends, and what it waits for."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import EVERYONE
from broadcasterd.api.answer import PIECE_BYTES
from broadcasterd.api.pages import page, wants_page
from broadcasterd.api.request import Head, parse_query
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import BadRequest, Unavailable
from broadcasterd.memory.holdings import UNUSED_S
from tests.support.broadcast import drafts, start_hub


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub, whose session "s" has five events."""
    hub = await start_hub(nursery, max_sessions=2)
    await hub.open("s").publish(drafts(*"abcde"))
    return hub


def head(query: str = "", accept: str = "application/json") -> Head:
    """Return the head of a request for a page."""
    fields = {"accept": accept}
    return Head("GET", "/", parse_query(query.encode()), fields, "127.0.0.1", "1.1")


async def data(hub: Hub, query: str = "", name: str = "s") -> tuple[str, object]:
    """Ask for a page; return the data on it, joined, and the id to go on from."""
    found = await page(head(query), name, EVERYONE, hub)

    assert isinstance(found, dict)
    events = found["events"]
    assert isinstance(events, list)
    return "".join(event["data"] for event in events), found["next"]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", True),
        ("application/json, */*", True),
        ("text/event-stream, application/json", False),
        ("text/event-stream", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_a_page_is_for_those_who_ask_for_json_alone(accept: str, *, expected: bool) -> None:
    assert expected == wants_page(head(accept=accept))


async def test_pages_follow_each_other_to_the_end(hub: Hub) -> None:
    log = hub.find("s").log

    assert ("ab", log.id_of(2)) == await data(hub, "limit=2")
    assert ("cd", log.id_of(4)) == await data(hub, f"limit=2&last_event_id={log.id_of(2)}")
    assert ("e", log.id_of(5)) == await data(hub, f"limit=2&last_event_id={log.id_of(4)}")
    assert ("", log.id_of(5)) == await data(hub, f"limit=2&last_event_id={log.id_of(5)}")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "wait=31", "wait=-1", "wait=x", "from=yesterday"],
)
async def test_a_page_has_bounds(hub: Hub, query: str) -> None:
    with pytest.raises(BadRequest):
        await page(head(query), "s", EVERYONE, hub)


async def test_a_page_tells_of_a_gap(hub: Hub) -> None:
    found = await page(head("last_event_id=lost-7"), "s", EVERYONE, hub)

    assert isinstance(found, dict)
    assert found["gap"] == {"asked": "lost-7", "oldest": hub.find("s").log.id_of(1)}


async def test_only_to_look_makes_no_session(hub: Hub) -> None:
    told, following = await data(hub, name="other")

    assert told == ""
    assert "other" not in hub.sessions
    await hub.open("other").publish(drafts("a"))
    assert ("a", hub.find("other").log.id_of(1)) == await data(
        hub, f"last_event_id={following}", name="other"
    )


async def test_a_page_of_a_closed_session_is_none(hub: Hub) -> None:
    hub.end("s")

    assert await page(head(), "s", EVERYONE, hub) is None


async def test_a_page_waits_for_news_up_to_its_limit(
    hub: Hub, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def publish_later() -> None:
        await trio.sleep(5)
        await hub.find("s").publish(drafts("f"))

    nursery.start_soon(publish_later)

    assert ("f", hub.find("s").log.id_of(6)) == await data(hub, "from=now&wait=30")
    assert 5 == trio.current_time()
    assert "" == (await data(hub, "from=now&wait=30"))[0]
    assert 35 == trio.current_time()


@pytest.mark.parametrize("reason", [EndReason.MEMORY, EndReason.SESSION_CLOSED])
async def test_a_session_that_is_lost_while_a_page_waits_is_a_gap_of_the_next(
    hub: Hub, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, reason: EndReason
) -> None:
    session = hub.find("s")

    async def lose_it() -> None:
        await trio.sleep(5)
        if reason is EndReason.MEMORY:
            hub.drop(session, reason)
        else:
            hub.end("s")

    nursery.start_soon(lose_it)
    found = await page(head("from=now&wait=30"), "s", EVERYONE, hub)

    if reason is EndReason.SESSION_CLOSED:
        assert found is None  # it is over
        return
    assert found == {"session": "s", "events": [], "next": session.log.id_of(5)}
    following = await page(head(f"last_event_id={found['next']}"), "s", EVERYONE, hub)
    assert isinstance(following, dict)
    assert following["gap"] == {"asked": found["next"], "oldest": None}
    last = await page(head(f"last_event_id={following['next']}"), "s", EVERYONE, hub)
    assert last is not None
    assert "gap" not in last


async def test_what_is_evicted_while_a_page_waits_is_told(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery, max_history_events=3)
    session = hub.open("s")

    async def publish_too_much() -> None:
        await trio.sleep(5)
        await session.publish(drafts(*"abcde"))

    nursery.start_soon(publish_too_much)
    found = await page(head("from=now&wait=30"), "s", EVERYONE, hub)

    assert isinstance(found, dict)
    assert found["gap"] == {"asked": session.log.id_of(0), "oldest": session.log.id_of(3)}


async def test_waiting_for_a_new_session_needs_room_for_it(hub: Hub) -> None:
    await hub.open("second").publish(drafts("a"))

    with pytest.raises(Unavailable):
        await page(head("wait=1"), "third", EVERYONE, hub)


# --- long ones ---------------------------------------------------------------------------------


async def pieces_of(hub: Hub, query: str) -> Iterator[bytes]:
    """Publish a long history, and ask for a page of it."""
    await hub.open("long").publish(drafts(*[f"{n} ".ljust(5000, "x") for n in range(40)]))
    found = await page(head(query), "long", EVERYONE, hub)

    assert isinstance(found, Iterator)
    return found


async def test_a_long_page_comes_in_pieces_of_which_none_is_large(hub: Hub) -> None:
    pieces = [*await pieces_of(hub, "limit=30&last_event_id=lost-1")]
    found = json.loads(b"".join(pieces))

    assert max(map(len, pieces)) < 2 * PIECE_BYTES
    assert [*range(30)] == [int(event["data"].split()[0]) for event in found["events"]]
    assert hub.find("long").log.id_of(30) == found["next"]
    assert ("long", "lost-1") == (found["session"], found["gap"]["asked"])


async def test_a_long_page_ends_where_its_events_are_gone_and_the_next_one_tells(hub: Hub) -> None:
    pieces = await pieces_of(hub, "limit=40")
    first = next(pieces)
    hub.find("long").log.trim(0)
    found = json.loads(first + b"".join(pieces))
    following = await page(head(f"last_event_id={found['next']}"), "long", EVERYONE, hub)

    assert 0 < len(found["events"]) < 40
    assert isinstance(following, dict)
    assert {"asked": found["next"], "oldest": None} == following["gap"]


async def test_a_page_that_waits_is_answered_when_its_memory_is_needed(
    hub: Hub, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def be_short_of_memory() -> None:
        await trio.sleep(UNUSED_S)
        assert 1 == hub.holdings.let_go(1, now=hub.clock.now()).told

    nursery.start_soon(be_short_of_memory)
    found = await page(head("from=now&wait=30"), "s", EVERYONE, hub)

    assert {"session": "s", "events": [], "next": hub.find("s").log.id_of(5)} == found
    assert UNUSED_S == trio.current_time()
    assert (0, 0) == (len(hub.holdings), hub.holdings.bytes)
