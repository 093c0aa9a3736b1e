"""Figures in terminals of several sizes, without a terminal."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from broadcasterd.cli.view import Busy, Trouble, View, busiest
from broadcasterd.client import Health, SessionFigures, Stats
from broadcasterd.client.figures import (
    Breaker,
    Change,
    Counters,
    Latencies,
    Memory,
    Performance,
    Quantiles,
)

MEMORY = Memory(used_mb=250, warning_mb=200, critical_mb=500, breaker="warning")
STATS = Stats(
    status="degraded",
    version="1.2.3",
    uptime_s=90_000,
    sessions=12_345,
    streams=7,
    connections=8,
    counters=Counters(
        streams_ended={"client_gone": 5, "draining": 0, "memory": 9},
        refused={"token": 0},
        failures={"session": 1, "stream": 0},
        log_records={"dropped": 2},
    ),
    performance=Performance(
        rates={"10s": {"events_per_s": 12.5, "delivered_bytes_per_s": 2_000_000}},
        error_rate={"10s": 0.25},
        latency_ms=Latencies(
            publish=Quantiles(count=1, p50=0.5, p99=123.4),
            requests={
                "GET /health": Quantiles(count=1, p50=1),
                "GET /v1/sessions/{session}/events": Quantiles(count=9, p50=2),
            },
        ),
        memory=MEMORY,
        breaker=Breaker([Change(time="2026-01-02T03:04:05.678+00:00", to="warning")]),
    ),
)
NOW = 1_767_323_045.0
FULL = View(
    "http://host",
    stats=STATS,
    health=Health("degraded", ["memory_warning", "odd\x1b[31m"]),
    asked_at=NOW,
    sessions=[Busy(SessionFigures(f"s-{n}", subscribers=n), 0.5) for n in range(30)],
)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def drawn(view: View, columns: int = 80, height: int | None = None, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=columns, markup=False, highlight=False, emoji=False)
    console.print(replace(view, height=height))
    file.flush()
    return raw.getvalue().decode(encoding)


def lines(view: View, columns: int = 80, height: int | None = None) -> list[str]:
    return [line.rstrip() for line in drawn(view, columns, height).splitlines()]


def test_it_is_all_there() -> None:
    assert [
        "broadcasterd 1.2.3 is degraded, up 1 d 1 h  http://host",
        "alerts   FIRING: memory_warning, odd\\x1b[31m",
        "memory   ███████████████████████│████····························· 250 of 500 MB",
        "breaker  warning since 03:04:05  warning 200 MB  +0.0 MB/min  clients 0 MB",
        "open     12.3k sessions  7 streams  8 connections",
        "",
        "a second        10s       1m      10m   milliseconds    p50    p95    p99    max",
        "events         12.5        0        0   publish        0.50      0    123      0",
        "publishes         0        0        0   fan-out           -      -      -      -",
        "deliveries        0        0        0   loop lag          -      -      -      -",
        "bytes          2 MB      0 B      0 B",
        "requests          0        0        0",
        "refusals          0        0        0",
        "errors         25 %      0 %      0 %",
        "ended    memory 9  client_gone 5",
        "refused  none",
        "failures records dropped 2  failed: session 1",
        "",
        "BUSIEST  STREAMS  EVENTS/S  RETAINED  BYTES  IDLE",
        "s-0            0      0.50         0    0 B   0 s",
    ] == lines(FULL)[:20]


def test_where_there_is_room_routes_are_shown_by_how_often_they_were_asked() -> None:
    routes = [line for line in lines(FULL, 120) if "GET " in line]

    assert ["GET /v1/sessions/{session}/events", "GET /health"] == [
        route[route.index("GET") :].split("  ")[0] for route in routes
    ]


@pytest.mark.parametrize("columns", [20, 40, 60, 79, 80, 81, 200])
def test_no_line_is_longer_than_the_terminal(columns: int) -> None:
    assert max(map(len, lines(FULL, columns))) <= columns


@pytest.mark.parametrize(
    ("columns", "height", "above"), [(80, 24, 17), (80, 20, 17), (80, 60, 17), (40, 30, 22)]
)
def test_the_sessions_have_what_room_is_left(columns: int, height: int, above: int) -> None:
    shown = lines(FULL, columns, height)

    assert min(height, above + 2 + 30) == len(shown)


def test_in_a_narrow_terminal_rates_and_latencies_are_below_each_other() -> None:
    shown = lines(FULL, 40)

    assert "a second        10s       1m      10m" in shown
    assert "milliseconds    p50    p95    p99    max" in shown
    assert "BUSIEST  STREAMS  EVENTS/S" in shown


def test_a_terminal_without_blocks_has_a_bar_all_the_same() -> None:
    shown = drawn(FULL, encoding="latin-1")

    assert "memory   #######################|####------" in shown


def test_it_says_since_when_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 65)
    view = View("http://host", STATS, asked_at=NOW - 1, trouble=Trouble("refused\x07", NOW))

    assert (
        "DISCONNECTED since 03:04:05 (1 min 5 s): refused\\x07; the figures are of 03:04:04"
    ) == " ".join(lines(view)[1:3])


def test_before_the_first_answer_there_are_no_figures() -> None:
    assert ["broadcasterd  http://host"] == lines(View("http://host"))


def test_names_are_shown_as_they_are() -> None:
    view = View("http://[::1]:8000", STATS, sessions=[Busy(SessionFigures("[b]:smile:"), None)])

    assert "[b]:smile:" in drawn(view)
    assert "http://[::1]:8000" in drawn(view)


# --- which are the busiest -------------------------------------------------------------------


def session(name: str, last_id: str | None, subscribers: int = 0) -> SessionFigures:
    return SessionFigures(name, last_id=last_id, subscribers=subscribers)


def test_the_busiest_is_first_by_events_then_by_streams_then_by_name() -> None:
    before = [session("a", "x-1"), session("b", "x-1"), session("c", "x-5")]
    now = [
        session("a", "x-3"),
        session("b", "x-11"),
        session("c", "x-5", 2),
        session("e", None, 1),
        session("d", None, 1),
    ]

    found = busiest(now, before, 2.0)

    assert [("b", 5.0), ("a", 1.0), ("c", 0.0), ("d", None), ("e", None)] == [
        (each.figures.session, each.events_per_s) for each in found
    ]


def test_a_session_that_began_anew_has_no_rate_yet() -> None:
    [found] = busiest([session("a", "y-9")], [session("a", "x-1")], 1.0)

    assert found.events_per_s is None
