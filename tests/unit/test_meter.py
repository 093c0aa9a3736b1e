"""The meter: it reads what the parts count, and its rates and quantiles go with the time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from broadcasterd.access.tokens import KeyRing
from broadcasterd.api.stats import Boundary
from broadcasterd.config import SHIPPED_RULES, from_mapping
from broadcasterd.core.reasons import EndReason
from broadcasterd.daemon import Daemon
from broadcasterd.figures.counts import Cause, Format
from broadcasterd.figures.watched import Watched
from broadcasterd.memory.breaker import State
from broadcasterd.meter import KEPT_CHANGES
from tests.performance.costs import function_calls


@pytest.fixture
async def daemon() -> Daemon:
    """Return a daemon that does not run, and has no sockets."""
    config = from_mapping({"auth": {"mode": "none"}, "limits": {"max_connections": 100}})
    return Daemon(config, KeyRing((), None, None, 0.0), [])


async def test_a_daemon_that_did_nothing_has_figures(daemon: Daemon) -> None:
    stats = daemon.meter.stats()

    assert (0, 0) == stats.sent
    assert 0 == sum(stats.failures.values()) + sum(stats.refused.values())
    assert (100, 10_000, 15_000) == (stats.max_connections, stats.max_sessions, stats.max_streams)
    assert ["10s", "1m", "10m"] == list(stats.growth)


async def test_what_others_count_is_read_from_them(daemon: Daemon) -> None:
    daemon.server.failed_connections = 2
    daemon.server.failed_responses = 3
    daemon.server.connection_limits.refused.update({"max_connections": 4, "accept": 1})
    daemon.server.connection_limits.taken = 9
    daemon.hub.subscribers.ended_by_reason[EndReason.REVOKED] = 6
    daemon.hub.counts.failed_streams = 7
    daemon.hub.counts.turned_away(Cause.RATE)
    stats = daemon.meter.stats()

    assert {
        Boundary.CONNECTION: 2,
        Boundary.REQUEST: 0,
        Boundary.RESPONSE: 3,
        Boundary.SESSION: 0,
        Boundary.STREAM: 7,
    } == stats.failures
    assert {Cause.CONNECTIONS: 5, Cause.RATE: 1} == stats.refused
    assert (9, 6) == (stats.connections, stats.ended[EndReason.REVOKED])


async def test_figures_cost_the_same_however_many_sessions_there_are(
    daemon: Daemon, nursery: trio.Nursery
) -> None:
    await nursery.start(daemon.hub.run)
    calls = []
    for _ in range(3):  # the first has more to do
        with function_calls() as count:
            daemon.meter.stats()
        calls.append(count.total)
        for _ in range(100):
            daemon.hub.open(f"session-{len(daemon.hub.sessions)}")

    assert calls[1] == calls[2]


async def test_rates_are_those_of_their_windows(
    daemon: Daemon, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(daemon.meter.run)
    counts = daemon.hub.counts
    for _ in range(120):
        await trio.sleep(1)
        counts.events += 50
        counts.publishes[Format.JSON][200] = counts.publishes[Format.JSON].get(200, 0) + 10
    counts.publishes[Format.JSON][503] = 90
    growth = daemon.meter.stats().growth

    for name in ("10s", "1m", "10m"):
        totals, seconds = growth[name].totals, growth[name].seconds
        assert 50 == pytest.approx(totals.events / seconds, rel=0.1)
        assert 90 == totals.errors
        assert totals.publishes == totals.requests
    assert 90 / 190 == pytest.approx(90 / growth["10s"].totals.requests, rel=0.1)


async def test_quantiles_are_of_the_last_minute(
    daemon: Daemon, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(daemon.meter.run)
    await trio.sleep(100)
    daemon.hub.counts.published.record(2.0)
    [health] = [r for r in daemon.api.requests if r.path == "/health"]
    daemon.api.requests[health].durations.record(0.5)
    await trio.sleep(55)
    stats = daemon.meter.stats()
    [of_health] = [route for route in stats.routes if route.path == "/health"]

    assert (1, 2.0) == (stats.published.count, stats.published.longest)
    assert (1, 0.5) == (of_health.recent.count, of_health.recent.longest)

    await trio.sleep(20)

    assert 0 == daemon.meter.stats().published.count


async def test_the_breaker_has_a_history_that_does_not_grow_for_ever(daemon: Daemon) -> None:
    pressure = daemon.hub.pressure
    pressure.sample(10**12)
    stats = daemon.meter.stats()

    assert [(State.CLOSED, State.WARNING), (State.WARNING, State.OPEN)] == [
        (change.before, change.after) for change in stats.history
    ]
    assert {State.WARNING: 1, State.OPEN: 1} == stats.entered
    assert {10**12} == {change.used for change in stats.history}

    for transition in list(stats.history) * KEPT_CHANGES:
        for tell in pressure.watchers[-1:]:
            tell(transition)  # type: ignore[arg-type] # it has what is read of it

    assert KEPT_CHANGES == len(daemon.meter.stats().history)


# --- what alerts watch -----------------------------------------------------------------------


@pytest.mark.parametrize("figure", Watched)
async def test_each_figure_that_an_alert_may_watch_can_be_read(
    figure: Watched, daemon: Daemon, nursery: trio.Nursery
) -> None:
    await nursery.start(daemon.hub.run)
    value = daemon.meter.reading(figure)

    assert value is None or value >= 0
    assert (value is None) <= (figure in NONE_AT_FIRST)


NONE_AT_FIRST = {
    Watched.ERROR_RATE,
    Watched.STALLED_PERCENT,
    Watched.FAILED_TESTS_SHARE,
    Watched.HOOKS_SECONDS,
    *(figure for figure in Watched if "p99" in figure),
}


async def test_readings_are_of_the_last_minute(
    daemon: Daemon, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    nursery.start_soon(daemon.meter.run)
    await trio.sleep(200)
    counts = daemon.hub.counts
    counts.events = 600
    counts.publishes[Format.JSON] = {200: 30, 500: 6, 503: 12, 429: 12}
    counts.published.record(0.25)
    counts.fan_out.record(1.0)
    read = daemon.meter.reading

    assert 10 == read(Watched.EVENTS_PER_S)
    assert (1.0, 0.4) == (read(Watched.PUBLISHES_PER_S), read(Watched.PUBLISHES_REFUSED_PER_S))
    assert (0.3, 18 / 60) == (read(Watched.ERROR_RATE), read(Watched.ERRORS_PER_S))
    assert read(Watched.PUBLISH_P99_MS) == pytest.approx(250, rel=0.07)
    assert read(Watched.FAN_OUT_P99_MS) == pytest.approx(1000, rel=0.07)

    await trio.sleep(71)

    assert (0.0, None) == (read(Watched.EVENTS_PER_S), read(Watched.ERROR_RATE))
    assert None is read(Watched.PUBLISH_P99_MS)


async def test_readings_say_how_much_there_is_and_may_be(daemon: Daemon) -> None:
    daemon.server.connection_limits.taken = 25

    assert (25, 0.25) == (
        daemon.meter.reading(Watched.CONNECTIONS),
        daemon.meter.reading(Watched.CONNECTIONS_SHARE),
    )


async def test_the_newest_test_run_is_watched(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    history.write_text('{"date": "2026-11-25", "success_rate": 0.75, "hooks_seconds": 6.5}\n')
    config = from_mapping({"auth": {"mode": "none"}, "dashboard": {"quality_report": str(history)}})
    read = Daemon(config, KeyRing((), None, None, 0.0), []).meter.reading

    assert (0.25, 6.5) == (read(Watched.FAILED_TESTS_SHARE), read(Watched.HOOKS_SECONDS))


async def test_how_each_rule_stands_is_part_of_the_figures(
    daemon: Daemon, mock_clock: trio.testing.MockClock
) -> None:
    daemon.alerts.resume([("memory_critical", 5.0)], trio.current_time())
    found = {alert.name: alert.firing_s for alert in daemon.meter.stats().alerts}

    assert 5 == found.pop("memory_critical")
    assert {rule.name for rule in SHIPPED_RULES} == {"memory_critical", *found}
    assert {None} == set(found.values())
    assert ["memory_critical"] == list(daemon.monitor.vitals(daemon.hub).alerts)
