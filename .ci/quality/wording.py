"""A report as a text; what has no figures says why."""

from __future__ import annotations

from quality.report import Report

ROWS = (
    *("tests", "stress", "deadlocks", "health", "memory", "loop"),
    *("hooks", "lint", "types", "security", "coverage"),
)
"""The sections of a report, in the order in which they are told."""

PART_OF = {"health": "load", "memory": "load", "loop": "load", "deadlocks": "tests"}
"""The part that a section comes from, where it has another name."""

COMMIT_DIGITS = 8


def text(report: Report) -> str:
    """Return a report as a text: a line for each section, and for each test that failed."""
    lines = [f"quality of {title(report)}, {report.date}, tests: {report.selection}"]
    lines += [f"  {row:<10} {told(report, row)}" for row in ROWS]
    for tests in (report.tests, report.stress):
        lines += [f"  failed: {name}" for name in (tests.failures if tests else ())]
    return "\n".join(lines)


def title(report: Report) -> str:
    """Name what a report is about."""
    commit = (report.commit or "no commit")[:COMMIT_DIGITS]
    return f"{report.version} ({commit}{', changed' if report.changed else ''})"


def told(report: Report, row: str) -> str:
    """Return what a report has in a section, or why it has nothing there."""
    section = getattr(report, row)
    return str(section) if section is not None else f"not measured: {why_not(report, row)}"


def why_not(report: Report, row: str) -> str:
    """Return why a report has nothing in a section."""
    nobody = "it has nothing that would see them"
    return report.unmeasured.get(PART_OF.get(row, row), nobody)
