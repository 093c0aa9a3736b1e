"""Records in a file that others rotate: they move it away, and SIGUSR1 has it opened anew.

A file that cannot be opened anew is no reason to stop: records go on to the one that is open, which
is told so. Where it takes nothing, as on a full disk, records are dropped, counted and told.
"""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from typing_extensions import override

from broadcasterd.config import ConfigError, Log
from broadcasterd.figures.counts import Counts

MODE = 0o640
"""Of a file that is made: the group may read it, as with Debian's other logs."""


class FileHandler(logging.Handler):
    """Appends records to a file. Only the thread that listens to the queue writes.

    Args:
        path: of the file, which is made where there is none.
        counts: what the daemon counts.

    Raises:
        OSError: it cannot be opened.

    """

    def __init__(self, path: Path, counts: Counts | None = None) -> None:
        super().__init__()
        self._counts = counts or Counts()
        self._path = path
        self._file = _open(path, os.O_CREAT)
        self._was_moved = False
        self._untold = 0
        self._give_up_at = float("inf")

    def reopen(self) -> None:
        """Have the next record, and those after it, go to the file that has the path by then."""
        self._was_moved = True

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop and count it; the count is told before the next record."""
        if self._was_moved:
            self._was_moved = False
            self._open_anew()
        if time.monotonic() >= self._give_up_at:
            self._count_unwritten()
            return
        try:
            if self._untold:
                self._write(
                    _own("log records were dropped", count=self._untold, why="the file took none")
                )
                self._untold = 0
            self._write(record)
        except OSError:
            self._count_unwritten()
        except Exception:  # noqa: BLE001 (as the standard handlers do: a record is no reason to fail)
            self.handleError(record)

    def _count_unwritten(self) -> None:
        self._untold += 1
        self._counts.unwritten_records += 1

    def give_up_after(self, seconds: float) -> None:
        """Drop all records that could not be written by then: the daemon wants to stop."""
        self._give_up_at = time.monotonic() + seconds

    @override
    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        os.write(self._file, f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def _open_anew(self) -> None:
        try:
            opened = _open(self._path, os.O_CREAT)
        except OSError as error:
            why = str(error.strerror)
            self.emit(_own("log file cannot be reopened", file=str(self._path), why=why))
        else:
            os.close(self._file)
            self._file = opened


def check_log_file(log: Log) -> None:
    """Refuse a file that a start could not write to; none is made.

    Raises:
        ConfigError: it says why.

    """
    if log.file is None:
        return
    name = f'log.file = "{log.file}"'
    directory = log.file.absolute().parent
    try:
        os.close(_open(log.file, 0))
    except FileNotFoundError as error:
        if not directory.is_dir():
            raise ConfigError(f"{name}: there is no directory {directory}") from error
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(f"{name}: no file can be made in {directory}") from error
    except OSError as error:
        raise ConfigError(f"{name}: cannot be written: {error.strerror}") from error


def _open(path: Path, flags: int) -> int:
    """Open a file to append to it. A pipe whose reader is slow, or not there, is not waited for."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | flags, MODE)


def _own(event: str, **fields: object) -> logging.LogRecord:
    """Return a record as structlog makes them; the queue could drop it."""
    moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    message = {"event": event, **fields, "level": "error", "logger": __name__, "timestamp": moment}
    own = {"name": __name__, "levelno": logging.ERROR, "msg": message}
    return logging.makeLogRecord({**own, "_logger": None, "_name": "error"})
