"""The stream of figures: computed once for all who watch, and not at all where nobody does."""

from __future__ import annotations

import json
from math import inf

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import EVERYONE
from broadcasterd.api.live import MAX_WATCHERS, PATH, Live
from broadcasterd.api.points import EVERY_S
from broadcasterd.api.request import Head
from broadcasterd.api.room import TurnedAway
from broadcasterd.api.stats import Stats
from broadcasterd.api.subscribe import Admission
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.session_name import check_session_name
from broadcasterd.errors import Problem
from tests.support.broadcast import ThrottledSocket, events_of, start_hub, taken
from tests.support.figures import made_up

Clock = trio.testing.MockClock


class Figures:
    """Figures that count how often they are asked for."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> Stats:
        self.looks += 1
        return made_up()


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
async def live(nursery: trio.Nursery, figures: Figures) -> Live:
    """Run a stream of figures on a hub of its own."""
    hub = await start_hub(nursery)
    live = Live(hub, figures, lambda: [{"date": "2026-11-25"}])
    nursery.start_soon(live.run)
    await trio.testing.wait_all_tasks_blocked()
    return live


def head(query: str = "") -> Head:
    fields = (("overload", query),) if query else ()
    return Head("GET", PATH, fields, {}, "127.0.0.1", "1.1")


def watch(live: Live) -> SocketSubscriber:
    """Watch, with a socket that takes everything."""
    admission = live.admit(head(), EVERYONE)
    assert isinstance(admission, Admission)
    subscriber = SocketSubscriber(
        admission.session,
        ThrottledSocket(),
        live._hub.poller,
        stream_id=admission.stream_id,
        peer="127.0.0.1",
        position=admission.position,
        expires_at=inf,
        opening=admission.opening,
    )
    admission.session.attach(subscriber)
    return subscriber


def frames(subscriber: SocketSubscriber) -> list[str]:
    """Return the names of the events that it was sent."""
    return [event.type for event in events_of(taken(subscriber))]


async def test_first_comes_the_last_hour_and_then_a_frame_a_second(
    live: Live, autojump_clock: Clock
) -> None:
    await trio.sleep(5 * EVERY_S + 0.5)
    subscriber = watch(live)
    await trio.sleep(3.2)
    [history, *stats] = events_of(taken(subscriber))

    assert ("history", 5) == (history.type, len(json.loads(history.data)["points"]))
    assert [{"date": "2026-11-25"}] == json.loads(history.data)["quality"]
    assert ["stats"] * 3 == [event.type for event in stats]
    assert {"point", "health", "stats"} == json.loads(stats[0].data).keys()


async def test_several_who_watch_share_one_computation(
    live: Live, figures: Figures, autojump_clock: Clock
) -> None:
    watchers = [watch(live) for _ in range(3)]
    before = figures.looks
    await trio.sleep(10.1)

    assert 10 == figures.looks - before
    assert [["history", *["stats"] * 10]] * 3 == [frames(each) for each in watchers]


async def test_where_nobody_watches_only_the_last_hour_is_kept(
    live: Live, figures: Figures, autojump_clock: Clock
) -> None:
    before = figures.looks
    await trio.sleep(20.5)

    assert 4 == figures.looks - before


async def test_it_is_no_session_that_anybody_finds(live: Live) -> None:
    watch(live)
    hub = live._hub

    assert ({}, 1) == (hub.sessions, len(hub.subscribers))


async def test_a_restart_that_hands_over_ends_it_and_says_why(live: Live) -> None:
    subscriber = watch(live)
    await live._hub.drain(movable_stay=True)
    *_, end = events_of(taken(subscriber))

    assert not subscriber.can_move
    assert ("broadcaster.end", {"reason": "draining", "reconnect": True}) == (
        end.type,
        json.loads(end.data),
    )


async def test_while_the_daemon_drains_nobody_is_let_in(live: Live) -> None:
    live._hub.interrupts.drain()
    answer = live.admit(head(), EVERYONE)

    assert isinstance(answer, TurnedAway)
    assert b'"reason":"draining"' in answer.body
    with pytest.raises(Problem) as raised:
        live.admit(head("status"), EVERYONE)
    assert 503 == raised.value.status


async def test_there_is_room_for_so_many(live: Live) -> None:
    for _ in range(MAX_WATCHERS):
        watch(live)
    answer = live.admit(head(), EVERYONE)

    assert isinstance(answer, TurnedAway)
    assert b'"reason":"memory"' in answer.body


async def test_the_streams_of_an_address_are_bounded_as_others_are(live: Live) -> None:
    for _ in range(live._hub.quotas.limits.max_subscribers_per_address):
        live._hub.quotas.stream_opened("127.0.0.1", None)

    assert isinstance(live.admit(head(), EVERYONE), TurnedAway)


async def test_an_open_breaker_turns_nobody_away_who_wants_to_see_why(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live._hub.pressure, "refuses_subscriber", lambda: True)

    assert isinstance(live.admit(head(), EVERYONE), Admission)


async def test_after_a_failure_the_next_watcher_gets_another_session(
    live: Live, autojump_clock: Clock
) -> None:
    first = watch(live)
    session = live._session
    assert session is not None
    session.end(EndReason.CRASHED)
    await trio.testing.wait_all_tasks_blocked()
    second = watch(live)
    await trio.sleep(1.1)

    assert first.closed
    assert ["history", "stats"] == frames(second)


def test_nobody_else_can_name_that_session() -> None:
    with pytest.raises(Problem):
        check_session_name(PATH)
