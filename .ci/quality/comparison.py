"""Two reports side by side: may the candidate take over from the baseline?

A row that cannot be measured at the candidate is a refusal: nothing is known of it, and nothing is
assumed. One that cannot be measured at the baseline is judged by its bound alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from quality.report import Report
from quality.sections import Check, Deadlocks, Health, Hooks, Memory, Outcomes
from quality.wording import PART_OF, ROWS, title, told, why_not

MIN_SUCCESS_RATE = 0.95
MAX_HEALTH_MS = 100.0
MAX_HOOKS_S = 5.0
MIN_STRESS = 5
"""The scenarios that there are; there may be more."""

WIDTHS = (10, 34, 34, 20, 32)
"""Characters, of the columns of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the comparison.

    Attributes:
        bound: what is asked of the candidate, in words; empty where nothing is.
        refused: why the candidate is refused; empty where it is not.

    """

    name: str
    baseline: str
    candidate: str
    bound: str
    refused: str

    @property
    def verdict(self) -> str:
        """The verdict, in a word or in a sentence."""
        if self.refused:
            return f"REFUSED: {self.refused}"
        return "ok" if self.bound else "not judged"


def compare(baseline: Report, candidate: Report, only: Collection[str] | None = None) -> list[Row]:
    """Judge a candidate, row by row.

    Args:
        baseline: what it is compared with.
        candidate: what may take over.
        only: the parts that are judged; without it, all are.

    """
    return [
        _row(name, baseline, candidate)
        for name in ROWS
        if only is None or PART_OF.get(name, name) in only
    ]


def table(baseline: Report, candidate: Report, rows: list[Row]) -> str:
    """Return the rows as a text, both reports side by side, and the verdict on all."""
    lines = [
        *_cells("", "baseline", "candidate", "asked for", "verdict"),
        *_cells("version", title(baseline), title(candidate), "", ""),
        *_cells("measured", baseline.date, candidate.date, "", ""),
        *_cells("selection", baseline.selection, candidate.selection, "the same tests", ""),
    ]
    for row in rows:
        lines += _cells(row.name, row.baseline, row.candidate, row.bound, row.verdict)
    refused = [row.name for row in rows if row.refused]
    return "\n".join([*lines, f"REFUSED: {', '.join(refused)}" if refused else "accepted"])


def _cells(*texts: str) -> Iterator[str]:
    """Yield the lines of a row; what is too long for its column goes on below."""
    wrapped = [
        wrap(text, width, break_on_hyphens=False) for text, width in zip(texts, WIDTHS, strict=True)
    ]
    for line in zip_longest(*wrapped, fillvalue=""):
        padded = (f"{text:<{width}}" for text, width in zip(line, WIDTHS, strict=True))
        yield " ".join(padded).rstrip()


def _row(name: str, baseline: Report, candidate: Report) -> Row:
    bound, fault = BOUNDS.get(name, ("", None))
    old, new = getattr(baseline, name), getattr(candidate, name)
    if fault is None:
        refused = ""
    elif new is None:
        refused = f"nothing is known of it: {why_not(candidate, name)}"
    elif name == "tests" and old is not None and baseline.selection != candidate.selection:
        refused = "these are other tests than the baseline's"
    else:
        refused = fault(old, new)
    return Row(name, told(baseline, name), told(candidate, name), bound, refused)


def _tests(old: Outcomes | None, new: Outcomes) -> str:
    if new.success_rate < MIN_SUCCESS_RATE:
        return f"{new.failed} of {new.passed + new.failed} failed"
    if old is not None and new.passed < old.passed:
        return f"{old.passed - new.passed} fewer passed"
    return ""


def _stress(_: object, new: Outcomes) -> str:
    if new.failed:
        return f"{new.failed} failed"
    return f"only {new.passed} passed" if new.passed < MIN_STRESS else ""


def _deadlocks(_: object, new: Deadlocks) -> str:
    return f"{new.total} hung" if new.total else ""


def _health(_: object, new: Health) -> str:
    return "it takes too long" if new.p99_ms >= MAX_HEALTH_MS else ""


def _memory(_: object, new: Memory) -> str:
    over = new.peak_mb >= new.warning_mb
    return f"it comes to the warning at {new.warning_mb:g} MB" if over else ""


def _hooks(_: object, new: Hooks) -> str:
    if new.wrong:
        return f"wrong verdicts: {', '.join(new.wrong)}"
    return "a commit takes too long" if new.seconds >= MAX_HOOKS_S else ""


def _check(_: object, new: Check) -> str:
    return "" if new.passed else "it found something"


BOUNDS: Mapping[str, tuple[str, Callable[[Any, Any], str]]] = {
    "tests": (f"{MIN_SUCCESS_RATE * 100:g} %, no fewer than before", _tests),
    "stress": (f"all, {MIN_STRESS} or more", _stress),
    "deadlocks": ("none", _deadlocks),
    "health": (f"p99 under {MAX_HEALTH_MS:g} ms", _health),
    "memory": ("under the warning", _memory),
    "hooks": (f"under {MAX_HOOKS_S:g} s, all right", _hooks),
    "lint": ("passes", _check),
    "types": ("passes", _check),
    "security": ("passes", _check),
}
"""What is asked of a candidate, in words; and what says why it is refused, of the section as the
baseline has it (or ``None``) and as the candidate has it.

Loop and coverage are shown, and decide nothing: the one depends on the machine, the other is
measured elsewhere."""
