"""``/health``: the verdict for each combination of figures, and the contract's shape."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from broadcasterd import __version__
from broadcasterd.api.health import Vitals, document, status
from broadcasterd.engine.port import Health
from broadcasterd.memory.breaker import MIB, State, Thresholds

T = Thresholds(warning=200 * MIB, critical=500 * MIB, recover=180 * MIB)

FIGURES = Vitals(
    rss_bytes=100 * MIB,
    used_bytes=120 * MIB,
    excused_bytes=0,
    accounted_bytes=12_345_678,
    client_bytes=1_234_567,
    cgroup_limit_bytes=None,
    stalled_percent=None,
    thresholds=T,
    breaker=State.CLOSED,
    trend=[99.949, 100.0, 120.0],
    trend_per_minute=60.12345,
    loop_lag=0.00123,
    max_loop_lag=0.45678,
    long_steps=3,
    sessions=7,
    subscribers=42,
    uptime=3600.06,
    draining=False,
    alerts=["memory_warning"],
    engine=Health("sqlite"),
)


def vitals(**changes: Any) -> Vitals:  # noqa: ANN401 (any field of the figures)
    return replace(FIGURES, **changes)


# --- the verdict -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("breaker", "draining", "expected"),
    [
        (State.CLOSED, False, "healthy"),
        (State.CLOSED, True, "degraded"),
        (State.WARNING, False, "degraded"),
        (State.WARNING, True, "degraded"),
        (State.OPEN, False, "unhealthy"),
        (State.OPEN, True, "unhealthy"),
        (State.HALF_OPEN, False, "degraded"),
        (State.HALF_OPEN, True, "degraded"),
    ],
)
@pytest.mark.parametrize("used_mb", [0, 200, 500])
def test_with_a_breaker_its_state_is_the_verdict(
    breaker: State, *, draining: bool, expected: str, used_mb: int
) -> None:
    assert expected == status(vitals(breaker=breaker, draining=draining, used_bytes=used_mb * MIB))


@pytest.mark.parametrize(
    ("used", "draining", "expected"),
    [
        (0, False, "healthy"),
        (T.warning - 1, False, "healthy"),
        (T.warning - 1, True, "degraded"),
        (T.warning, False, "degraded"),
        (T.critical - 1, True, "degraded"),
        (T.critical, False, "unhealthy"),
        (T.critical, True, "unhealthy"),
    ],
)
def test_without_one_the_thresholds_are(used: int, *, draining: bool, expected: str) -> None:
    assert expected == status(vitals(breaker=None, draining=draining, used_bytes=used))


def test_an_engine_that_is_down_degrades() -> None:
    down = vitals(engine=Health("sqlite", why="database or disk is full"))

    assert "degraded" == status(down)
    assert document(down)["engine"] == {
        "kind": "sqlite",
        "state": "down",
        "why": "database or disk is full",
    }


# --- the document ----------------------------------------------------------------------------


def test_the_document_has_the_shape_that_operators_rely_on() -> None:
    assert {
        "status": "healthy",
        "memory": {
            "rss_mb": 100.0,
            "used_mb": 120.0,
            "accounted_mb": 11.774,
            "clients_mb": 1.177,
            "warning_mb": 200.0,
            "critical_mb": 500.0,
            "breaker": "closed",
            "trend": {"used_mb": [99.9, 100.0, 120.0], "mb_per_minute": 60.12},
        },
        "engine": {"kind": "sqlite", "state": "up"},
        "loop": {"lag_ms": 1.2, "max_lag_ms": 456.8, "long_steps": 3},
        "sessions": 7,
        "subscribers": 42,
        "alerts": ["memory_warning"],
        "uptime_s": 3600.1,
        "version": __version__,
    } == document(FIGURES)


def test_in_a_cgroup_its_figures_are_added() -> None:
    memory = document(vitals(cgroup_limit_bytes=256 * MIB, stalled_percent=1.25))["memory"]

    assert isinstance(memory, dict)
    assert (256.0, 1.25) == (memory["cgroup_limit_mb"], memory["stalled_percent"])


def test_a_stall_of_zero_is_a_figure() -> None:
    memory = document(vitals(stalled_percent=0.0))["memory"]

    assert isinstance(memory, dict)
    assert 0.0 == memory["stalled_percent"]


@pytest.mark.parametrize(
    ("breaker", "expected"),
    [
        (State.CLOSED, "closed"),
        (State.WARNING, "warning"),
        (State.OPEN, "open"),
        (State.HALF_OPEN, "half-open"),
        (None, "off"),
    ],
)
def test_the_breaker_is_named(breaker: State | None, expected: str) -> None:
    memory = document(vitals(breaker=breaker))["memory"]

    assert isinstance(memory, dict)
    assert expected == memory["breaker"]


@pytest.mark.parametrize("breaker", [*State, None])
def test_the_document_says_the_verdict(breaker: State | None) -> None:
    figures = vitals(breaker=breaker)

    assert status(figures) == document(figures)["status"]


def test_a_daemon_that_just_started_has_a_document() -> None:
    just_started = vitals(trend=[], trend_per_minute=0.0, loop_lag=0.0, max_loop_lag=0.0, uptime=0)
    memory = document(just_started)["memory"]

    assert isinstance(memory, dict)
    assert {"used_mb": [], "mb_per_minute": 0.0} == memory["trend"]


def test_the_document_is_plain_json() -> None:
    found = document(FIGURES)

    assert found == json.loads(msgspec.json.encode(found))


def test_memory_that_nothing_can_free_is_told() -> None:
    assert "unfreeable_mb" not in document(FIGURES)["memory"]  # type: ignore[operator]
    memory = document(vitals(excused_bytes=30 * MIB))["memory"]
    assert memory["unfreeable_mb"] == 30.0  # type: ignore[index]
