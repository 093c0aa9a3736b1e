"""Points of the page's charts: what grew between two looks, and the last hour of it in bounds."""

from __future__ import annotations

import dataclasses
import json

import pytest

from broadcasterd.api.points import EVERY_S, FIELDS, KEPT_S, SEVERITY, LastHour, Points
from broadcasterd.api.stats import Boundary, Stats
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Cause
from broadcasterd.figures.rates import Totals
from broadcasterd.memory.breaker import State
from tests.support.figures import made_up


def later(stats: Stats, **changes: object) -> Stats:
    """Return the figures of a later look."""
    return dataclasses.replace(stats, **changes)  # type: ignore[arg-type] # its fields


def point_of(points: Points, stats: Stats, now: float) -> dict[str, float]:
    return dict(zip(FIELDS, points.take(stats, now, unix_time=1000 + now), strict=True))


def test_a_point_has_rates_and_counts_of_the_time_since_the_look_before() -> None:
    stats = made_up()
    points = Points(stats, 10.0)
    grown = later(
        stats,
        totals=Totals(150, 20, 1500, 90_000, 70, 4, 5),
        ended={**stats.ended, EndReason.SLOW_CONSUMER: 6, EndReason.CLIENT_GONE: 1},
        refused={Cause.TOKEN: 3, Cause.BREAKER: 2},
        failures={**stats.failures, Boundary.SESSION: 2},
    )
    stats.counts.committed_events += 20
    point = point_of(points, grown, 15.0)

    assert {
        "time": 1015.0,
        "used_mb": 512.0,
        "sessions": 7,
        "streams": 42,
        "connections": 44,
        "events_per_s": 20.0,
        "publishes_per_s": 2.0,
        "deliveries_per_s": 200.0,
        "delivered_bytes_per_s": 10_000.0,
        "engine_events_per_s": 4.0,
        "errors": 3,
        "failed.session": 1,
        "refused.token": 0,
        "refused.breaker": 2,
        "ended.slow_consumer": 2,
        "ended.client_gone": 1,
        "ended.draining": 0,
    }.items() <= point.items()


def test_percentiles_are_of_the_durations_since_the_look_before_alone() -> None:
    stats = made_up()
    points = Points(stats, 0.0)
    for _ in range(100):
        stats.counts.published.record(0.004)
        stats.counts.commits.record(0.016)
    first, second = point_of(points, stats, 1.0), point_of(points, stats, 2.0)

    assert pytest.approx(4.0, rel=0.07) == first["publish_p50_ms"]
    assert pytest.approx(4.0, rel=0.07) == first["publish_p99_ms"]
    assert pytest.approx(16.0, rel=0.07) == first["commit_p99_ms"]
    assert 0.0 == second["publish_p99_ms"] == second["commit_p99_ms"]


def test_a_state_of_the_breaker_that_is_over_is_in_the_point_all_the_same() -> None:
    stats = made_up()
    calm = later(stats, vitals=dataclasses.replace(stats.vitals, breaker=State.CLOSED))
    points = Points(calm, 0.0)
    points.note(State.OPEN)
    points.note(State.WARNING)
    seen = [SEVERITY[int(point_of(points, calm, now)["breaker"])] for now in (1.0, 2.0)]

    assert [State.OPEN, State.CLOSED] == seen


def test_without_a_breaker_there_is_no_state() -> None:
    stats = made_up()
    off = later(stats, vitals=dataclasses.replace(stats.vitals, breaker=None))

    assert 0 == point_of(Points(off, 0.0), off, 1.0)["breaker"]


def test_the_last_hour_is_kept_and_nothing_before_it() -> None:
    hour = LastHour()
    most = int(KEPT_S / EVERY_S)
    for number in range(most + 10):
        hour.add([number, 0.5])
    told = json.loads(hour.encode(quality=[]))

    assert most == len(hour) == len(told["points"])
    assert ([10, 0.5], [most + 9, 0.5]) == (told["points"][0], told["points"][-1])
    assert (EVERY_S, list(FIELDS), []) == (told["every_s"], told["fields"], told["quality"])


def test_an_hour_without_points_is_json_too() -> None:
    assert [] == json.loads(LastHour().encode())["points"]


def test_a_point_takes_some_two_hundred_bytes() -> None:
    stats = made_up()
    points, hour = Points(stats, 0.0), LastHour()
    empty = len(hour.encode())
    hour.add(points.take(stats, 5.0, unix_time=1_764_000_000.25))

    assert 100 < len(hour.encode()) - empty < 250
