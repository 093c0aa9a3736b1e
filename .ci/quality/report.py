"""The report of a tree: what was measured, and of the rest why it was not.

docs/quality.md explains each field.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from quality.sections import (
    Check,
    Coverage,
    Deadlocks,
    Health,
    Hooks,
    Loop,
    Memory,
    Outcomes,
)

SCHEMA = 1
"""Goes up when a field gets another meaning, or is gone."""

HISTORY_FIELDS = ("date", "commit", "version", "selection", "success_rate", "hooks_seconds")
"""The fields of a report that its line in the history has, too. The daemon's live page reads dates,
success rates and seconds: ``host/quality.py``."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one tree.

    Attributes:
        date: when it was begun, ISO 8601 in UTC.
        commit: of the tree; ``None`` where it is in no repository.
        changed: whether the tree has changes that are not committed.
        selection: which tests were asked for: ``all``, ``fast`` or a path.
        unmeasured: by part, why it has no figures.
        success_rate, hooks_seconds: as ``tests`` and ``hooks`` have them: for those who read only
            this far.

    """

    schema: int = SCHEMA
    date: str
    commit: str | None
    changed: bool
    version: str
    python: str
    cores: int
    selection: str
    tests: Outcomes | None = None
    stress: Outcomes | None = None
    coverage: Coverage | None = None
    lint: Check | None = None
    types: Check | None = None
    security: Check | None = None
    hooks: Hooks | None = None
    health: Health | None = None
    memory: Memory | None = None
    loop: Loop | None = None
    deadlocks: Deadlocks | None = None
    success_rate: float | None = None
    hooks_seconds: float | None = None
    unmeasured: dict[str, str]


def now() -> str:
    """Return the time, as reports have it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def write(report: Report, path: Path) -> None:
    """Write a report, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    new.replace(path)


def read(path: Path) -> Report:
    """Read a report.

    Raises:
        OSError: it is not there.
        msgspec.DecodeError: it is none, or one of another schema.

    """
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    if report.schema != SCHEMA:
        raise msgspec.ValidationError(f"{path} has schema {report.schema}, not {SCHEMA}")
    return report


def append(report: Report, history: Path) -> None:
    """Add a line about a report to the history of all."""
    line: dict[str, object] = {name: getattr(report, name) for name in HISTORY_FIELDS}
    line |= {
        "passed": report.tests and report.tests.passed,
        "failed": report.tests and report.tests.failed,
        "seconds": report.tests and report.tests.seconds,
        "coverage_percent": report.coverage and report.coverage.percent,
        "hooks_score": report.hooks and report.hooks.score,
        "health_p99_ms": report.health and report.health.p99_ms,
        "memory_peak_mb": report.memory and report.memory.peak_mb,
        "deadlocks": report.deadlocks and report.deadlocks.total,
    }
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("ab") as file:  # one write: lines of two runs at a time stay whole
        file.write(msgspec.json.encode(line) + b"\n")
