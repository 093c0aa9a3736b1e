"""The hub: which sessions there are, how many of what, and how all of it ends."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.hub import UNUSED_INTERVAL_S, Hub
from broadcasterd.broadcast.slices import SLICE
from broadcasterd.core.position import ById
from broadcasterd.core.reasons import EndReason
from broadcasterd.errors import RETRY_AFTER_S, NoSuchSession, SessionEnded, Unavailable
from broadcasterd.memory.breaker import State, Thresholds
from tests.support.broadcast import (
    Recorder,
    ThrottledSocket,
    attach,
    data_of,
    draft,
    drafts,
    events_of,
    in_force,
    retained,
    start_hub,
    taken,
)


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub with the default settings."""
    return await start_hub(nursery)


# --- opening and finding ---------------------------------------------------------------------


async def test_a_session_is_opened_once(hub: Hub) -> None:
    assert hub.open("s") is hub.open("s") is hub.find("s")
    assert hub.open("other") is not hub.open("s")


async def test_only_what_is_open_is_found(hub: Hub) -> None:
    with pytest.raises(NoSuchSession, match="'s'"):
        hub.find("s")


async def test_there_are_only_so_many_sessions(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_sessions=2)
    for name in "ab":
        await hub.open(name).publish(drafts("used"))
    with pytest.raises(Unavailable, match="max_sessions") as refusal:
        hub.open("c")

    assert refusal.value.headers == {"Retry-After": str(RETRY_AFTER_S)}
    assert hub.open("a") is hub.find("a")

    hub.end("a")
    hub.open("c")


async def test_sessions_that_nobody_ever_used_make_room(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_sessions=4)
    used = hub.open("used")
    await used.publish(drafts("a"))
    attach(hub.open("heard"))
    hub.open("looked-at")
    hub.open("also")

    hub.open("next")

    assert {"used", "heard", "next"} == set(hub.sessions)


async def test_sessions_that_are_in_use_make_no_room(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery, max_sessions=2)
    heard = attach(hub.open("heard"))
    await hub.open("used").publish(drafts("a"))
    with pytest.raises(Unavailable):
        hub.open("next")

    heard.close(EndReason.CLIENT_GONE)
    with pytest.raises(Unavailable, match="max_sessions"):
        hub.open("next")  # it was looked for just now
    await trio.sleep(UNUSED_INTERVAL_S)
    hub.open("next")

    assert {"used", "next"} == set(hub.sessions)


async def test_every_incarnation_of_a_session_has_ids_of_its_own(hub: Hub) -> None:
    first = await hub.open("s").publish(drafts("a"))
    hub.end("s")
    second = await hub.open("s").publish(drafts("a"))

    assert first.last_id != second.last_id
    assert hub.find("s").resolve(ById(first.last_id or "")).gap is not None


async def test_two_sessions_do_not_hear_each_other(hub: Hub) -> None:
    one, other = attach(hub.open("one")), attach(hub.open("other"))
    await hub.open("one").publish(drafts("a"))
    await hub.open("other").publish(drafts("b"))

    assert (data_of(one), data_of(other)) == (["a"], ["b"])


# --- ending ----------------------------------------------------------------------------------


async def test_a_session_that_is_ended_is_gone_and_remembered(hub: Hub) -> None:
    session = hub.open("s")
    live = attach(session)
    hub.end("s")

    assert hub.was_ended("s")
    assert hub.sessions == {}
    with pytest.raises(SessionEnded):
        await session.publish(drafts("late"))

    await trio.testing.wait_all_tasks_blocked()

    assert data_of(live) == ['{"reason":"session_closed","reconnect":false}']
    assert hub.subscribers.ended_by_reason == {EndReason.SESSION_CLOSED: 1}
    assert hub.subscribers.by_id == {}


async def test_ending_twice_is_ending_once_and_of_what_never_was_there_is_no_end(hub: Hub) -> None:
    hub.open("s")
    hub.end("s")
    hub.end("s")

    assert hub.was_ended("s")
    with pytest.raises(NoSuchSession):
        hub.end("unknown")
    assert not hub.was_ended("unknown")


async def test_publishing_to_an_ended_session_opens_it_anew(hub: Hub) -> None:
    hub.open("s")
    hub.end("s")
    await hub.open("s").publish(drafts("a"))

    assert not hub.was_ended("s")


async def test_the_names_of_ended_sessions_are_bounded(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_sessions=3)
    for number in range(5):
        hub.open(f"s{number}")
        hub.end(f"s{number}")
    hub.end("s2")  # again: that makes it the newest
    hub.open("s5")
    hub.end("s5")

    assert [name for name in (f"s{n}" for n in range(6)) if hub.was_ended(name)] == [
        "s2",
        "s4",
        "s5",
    ]


async def test_a_session_that_fails_takes_nothing_with_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    failing, other = hub.open("failing"), hub.open("other")
    lost, kept = Recorder(failing), Recorder(other)
    monkeypatch.setattr(failing.log, "append", fail)
    with pytest.raises(Unavailable):
        await failing.publish(drafts("a"))
    await trio.testing.wait_all_tasks_blocked()
    await other.publish(drafts("b"))
    await hub.open("failing").publish(drafts("again"))

    assert lost.closed
    assert hub.subscribers.ended_by_reason == {EndReason.CRASHED: 1}
    assert kept.data == ["b"]
    assert retained(hub.find("failing")) == ["again"]


# --- streams ---------------------------------------------------------------------------------


async def test_streams_that_were_admitted_together_are_cut_down_to_the_limit(
    nursery: trio.Nursery,
) -> None:
    hub = await start_hub(nursery, max_subscribers=3)
    streams = [Recorder(hub.open(name)) for name in ("a", "b", "a", "b")]

    assert [stream.closed for stream in streams] == [False, False, False, True]
    assert streams[3].last_words is not None
    assert streams[3].last_words[:2] == ("disconnect", EndReason.MEMORY)
    assert streams[3].last_words[2] is not None
    assert len(hub.subscribers) == 3


async def test_so_are_those_of_one_session(nursery: trio.Nursery) -> None:
    hub = await start_hub(nursery, max_subscribers_per_session=1)
    streams = [Recorder(hub.open(name)) for name in ("a", "a", "b")]

    assert [stream.closed for stream in streams] == [False, True, False]


async def test_streams_are_known_by_their_id_until_they_end(hub: Hub) -> None:
    stream = Recorder(hub.open("s"))

    assert hub.subscribers.by_id == {stream.stream_id: stream}

    stream.close(EndReason.CLIENT_GONE)
    stream.close(EndReason.CRASHED)

    assert hub.subscribers.by_id == {}
    assert hub.subscribers.ended_by_reason == {EndReason.CLIENT_GONE: 1}


async def test_what_is_accounted_for_goes_up_and_down_with_what_there_is(hub: Hub) -> None:
    before = hub.accounted_bytes
    session = hub.open("s")
    sock = ThrottledSocket(window=1)
    attach(session, sock)
    await session.publish(drafts("x" * 10_000))
    [stream] = hub.subscribers.by_id.values()

    assert hub.accounted_bytes > before + session.log.bytes + stream.pending_bytes > 20_000

    sock.allow()
    hub.end("s")
    await trio.testing.wait_all_tasks_blocked()

    assert hub.accounted_bytes == before


async def test_reconnections_are_spread_over_twice_the_time(hub: Hub) -> None:
    retries = {hub.subscribers.jittered_retry_ms() for _ in range(200)}

    assert min(retries) >= hub.settings.sessions.retry_ms
    assert max(retries) <= 2 * hub.settings.sessions.retry_ms
    assert len(retries) > 100


# --- the sweep -------------------------------------------------------------------------------


async def test_a_sweep_drops_what_is_too_old(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery, event_ttl=10)
    session = hub.open("s")
    await session.publish([draft("short-lived", ttl=1), draft("old")])
    await trio.sleep(9)
    await session.publish(drafts("young"))
    await hub.sweep()

    assert retained(session) == ["old", "young"]

    await trio.sleep(1)
    await hub.sweep()

    assert retained(session) == ["young"]
    # Of two, the first was noticed by the publication already.


async def test_a_sweep_ends_sessions_that_nobody_used(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery, session_ttl=100)
    hub.open("idle")
    Recorder(hub.open("listened-to"))
    await trio.sleep(50)
    await hub.open("published-to").publish(drafts("a"))
    await trio.sleep(50)
    await hub.sweep()
    await trio.testing.wait_all_tasks_blocked()

    assert sorted(hub.sessions) == ["listened-to", "published-to"]
    assert not hub.was_ended("idle")  # who comes back may open it again


async def test_a_sweep_forgets_the_names_of_sessions_that_ended_long_ago(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await start_hub(nursery, session_ttl=100)
    for name in ("first", "second"):
        hub.open(name)
        hub.end(name)
        await trio.sleep(60)
    await hub.sweep()

    assert (hub.was_ended("first"), hub.was_ended("second")) == (False, True)


async def test_a_sweep_of_many_sessions_lets_others_run(hub: Hub) -> None:
    for number in range(6 * SLICE):
        hub.open(f"s{number}")
    await trio.testing.wait_all_tasks_blocked()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await hub.sweep()
        nursery.cancel_scope.cancel()

    assert ticks >= 4


# --- draining --------------------------------------------------------------------------------


async def test_draining_tells_everyone_to_come_back_at_different_times(hub: Hub) -> None:
    streams = [attach(hub.open(f"s{number}")) for number in range(SLICE + 50)]
    await hub.open("s0").publish(drafts("a"))
    with trio.fail_after(10):
        await hub.drain()
    retries = {re.search(rb"retry: (\d+)\n", taken(stream)) for stream in streams}

    assert data_of(streams[0]) == ["a", '{"reason":"draining","reconnect":true}']
    assert len({match[1] for match in retries if match}) > 100
    assert hub.subscribers.ended_by_reason == {EndReason.DRAINING: len(streams)}


async def test_draining_waits_for_those_who_are_still_owed_something(
    hub: Hub, nursery: trio.Nursery
) -> None:
    sock = ThrottledSocket(window=1)
    attach(hub.open("s"), sock)
    await hub.open("s").publish(drafts("a"))
    drained = trio.Event()

    async def drain() -> None:
        await hub.drain()
        drained.set()

    nursery.start_soon(drain)
    await trio.testing.wait_all_tasks_blocked()

    assert not drained.is_set()

    sock.allow()
    with trio.fail_after(10):
        await drained.wait()

    assert [event.type for event in events_of(bytes(sock.taken))] == ["message", "broadcaster.end"]


async def test_draining_with_nobody_there_is_over_at_once(hub: Hub) -> None:
    with trio.fail_after(10):
        await hub.drain()


async def test_while_it_drains_no_session_is_opened(hub: Hub) -> None:
    hub.open("s")
    await hub.drain()
    with pytest.raises(Unavailable, match="restarting"):
        hub.open("another")

    assert hub.open("s") is hub.find("s")


async def test_what_waits_for_a_client_is_cancelled_by_the_drain(hub: Hub) -> None:
    cancelled: list[bool] = []

    async def wait() -> None:
        with hub.interrupts.until_drain() as scope:
            await trio.Event().wait()
        cancelled.append(scope.cancelled_caught)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await hub.drain()
    await wait()

    assert cancelled == [True, True]


async def test_cutting_ends_every_stream_now(hub: Hub) -> None:
    sock = ThrottledSocket(window=1)
    attach(hub.open("s"), sock)
    other = Recorder(hub.open("other"))
    await hub.open("s").publish(drafts("a"))
    hub.subscribers.disconnect(EndReason.DRAINING)

    assert not hub.subscribers.by_id
    assert other.last_words is not None
    assert other.last_words[:2] == ("disconnect", EndReason.DRAINING)
    assert [event.type for event in events_of(bytes(sock.taken))] == ["message", "broadcaster.end"]


# --- other settings --------------------------------------------------------------------------


async def test_other_settings_hold_for_sessions_that_are_open_and_for_new_ones(hub: Hub) -> None:
    old = hub.open("old")
    live = Recorder(old)
    await old.publish(drafts(*"abcdef"))
    hub.settings.replace(in_force(max_history_events=2).config)
    await hub.reconfigure(None)
    new = hub.open("new")
    await new.publish(drafts(*"abcdef"))
    await old.publish(drafts("g"))

    assert [["f", "g"], ["e", "f"]] == [retained(old), retained(new)]
    assert [*"abcdefg"] == live.data
    assert not live.closed


async def test_other_settings_reach_thousands_of_sessions_in_steps(hub: Hub) -> None:
    for number in range(2 * SLICE + 1):
        hub.open(f"s{number}")
    hub.settings.replace(in_force(max_history_events=7).config)
    with trio.testing.assert_checkpoints():
        await hub.reconfigure(None)

    assert {7} == {session.log._max_events for session in hub.sessions.values()}


async def test_the_breaker_comes_and_goes_with_its_thresholds(hub: Hub) -> None:
    await hub.reconfigure(Thresholds(warning=2, critical=5, recover=1))

    assert State.CLOSED is hub.pressure.state

    await hub.reconfigure(None)

    assert hub.pressure.state is None


# --- grants ----------------------------------------------------------------------------------


async def test_the_record_of_a_streams_end_has_the_subject_of_its_token(hub: Hub) -> None:
    stream = Recorder(hub.open("s"), grant=Grant("alice"))
    with capture_logs() as records:
        stream.close(EndReason.CLIENT_GONE)

    assert [("stream ended", "alice")] == [(r["event"], r["subject"]) for r in records]


async def test_streams_whose_grants_have_expired_are_cut_and_no_others(hub: Hub) -> None:
    session = hub.open("s")
    expired, later, never = [Recorder(session) for _ in range(3)]
    expired.expires_at, later.expires_at = hub.clock.now(), hub.clock.now() + 60
    await hub.subscribers.end_expired()

    assert expired.last_words == ("disconnect", EndReason.TOKEN_EXPIRED, None)
    assert [later, never] == list(hub.subscribers.by_id.values())


async def test_thousands_of_expired_streams_let_others_run_meanwhile(hub: Hub) -> None:
    session = hub.open("s")
    for _ in range(3 * SLICE):
        Recorder(session).expires_at = hub.clock.now()
    left: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.subscribers.end_expired)
        while hub.subscribers.by_id:
            await trio.lowlevel.checkpoint()
            left.append(len(hub.subscribers))

    assert any(0 < count < 3 * SLICE for count in left)


async def test_to_revoke_a_subject_cuts_its_streams_and_waits_alone(hub: Hub) -> None:
    session = hub.open("s")
    mine, also_mine, other, nobodys = [
        Recorder(session, grant=Grant(subject)) for subject in ("me", "me", "other", None)
    ]
    waits = hub.interrupts.until_expired
    with waits(Grant("me")) as my_wait, waits(Grant("other")) as a_wait:
        assert await hub.revoke("me") == 2
        assert my_wait.cancel_called
        assert not a_wait.cancel_called

    assert [mine.last_words, also_mine.last_words] == [("disconnect", EndReason.REVOKED, None)] * 2
    assert [other, nobodys] == list(hub.subscribers.by_id.values())
    assert await hub.revoke("me") == 0


async def test_those_who_were_revoked_elsewhere_are_cut_here_unless_that_is_known(hub: Hub) -> None:
    session = hub.open("s")
    mine, yours = [Recorder(session, grant=Grant(subject)) for subject in ("me", "you")]
    hub.take_revoked("me", 1000.0)
    hub.take_revoked("you", 1001.0)
    hub.take_revoked("nobody here", 1002.0)
    with hub.interrupts.until_expired(Grant("me")) as wait:
        await trio.testing.wait_all_tasks_blocked()
        assert wait.cancel_called
    newer = Recorder(session, grant=Grant("me"))
    hub.take_revoked("me", 1000.0)
    await trio.testing.wait_all_tasks_blocked()

    cut = "disconnect", EndReason.REVOKED, None
    assert [mine.last_words, yours.last_words] == [cut, cut]
    assert [newer] == list(hub.subscribers.by_id.values())
    assert [*hub.revocations] == [("me", 1000.0), ("you", 1001.0), ("nobody here", 1002.0)]
