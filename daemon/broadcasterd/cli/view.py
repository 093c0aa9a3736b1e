"""Figures in a terminal of any size: what `top` shows, and `stats` prints.

It has rich, so it is imported when one of these runs. Nothing is told by colour alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from broadcasterd.cli.words import duration, number, size
from broadcasterd.client import Health, SessionFigures, Stats
from broadcasterd.observe.printable import printable

WIDE = 80
"""Columns in which rates and latencies have room beside each other."""

WINDOWS = ("10s", "1m", "10m")
GAP = 3
SNAPSHOT_SESSIONS = 10
DIGITS = "99.9k"
ROUTES, ROUTE = 4, 20
"""So many routes are shown, where a name has so many columns at least."""

LABEL = len("failures ")

CALM, WATCH, ALARM = "green", "yellow", "bold red"
_STYLES = {
    **dict.fromkeys(("healthy", "closed"), CALM),
    **dict.fromkeys(("degraded", "warning", "half_open", "off"), WATCH),
    **dict.fromkeys(("unhealthy", "open"), ALARM),
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there are no new figures, and since when (Unix time)."""

    why: str
    since: float


@dataclass(frozen=True, slots=True)
class Busy:
    """A session, and how many events a second it has; ``None`` where it was not seen before."""

    figures: SessionFigures
    events_per_s: float | None


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown of a moment.

    Attributes:
        url: of the daemon.
        stats: its figures, and ``health`` with the alerts; ``None`` before the first answer.
        asked_at: the Unix time of the figures.
        sessions: the busiest first; ``None`` before they are known.
        trouble: is there as long as the daemon does not answer.
        keys: what to press, if anything.
        height: the lines that there are; ``None`` where it does not matter.

    """

    url: str
    stats: Stats | None = None
    health: Health | None = None
    asked_at: float = 0.0
    sessions: Sequence[Busy] | None = None
    trouble: Trouble | None = None
    keys: str = ""
    height: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it. The sessions have what room is left."""
        height = self.height
        # What is there at any moment has a line each; a file, or who reads once, has it all.
        free = options.update(no_wrap=height is not None, overflow="ellipsis")
        above = console.render_lines(Group(*self._figures(console, options)), free, pad=False)
        for line in above:
            yield from line
            yield Segment.line()
        rows = SNAPSHOT_SESSIONS if height is None else max(height - len(above) - 2, 0)
        if self.sessions and rows:
            yield Text()
            yield _sessions(self.sessions[:rows], options.max_width)

    def _figures(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield self._head()
        if self.trouble is not None:
            yield self._trouble(self.trouble)
        if self.stats is None:
            return
        if self.health is not None:
            yield _alerts(self.health.alerts)
        symbols = "#-|" if options.ascii_only else "█·│"
        yield from _memory(self.stats, options.max_width, symbols)
        yield _open(self.stats)
        yield Text()
        rates = _rates(self.stats)
        if options.max_width >= WIDE:
            room = options.max_width - console.measure(rates).maximum - GAP
            beside = Table.grid(padding=(0, GAP, 0, 0))
            beside.add_row(rates, _latencies(self.stats, room))
            yield beside
        else:
            yield rates
            yield _latencies(self.stats, options.max_width)
        counters = self.stats.counters
        yield _counts("ended", counters.streams_ended)
        yield _counts("refused", counters.refused)
        failures = {f"failed: {where}": count for where, count in counters.failures.items()}
        lost = {f"records {how}": count for how, count in counters.log_records.items()}
        if any((failures | lost).values()):
            yield _counts("failures", failures | lost, ALARM)

    def _head(self) -> RenderableType:
        pieces: list[Piece] = [("broadcasterd", "bold")]
        if (stats := self.stats) is not None:
            pieces += [f" {printable(stats.version)} is ", _styled(stats.status)]
            pieces += [f", up {duration(stats.uptime_s)}"]
        what = Text.assemble(*pieces, (f"  {printable(self.url)}", "dim"))
        if not self.keys:
            return what
        head = Table.grid(expand=True, padding=(0, 1, 0, 0))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(no_wrap=True, justify="right")
        head.add_row(what, Text(self.keys, style="dim"))
        return head

    def _trouble(self, trouble: Trouble) -> Text:
        lasts = duration(time.time() - trouble.since)
        of = "" if self.stats is None else f"; the figures are of {_clock(self.asked_at)}"
        return Text.assemble(
            (f"DISCONNECTED since {_clock(trouble.since)} ({lasts})", ALARM),
            f": {printable(trouble.why)}{of}",
            no_wrap=False,
        )


def busiest(
    now: Sequence[SessionFigures], before: Sequence[SessionFigures] = (), seconds: float = inf
) -> list[Busy]:
    """Return sessions by events a second since an earlier listing, then by their streams."""
    known = {each.session: each for each in before}
    found = [Busy(each, _rate(each, known.get(each.session), seconds)) for each in now]
    found.sort(key=lambda each: each.figures.session)
    found.sort(key=lambda each: (each.events_per_s or 0, each.figures.subscribers), reverse=True)
    return found


def _rate(now: SessionFigures, before: SessionFigures | None, seconds: float) -> float | None:
    """Tell the rate by the numbers in the last ids, where both are of one incarnation."""
    ids = [(each.last_id or "").rpartition("-") for each in (before, now) if each is not None]
    numbers = [int(number) for _, _, number in ids if number.isdecimal()]
    if len(numbers) < 2 or ids[0][0] != ids[1][0]:  # noqa: PLR2004 (then and now)
        return None
    return (numbers[1] - numbers[0]) / seconds


def sessions_table(sessions: Sequence[SessionFigures]) -> Table:
    """Return all that is known of sessions, a row for each."""
    table = _table("SESSION", "SUBSCRIBERS", "EVENTS", "BYTES", "AGE", "IDLE")
    table.add_column("LAST ID", no_wrap=True)
    for each in sessions:
        table.add_row(
            printable(each.session),
            str(each.subscribers),
            str(each.retained_events),
            size(each.retained_bytes),
            duration(each.age_s),
            duration(each.idle_s),
            printable(each.last_id or "-"),
        )
    return table


Piece = str | tuple[str, str]
"""A text, with a style or without."""


def _labelled(label: str, *pieces: Piece, no_wrap: bool | None = None) -> Text:
    return Text.assemble((f"{label:<{LABEL}}", "dim"), *pieces, no_wrap=no_wrap)


def _styled(word: str) -> tuple[str, str]:
    return printable(word), _STYLES.get(word, WATCH)


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%H:%M:%S")


def _local_time(iso: str) -> str:
    try:
        return _clock(datetime.fromisoformat(iso).timestamp())
    except ValueError:
        return printable(iso)


def _alerts(firing: Sequence[str]) -> Text:
    told = (f"FIRING: {', '.join(map(printable, firing))}", ALARM) if firing else "none firing"
    return _labelled("alerts", told, no_wrap=False)


def _open(stats: Stats) -> Text:
    counts = {
        "sessions": stats.sessions,
        "streams": stats.streams,
        "connections": stats.connections,
    }
    return _labelled("open", "  ".join(f"{number(n)} {name}" for name, n in counts.items()))


def _counts(label: str, counts: Mapping[str, int], style: str = "") -> Text:
    """Say which counts there are, the largest first."""
    some = sorted(((n, name) for name, n in counts.items() if n), key=lambda one: (-one[0], one[1]))
    told = "  ".join(f"{printable(name)} {number(n)}" for n, name in some)
    return _labelled(label, (told or "none", style))


def _memory(stats: Stats, width: int, symbols: str) -> Iterator[Text]:
    """Draw memory up to the critical threshold, with the warning one, and tell the breaker."""
    memory = stats.performance.memory
    used, warning, critical = memory.used_mb, memory.warning_mb, memory.critical_mb
    figures = f" {number(used)} of {number(critical)} MB"
    bar = _bar(used, warning, critical, max(min(width - LABEL - len(figures), 60), 5), symbols)
    style = CALM if used < warning else WATCH if used < critical else ALARM
    yield _labelled("memory", (bar, style), figures)
    history = stats.performance.breaker.history
    parts = (
        f" since {_local_time(history[-1].time)}" if history else "",
        f"  warning {number(warning)} MB",
        f"  {memory.trend.mb_per_minute:+.1f} MB/min",
        f"  clients {number(memory.clients_mb)} MB",
    )
    yield _labelled("breaker", _styled(memory.breaker), *parts)


def _bar(used: float, warning: float, critical: float, columns: int, symbols: str) -> str:
    full, empty, mark = list(symbols)
    scale = columns / max(critical, 1)
    filled = min(round(used * scale), columns)
    at = min(round(warning * scale), columns - 1)
    bar = full * filled + empty * (columns - filled)
    return bar[:at] + mark + bar[at + 1 :]


def _table(first: str, *others: str, digits: int = 0) -> Table:
    """Return a table of names and figures, whose columns stay where they are as figures change."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for name in others:
        table.add_column(name, no_wrap=True, justify="right", min_width=digits)
    return table


def _rates(stats: Stats) -> Table:
    rates = stats.performance.rates
    table = _table("a second", *WINDOWS, digits=len("99.9 kB"))
    names = {
        "events": number,
        "publishes": number,
        "deliveries": number,
        "delivered_bytes": size,
        "requests": number,
        "refusals": number,
    }
    for name, shown in names.items():
        found = [rates.get(window, {}).get(f"{name}_per_s", 0.0) for window in WINDOWS]
        table.add_row(name.removeprefix("delivered_"), *map(shown, found))
    errors = [stats.performance.error_rate.get(window, 0.0) for window in WINDOWS]
    table.add_row("errors", *(f"{number(share * 100)} %" for share in errors))
    return table


def _latencies(stats: Stats, width: int) -> Table:
    found = stats.performance.latency_ms
    table = _table("milliseconds", "p50", "p95", "p99", "max", digits=len(DIGITS))
    rows = [("publish", found.publish), ("fan-out", found.fan_out), ("loop lag", found.loop_lag)]
    room = width - 4 * len(f"  {DIGITS}")
    if room >= ROUTE:
        routes = sorted(found.requests.items(), key=lambda route: -route[1].count)
        rows += [(_cut(printable(name), room), quantiles) for name, quantiles in routes[:ROUTES]]
    for name, each in rows:
        shown = (each.p50, each.p95, each.p99, each.max)
        table.add_row(name, *(map(number, shown) if each.count else "----"))
    return table


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 3]}..."


def _sessions(sessions: Sequence[Busy], width: int) -> Table:
    """Return the sessions, with as many columns as there is room for."""
    columns: list[tuple[str, Callable[[Busy], str]]] = [
        ("STREAMS", lambda each: number(each.figures.subscribers)),
        ("EVENTS/S", lambda each: "-" if each.events_per_s is None else number(each.events_per_s)),
    ]
    if width >= WIDE:
        columns += [
            ("RETAINED", lambda each: number(each.figures.retained_events)),
            ("BYTES", lambda each: size(each.figures.retained_bytes)),
            ("IDLE", lambda each: duration(each.figures.idle_s)),
        ]
    table = _table("BUSIEST", *(name for name, _ in columns))
    for each in sessions:
        table.add_row(printable(each.figures.session), *(told(each) for _, told in columns))
    return table
