"""Quality reports of past test runs, as a file has them: one JSON object a line, newest last."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

log = structlog.stdlib.get_logger(__name__)

MAX_BYTES = 64 * 1024
"""Of the end of the file: hundreds of runs, read in less than a millisecond."""

MAX_RUNS = 200

Report = dict[str, object]


def read_reports(path: Path | None) -> Sequence[Report]:
    """Return the newest reports, oldest first; what is no report is passed over.

    A report has a ``date``, and as far as it tells them a ``success_rate`` from 0 to 1 and
    ``hooks_seconds``.
    """
    if path is None:
        return ()
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_BYTES))
            lines = file.read(MAX_BYTES).splitlines()
    except OSError as error:
        log.info("no quality report", path=str(path), why=error.strerror)
        return ()
    return [*_reports(lines)][-MAX_RUNS:]


def _reports(lines: Sequence[bytes]) -> Iterator[Report]:
    for line in lines:
        try:
            told = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # cut, or somebody else's
        if isinstance(told, dict) and isinstance(date := told.get("date"), str):
            numbers = {name: _number(told.get(name)) for name in ("success_rate", "hooks_seconds")}
            yield {"date": date[:32], **numbers}


def _number(told: object) -> float | None:
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    return float(told) if is_number else None  # type: ignore[arg-type] # it is one
