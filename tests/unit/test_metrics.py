"""``/metrics``: what a parser of each format makes of made-up figures, and promtool's opinion."""

from __future__ import annotations

import subprocess

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from broadcasterd.figures.histogram import BOUNDS
from broadcasterd.metrics import LE, exposition
from tests.support.figures import made_up
from tests.support.tools import require

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)

Labels = tuple[tuple[str, str], ...]


def samples(accept: str = "") -> dict[tuple[str, Labels], float]:
    """Return each sample's value by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(accept)
        for sample in family.samples
    }


def families(accept: str = "") -> list[Metric]:
    body = exposition(made_up(), accept).body.decode()
    parse = parse_openmetrics if body.endswith("# EOF\n") else parse_text
    return [*parse(body)]


def test_figures_are_there_under_their_names() -> None:
    found = samples()

    for name, value in {
        "broadcasterd_events_total": 50,
        "broadcasterd_deliveries_total": 500,
        "broadcasterd_delivered_bytes_total": 40_000,
        "broadcasterd_sessions": 7,
        "broadcasterd_streams_max": 15_000,
        "broadcasterd_memory_critical_bytes": 500 * 1024 * 1024,
        "broadcasterd_memory_stalled_ratio": 0.025,
        "process_cpu_seconds_total": 12.5,
        "process_start_time_seconds": 1_764_000_000,
    }.items():
        assert value == found[name, ()], name


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("publishes_total", {"format": "json", "status": "503"}, 1),
        ("streams_ended_total", {"reason": "slow_consumer"}, 4),
        ("streams_ended_total", {"reason": "revoked"}, 0),
        ("refusals_total", {"cause": "token"}, 3),
        ("refusals_total", {"cause": "breaker"}, 0),
        ("failures_total", {"boundary": "session"}, 1),
        ("breaker_state", {"state": "open"}, 1),
        ("breaker_state", {"state": "closed"}, 0),
        ("breaker_transitions_total", {"to": "open"}, 1),
        ("log_records_dropped_total", {"why": "journald"}, 10),
        ("alert_firing", {"alert": "memory_critical"}, 1),
        ("alert_firing", {"alert": "error_rate"}, 0),
        ("alert_notices_total", {"result": "lost"}, 12),
        ("requests_total", {"method": "GET", "route": "/health", "status": "200"}, 29),
    ],
)
def test_what_has_kinds_has_a_label(name: str, labels: dict[str, str], value: float) -> None:
    assert value == samples()[f"broadcasterd_{name}", tuple(sorted(labels.items()))]


def test_a_histogram_is_cumulative_and_exact_at_its_bounds() -> None:
    found = samples()
    name = "broadcasterd_publish_duration_seconds"

    assert set(LE) <= set(BOUNDS)
    assert [0, 1, 1, 2, 2, 3, 3] == [
        found[f"{name}_bucket", (("le", le),)]
        for le in ("0.00025", "0.0005", "0.001", "0.0025", "5.0", "10.0", "+Inf")
    ]
    assert 3 == found[f"{name}_count", ()]
    assert 7.0025 == pytest.approx(found[f"{name}_sum", ()])


def test_both_formats_say_the_same() -> None:
    assert samples().items() <= samples(OPENMETRICS).items()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (OF_PROMETHEUS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    answer = exposition(made_up(), accept)

    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.body.endswith(b"# EOF\n") is ("openmetrics" in content_type)
    assert "no-store" == answer.headers["Cache-Control"]


def test_a_route_that_nobody_asked_for_has_no_series() -> None:
    routes = {dict(labels).get("route") for _, labels in samples()}

    assert {None, "/health"} == routes


def test_no_two_samples_are_the_same_series() -> None:
    count = sum(len(family.samples) for family in families())

    assert count == len(samples())


def test_promtool_has_nothing_to_say() -> None:
    done = subprocess.run(
        [require("promtool"), "check", "metrics"],
        input=exposition(made_up(), "").body,
        capture_output=True,
        check=False,
    )

    assert (0, b"", b"") == (done.returncode, done.stdout, done.stderr)
