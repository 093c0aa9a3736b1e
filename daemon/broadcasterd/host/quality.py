"""Quality reports of past test runs, as a file has them: one JSON object a line, newest last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

log = structlog.stdlib.get_logger(__name__)

MAX_BYTES = 64 * 1024
"""Of the end of the file: hundreds of runs, read in less than a millisecond."""

MAX_RUNS = 200

Report = dict[str, object]


class Newest:
    """The newest report of a file, which is read anew only when it has changed.

    Args:
        path: returns where the file is; ``None``: there is none.

    """

    def __init__(self, path: Callable[[], Path | None]) -> None:
        self._path = path
        self._seen: tuple[Path, int, int] | None = None
        self._report: Report = {}

    def success_rate(self) -> float | None:
        """Return the share of the tests that passed; ``None`` where nothing tells it."""
        return _number(self._read().get("success_rate"))

    def hooks_seconds(self) -> float | None:
        """Return how long the hooks took; ``None`` where nothing tells it."""
        return _number(self._read().get("hooks_seconds"))

    def _read(self) -> Report:
        path = self._path()
        try:
            found = None if path is None else path.stat()
        except OSError:
            found = None
        if path is None or found is None:
            return {}
        if (seen := (path, found.st_mtime_ns, found.st_size)) != self._seen:
            self._seen = seen
            self._report = next(reversed(read_reports(path)), {})
        return self._report


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
