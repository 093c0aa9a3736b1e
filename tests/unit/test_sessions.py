"""Looking at sessions: the list in pages, and what is said of each."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.sessions import MAX_LISTED, describe, list_sessions
from broadcasterd.broadcast.hub import Hub
from broadcasterd.errors import BadRequest
from tests.support.broadcast import drafts, start_hub


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
