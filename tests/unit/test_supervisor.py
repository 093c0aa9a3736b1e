"""The supervisor: what happens because time passes, in hours that take no time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from broadcasterd.access.grants import Grant
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.supervisor import TICK_S, Supervisor
from broadcasterd.core.reasons import EndReason
from tests.support.broadcast import (
    Recorder,
    draft,
    drafts,
    in_force,
    make_hub,
    retained,
    start_hub,
)

SLACK_S = 2 * TICK_S
"""How late the supervisor may be: it looks once a tick."""


async def supervised(nursery: trio.Nursery, **limits: object) -> Hub:
    """Start a hub and its supervisor."""
    hub = await start_hub(nursery, **limits)
    nursery.start_soon(Supervisor(hub).run)
    return hub


async def test_a_silent_stream_gets_a_heartbeat_each_interval(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, heartbeat_interval=15)
    live = Recorder(hub.open("s"))
    await trio.sleep(15 * 100)

    assert 100 * 15 / (15 + SLACK_S) - 1 <= live.beats <= 100


async def test_a_stream_that_is_not_silent_gets_none(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, heartbeat_interval=15)
    live = Recorder(hub.open("s"))
    for number in range(100):
        await trio.sleep(14)
        await hub.open("s").publish(drafts(str(number)))

    assert live.beats == 0
    assert len(live.data) == 100


@pytest.mark.parametrize("interval", [0.1, 1, 60])
async def test_heartbeats_are_as_frequent_as_asked(
    interval: float, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, heartbeat_interval=interval)
    live = Recorder(hub.open("s"))
    await trio.sleep(interval * 20)

    assert 12 <= live.beats <= 20


async def test_events_are_gone_after_their_ttl(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, event_ttl=600, cleanup_interval=60)
    session = hub.open("s")
    await session.publish(drafts("a"))
    await session.publish([draft("short-lived", ttl=100)])
    await trio.sleep(100 + 60 + SLACK_S)

    assert retained(session) == ["a"]

    await trio.sleep(500 - 60 - 2 * SLACK_S)

    assert retained(session) == ["a"]

    await trio.sleep(60 + 2 * SLACK_S)

    assert retained(session) == []


async def test_a_session_is_gone_after_its_ttl_without_anyone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, session_ttl=600, cleanup_interval=60)
    await hub.open("s").publish(drafts("a"))
    await trio.sleep(600 - 1)

    assert "s" in hub.sessions

    await trio.sleep(60 + SLACK_S)

    assert "s" not in hub.sessions


async def test_a_session_with_a_subscriber_never_expires(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, session_ttl=600, cleanup_interval=60)
    live = Recorder(hub.open("s"))
    await trio.sleep(3 * 600)

    assert not live.closed
    assert "s" in hub.sessions


async def test_the_name_of_an_ended_session_is_forgotten_after_the_ttl(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, session_ttl=600, cleanup_interval=60)
    hub.open("s")
    hub.end("s")
    await trio.sleep(600 - 1)

    assert hub.was_ended("s")

    await trio.sleep(60 + SLACK_S)

    assert not hub.was_ended("s")


async def test_idle_sessions_that_come_and_go_leave_nothing_behind(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, session_ttl=300, cleanup_interval=50)
    before = hub.accounted_bytes
    tasks = trio.lowlevel.current_statistics().tasks_living
    for number in range(40):
        await hub.open(f"s{number}").publish(drafts("x" * 1000))
        await trio.sleep(25)
    await trio.sleep(2 * 300)

    assert hub.sessions == {}
    assert hub.accounted_bytes == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks


# --- reloads, and evidence -------------------------------------------------------------------


async def test_it_follows_other_settings(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery, heartbeat_interval=60, event_ttl=600, cleanup_interval=600)
    live = Recorder(hub.open("s"))
    await hub.open("s").publish(drafts("a"))
    await trio.sleep(10)
    hub.settings.replace(in_force(heartbeat_interval=1, event_ttl=20, cleanup_interval=5).config)
    await hub.reconfigure(thresholds=None)
    await trio.sleep(20)

    assert live.beats >= 8
    assert [] == retained(hub.open("s"))


async def test_each_step_that_it_finishes_is_counted(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    supervisor = Supervisor(await start_hub(nursery))
    nursery.start_soon(supervisor.run)
    await trio.sleep(60 + TICK_S / 2)

    assert 60 <= supervisor.steps <= 61


async def test_a_step_that_hangs_is_not(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = await start_hub(nursery)
    supervisor = Supervisor(hub)
    nursery.start_soon(supervisor.run)
    await trio.sleep(10 + TICK_S / 2)
    monkeypatch.setattr(hub, "heartbeat", trio.sleep_forever)
    steps = supervisor.steps
    await trio.sleep(60)

    assert steps == supervisor.steps


async def test_a_wall_clock_that_is_set_ends_what_has_expired_by_it_and_nothing_else(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    jump = 0.0
    clock = Clock(wall=lambda: 1_764_000_000 + trio.current_time() + jump)
    hub = await start_hub(nursery, make_hub(in_force(session_ttl=720, event_ttl=60), clock=clock))
    nursery.start_soon(Supervisor(hub).run)
    waiting: dict[int, trio.CancelScope] = {}

    async def wait(seconds: int) -> None:
        grant = Grant(expires_at=clock.unix_now() + seconds)
        with hub.interrupts.until_expired(grant) as waiting[seconds]:
            await trio.sleep_forever()

    await hub.open("idle").publish(drafts("kept"))
    short, long, ever = [Recorder(hub.open("s")) for _ in range(3)]
    for stream, seconds in ((short, 60), (long, 720)):
        stream.expires_at = clock.now() + seconds
        nursery.start_soon(wait, seconds)
    await trio.sleep(10)
    jump = 360.0
    await trio.sleep(SLACK_S)

    assert [True, False, False] == [stream.closed for stream in (short, long, ever)]
    assert [True, False] == [waiting[seconds].cancelled_caught for seconds in (60, 720)]
    assert ["kept"] == retained(hub.find("idle"))

    jump = -360.0  # what is good until 720 by the clock is good for 1080 now
    await trio.sleep(720)
    assert not long.closed

    await trio.sleep(360 + SLACK_S)
    assert [True, False] == [stream.closed for stream in (long, ever)]


async def test_a_stream_ends_within_a_tick_of_its_grant(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    hub = await supervised(nursery)
    live = Recorder(hub.open("s"))
    live.expires_at = hub.clock.now() + 600
    await trio.sleep(600 - 1)

    assert not live.closed

    await trio.sleep(1 + SLACK_S)

    assert live.last_words == ("disconnect", EndReason.TOKEN_EXPIRED, None)
