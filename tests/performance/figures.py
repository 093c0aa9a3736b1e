"""The figures of the benchmark, and the table that shows them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What one kind of server cost; CPU is the server's own, user and system."""

    delivery_us: float  # CPU per delivery at a steady rate; the publishes are in it
    burst_delivery_us: float  # the same for events as fast as they are answered
    burst_events_per_read: (
        float  # above 1: the server joined events, and the burst is cheaper for it
    )
    subscriber_kb: float  # RSS per idle subscriber
    subscribe_us: float  # CPU
    publish_us: float  # CPU per publish to nobody
    latency_p50_ms: float  # from just before the POST to the subscriber's read, steady rate
    latency_p99_ms: float
    # The publisher's worst delay behind its schedule: near the interval, the server didn't keep up.
    late_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """How GET /health answered, in ms, by kind of connection: see healthpoll.py."""

    subscribers: int
    opening: dict[str, dict[str, float]]  # while they subscribed
    fan_out: dict[str, dict[str, float]]  # while events went out to all of them
    delivery_us: float  # CPU, with the polls in it
    latency_p50_ms: float
    latency_p99_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison."""

    label: str
    value: Callable[[Figures], float]
    target: str = ""
    digits: int = 1
    is_cost: bool = True  # a ratio of two of them says something


ROWS = (
    Row("µs CPU per delivery, steady", lambda f: f.delivery_us, "<= 15"),
    Row("µs CPU per delivery, burst", lambda f: f.burst_delivery_us),
    Row("events per read, burst", lambda f: f.burst_events_per_read, is_cost=False),
    Row("KB RSS per idle subscriber", lambda f: f.subscriber_kb, "<= 8"),
    Row("µs CPU per subscribe", lambda f: f.subscribe_us, digits=0),
    Row("µs CPU per publish to nobody", lambda f: f.publish_us, digits=0),
    Row("ms delivery latency p50", lambda f: f.latency_p50_ms),
    Row("ms delivery latency p99", lambda f: f.latency_p99_ms),
    Row("ms behind schedule, at worst", lambda f: f.late_ms, digits=0, is_cost=False),
)


def comparison(kinds: Mapping[str, str], measured: Mapping[str, Figures]) -> str:
    """Lay out one column per kind, the ratio of plain to taken over, and the targets."""
    table = [["", *kinds.values(), "plain : taken over", "target, taken over"]]
    for row in ROWS:
        values = [row.value(measured[kind]) if kind in measured else None for kind in kinds]
        cells = ["-" if value is None else f"{value:.{row.digits}f}" for value in values]
        plain, taken_over = measured.get("plain"), measured.get("taken-over")
        ratio = "-"
        if row.is_cost and plain and taken_over and row.value(taken_over) > 0:
            ratio = f"{row.value(plain) / row.value(taken_over):.1f}"
        table.append([row.label, *cells, ratio, row.target])
    return aligned(table)


def health_table(health: Health) -> str:
    """Lay out the latencies of /health."""
    table = [["GET /health", "polls", "p50 ms", "p99 ms", "max ms", "target"]]
    for during, summaries in (("subscribing", health.opening), ("fan-out", health.fan_out)):
        for connection, summary in summaries.items():
            table.append(
                [
                    f"during {during}, connection {connection}",
                    f"{summary['polls']:.0f}",
                    *(f"{summary[key]:.1f}" for key in ("p50_ms", "p99_ms", "max_ms")),
                    "< 100",
                ]
            )
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table that is easy to read as it is; the first line is the heading."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = [f"{'-' * widths[0]}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)
