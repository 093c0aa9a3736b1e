"""``/stats``: the document of made-up figures, and its schema."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from broadcasterd import __version__
from broadcasterd.api import health
from broadcasterd.api.openapi import document as describe
from broadcasterd.api.stats import Boundary, document
from broadcasterd.config import Config
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Cause
from tests.support.figures import made_up


def figures() -> Any:  # noqa: ANN401 (JSON)
    return document(made_up())


def test_the_counters_are_there_under_their_names() -> None:
    found = figures()["counters"]

    assert {
        "events": 50,
        "duplicates": 2,
        "deliveries": 500,
        "delivered_bytes": 40_000,
    }.items() <= found.items()
    assert {"json": {"200": 9, "503": 1}} == found["publishes"]
    assert set(EndReason) == set(found["streams_ended"])
    assert 4 == found["streams_ended"]["slow_consumer"]
    assert {**dict.fromkeys(Cause, 0), Cause.TOKEN: 3} == found["refused"]
    assert {**dict.fromkeys(Boundary, 0), Boundary.SESSION: 1} == found["failures"]
    assert {"dropped": 30, "left_out": 5} == found["log_records"]
    assert {"closed": 0, "warning": 1, "open": 1, "half-open": 0} == found["breaker_transitions"]
    assert {"events": 8, "sessions": 1} == found["expired"]
    assert {"delivered": 11, "lost": 12} == found["notices"]


def test_each_rule_is_there_and_how_it_stands() -> None:
    assert [
        {
            "name": "memory_critical",
            "firing": True,
            "firing_s": 12.5,
            "severity": "critical",
            "metric": "used_mb",
            "value": 512.0,
            "threshold": 500.0,
        },
        {
            "name": "error_rate",
            "firing": False,
            "firing_s": None,
            "severity": "warning",
            "metric": "error_rate",
            "value": None,
            "threshold": 0.01,
        },
    ] == figures()["alerts"]


def test_rates_are_by_the_second() -> None:
    found = figures()["performance"]

    assert {
        "events_per_s": 5.0,
        "publishes_per_s": 1.0,
        "deliveries_per_s": 50.0,
        "delivered_bytes_per_s": 4000.0,
        "requests_per_s": 4.0,
        "errors_per_s": 0.1,
        "refusals_per_s": 0.3,
        "publishes_refused_per_s": 0.2,
    } == found["rates"]["10s"]
    assert {"10s": 0.025, "1m": 0.0, "10m": 0.0} == found["error_rate"]


def test_latencies_are_in_milliseconds_and_of_the_routes_that_were_asked() -> None:
    found = figures()["performance"]["latency_ms"]

    assert {"count": 10, "p50": 0.5, "p95": 1.25, "p99": 2.0, "max": 2.5} == found["publish"]
    assert ["GET /health"] == list(found["requests"])


def test_the_breaker_has_its_history() -> None:
    found = figures()["performance"]["breaker"]

    assert {
        "state": "open",
        "history": [
            {
                "time": "2025-11-24T16:00:00.250+00:00",
                "from": "warning",
                "to": "open",
                "used_mb": 512.0,
            }
        ],
    } == found


def test_memory_and_the_loop_are_as_health_says() -> None:
    stats = made_up()
    found: Any = document(stats)
    said = health.document(stats.vitals)

    assert (said["memory"], said["loop"]) == (
        found["performance"]["memory"],
        found["performance"]["loop"],
    )
    assert (said["status"], __version__) == (found["status"], found["version"])


def test_it_has_the_members_that_the_description_names() -> None:
    found = json.loads(msgspec.json.encode(document(made_up())))
    described: Any = describe(Config())
    schema_of: Any = described["components"]["schemas"]["Stats"]
    assert set(found) == set(schema_of["required"])
    assert set(found["counters"]) == set(schema_of["properties"]["counters"]["required"])
    assert set(found["performance"]) == set(schema_of["properties"]["performance"]["required"])
