"""The report on a rollback, for those who are to mend what was wrong: a text, in a file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent

from deployment.commands import records_between
from deployment.installation import runs_systemd
from deployment.instance import PRODUCTION
from deployment.layout import Layout
from deployment.releases import DeploymentError, Releases

BEFORE_S = 900.0
AFTER_S = 300.0
"""The records of so long before a rollback, and after it."""


def analyse(releases: Releases, layout: Layout, reason: str, into: Path) -> Path:
    """Write the report on the last rollback; return its path.

    Args:
        releases: those that are installed.
        layout: says whether this machine's systemd has records of them.
        reason: why production was taken back, in an operator's words.
        into: the directory of the report.

    Raises:
        DeploymentError: there is no reason, or the records cannot be read.

    """
    if not reason.strip():
        raise DeploymentError("say REASON=, and why production went back, in quotes")
    now = time.time()
    rollback = releases.last_rollback()
    at = now if rollback is None else rollback.at
    known = "not known: no release was taken back here"
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"rollback-analysis-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.txt"
    records = _records(layout, at - BEFORE_S, min(at + AFTER_S, now))
    path.write_text(
        f"Rollback analysis, {_utc(now)}\n\n"
        f"rolled back:     {known if rollback is None else _utc(rollback.at)}\n"
        f"release before:  {known if rollback is None else rollback.version}\n"
        f"release after:   {releases.in_use(PRODUCTION.link) or 'none is installed'}\n\n"
        f"Reason\n\n{indent(reason.strip(), '    ')}\n\n"
        f"Records of {PRODUCTION.unit} around it\n\n{indent(records, '    ')}\n",
        "utf-8",
    )
    return path


def _records(layout: Layout, since: float, until: float) -> str:
    if not runs_systemd(layout):
        return "there is no systemd here, and so no journal"
    said = records_between(PRODUCTION.unit, since, until).strip()
    return said or f"none from {_utc(since)} to {_utc(until)}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
