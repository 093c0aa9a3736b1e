"""The figures of the benchmark: what each is called, what is aimed at, and the tables of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

OURS = "broadcasterd"
NONE = "-"

Measured = Mapping[str, Mapping[str, Sequence[float]]]
"""By server and figure: one value for each round."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        pattern: of the figure's whole name; a number in it is told in the label.
        label: with the unit.
        aim: of ours.
        digits: after the point.
        is_cost: whether less is better, so that a ratio to ours says something.
        is_latency: whether what another one adds to ours says something.

    """

    pattern: str
    label: str
    aim: str = ""
    digits: int = 1
    is_cost: bool = False
    is_latency: bool = False


ROWS = (
    Row("post_us", "µs CPU per POST, 16 kept connections, one session", "≤ 60", is_cost=True),
    Row("post_per_s", "POSTs/s, the same", "≥ 15,000", digits=0),
    Row("post_sessions_us", "µs CPU per POST, in turn to many sessions", "≤ 78", is_cost=True),
    Row("post_sessions_per_s", "POSTs/s, the same", digits=0),
    Row("alone_answer_ms", "ms from a POST alone to its answer, p50", "+ ≤ 2", 2, is_latency=True),
    Row("alone_delivery_ms", "ms to its subscriber, p50", "+ ≤ 2", 2, is_latency=True),
    Row("counting_us", "µs CPU of it to count a publish", "≤ 2"),
    Row("post_nobody_us", "µs CPU per POST, no subscriber", is_cost=True),
    Row("post_token_us", "µs CPU per POST with a token, no subscriber", is_cost=True),
    Row("array_event_us", "µs CPU per event, 100 in an array", is_cost=True),
    Row("array_events_per_s", "events/s, the same", digits=0),
    Row("ndjson_event_us", "µs CPU per event, lines of NDJSON", "≤ 6", is_cost=True),
    Row("ndjson_events_per_s", "events/s, the same", digits=0),
    Row("connect_us", "µs CPU per connect, POST, close", is_cost=True),
    Row("connect_per_s", "connect, POST, close: per second", "≥ 5,000", digits=0),
    Row("connect_failures", "connect, POST, close: failures", "0", digits=0),
    Row("subscribe_us", "µs CPU per subscribe", "≤ 60", is_cost=True),
    Row("subscribes_per_s", "subscribes/s", digits=0),
    Row("subscriber_kb", "KB per idle subscriber", "≤ 1.2", is_cost=True),
    Row(r"deliver_(\d+)_us", "µs CPU per delivery, {0} subscribers", is_cost=True),
    Row(r"burst_(\d+)_us", "µs CPU per delivery, {0} subscribers, POST after POST", is_cost=True),
    Row(r"burst_(\d+)_joined", "events per read, the same"),
    Row("one_each_us", "µs CPU per delivery, a POST to each of many sessions", is_cost=True),
    Row(r"deliver_(\d+)_p50_ms", "ms latency p50, {0} subscribers"),
    Row(r"deliver_(\d+)_p99_ms", "ms latency p99, {0} subscribers"),
    Row("one_each_p99_ms", "ms latency p99, a POST to each of many sessions"),
    Row("storm_s", "s until all who were cut are back", "≤ 2", digits=2),
    Row("storm_us", "µs CPU per client that comes back", is_cost=True),
    Row("storm_live_p99_ms", "ms latency p99 of live deliveries meanwhile", "< 100"),
    Row("health_p50_ms", "ms /health p50, new connections, under load"),
    Row("health_p99_ms", "ms /health p99, the same", "< 100"),
    Row("health_events_per_s", "events/s that the load came to", "20"),
    Row("stats_p50_ms", "ms /stats p50, the same"),
    Row("stats_p99_ms", "ms /stats p99, the same", "< 100"),
)


def lines(measured: Measured) -> list[tuple[Row, str, str]]:
    """Return row, figure and label of all that was measured, in the order of the table."""
    names = {name for figures in measured.values() for name in figures}
    found = []
    for row in ROWS:
        matches = [match for name in names if (match := re.fullmatch(row.pattern, name))]
        for match in sorted(matches, key=lambda match: [int(each) for each in match.groups()]):
            numbers = [f"{int(each):,}" for each in match.groups()]
            found.append((row, match[0], row.label.format(*numbers)))
    return found


def medians(measured: Measured, labels: Mapping[str, str]) -> str:
    """Lay out the medians, one column for each server."""
    table = [["", *(labels[kind] for kind in measured), "aim"]]
    for row, name, label in lines(measured):
        cells = [
            f"{median(figures[name]):,.{row.digits}f}" if figures.get(name) else NONE
            for figures in measured.values()
        ]
        table.append([label, *cells, row.aim])
    return aligned(table)


def ratios(measured: Measured, labels: Mapping[str, str]) -> str:
    """Lay out what ours costs as a multiple of each of the others; empty where there is no other.

    The ratio is the median of the rounds' own: what disturbed a round disturbed both.
    """
    ours = measured.get(OURS, {})
    others = {kind: figures for kind, figures in measured.items() if kind != OURS}
    if not ours or not others:
        return ""
    table = [["ours : theirs", *(labels[kind] for kind in others)]]
    for row, name, label in lines(measured):
        if not row.is_cost or name not in ours:
            continue
        cells = []
        for figures in others.values():
            pairs = zip(ours[name], figures.get(name, ()), strict=False)
            each = [mine / theirs for mine, theirs in pairs if theirs > 0]
            cells.append(f"{median(each):.2f}" if each else NONE)
        table.append([label, *cells])
    return aligned(table)


def added(measured: Measured, labels: Mapping[str, str]) -> str:
    """Lay out what each of the others adds to our latency; empty where there is no other.

    The difference is the median of the rounds' own.
    """
    ours = measured.get(OURS, {})
    others = {kind: figures for kind, figures in measured.items() if kind != OURS}
    rows = [line for line in lines(measured) if line[0].is_latency and line[1] in ours]
    if not rows or not others:
        return ""
    table = [["theirs - ours", *(labels[kind] for kind in others)]]
    for row, name, label in rows:
        cells = []
        for figures in others.values():
            pairs = zip(ours[name], figures.get(name, ()), strict=False)
            each = [theirs - mine for mine, theirs in pairs]
            cells.append(f"{median(each):+.{row.digits}f}" if each else NONE)
        table.append([label, *cells])
    return aligned(table)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table that is easy to read as it is; the first line is the heading."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines)
