"""Logging: structlog writes records to a bounded queue, and one thread reads them from it.

A record is formatted and written by the listener's thread, so that a slow terminal, pipe, disk
or journald never stalls the event loop. When the queue is full, records are dropped and counted;
and so are those that strangers cause, beyond a few a second (``limit.py``). Neither tokens nor
event data are ever given to a logger.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path

import structlog
from logging_journald import check_journal_stream
from structlog.typing import EventDict, Processor
from typing_extensions import override

from broadcasterd.config import ConfigError, Log
from broadcasterd.figures.counts import Counts
from broadcasterd.observe import journal
from broadcasterd.observe.error_output import ErrorHandler
from broadcasterd.observe.journal import JournalHandler
from broadcasterd.observe.limit import RecordLimit
from broadcasterd.observe.log_file import FileHandler
from broadcasterd.observe.printable import printable, printable_lines

log = structlog.stdlib.get_logger(__name__)

QUEUED_RECORDS = 10_000
"""About 10 MB at the most; a burst of 10,000 streams that end at once fits."""

FLUSH_S = 3.0
"""How long the end of the daemon waits for a journald, or a standard error, that takes nothing."""

Reopen = Callable[[], None]


class DroppingQueueHandler(QueueHandler):
    """Drops records if the queue is full, counts them, and says so as soon as there is room.

    Of some kinds it takes only so many a second, and says with a later record what it left out.
    """

    def __init__(
        self, records: queue.Queue[logging.LogRecord], counts: Counts | None = None
    ) -> None:
        super().__init__(records)
        self._counts = counts or Counts()
        self._records = records
        self._limit = RecordLimit()
        self.untold = 0

    @override
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Pass the record on as it is: it stays in this process, and is formatted there."""
        return record

    @override
    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, unless there were too many of its kind."""
        self.tell_left_out()
        return self._limit.filter(record) and bool(super().handle(record))

    @override
    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, or drop it."""
        if self.untold and not self._records.full():
            self.tell()
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self.untold += 1
            self._counts.dropped_records += 1

    def tell(self) -> None:
        """Log how many records were dropped, if any were."""
        if self.untold:
            count, self.untold = self.untold, 0
            log.error("log records were dropped", count=count, why="the queue was full")

    def tell_left_out(self, *, is_over: bool = False) -> None:
        """Log how many records of which kind were left out, in a second that is over."""
        for kind, count in self._limit.take_left_out(is_over=is_over).items():
            self._counts.left_out_records += count
            log.warning("log records were left out", record=kind, count=count)


@contextmanager
def logging_as(config: Log, counts: Counts | None = None) -> Iterator[Reopen]:
    """Write all records as the settings say while inside; flush them on the way out.

    What it provides has a log file opened anew before the next record.

    Args:
        config: the ``[log]`` settings.
        counts: what the daemon counts: here, the records that are not written.

    Raises:
        ConfigError: the journal is asked for, and there is none; or the file cannot be opened.

    """
    shared: list[Processor] = [
        _resolve_exc_info,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    counts = counts or Counts()
    writer = _writer(config, shared, counts)
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUED_RECORDS)
    handler = DroppingQueueHandler(records, counts)
    listener = QueueListener(records, writer)
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(config.level)
    listener.start()
    try:
        yield writer.reopen if isinstance(writer, FileHandler) else _nothing
    finally:
        writer.give_up_after(FLUSH_S)
        handler.tell_left_out(is_over=True)
        records.join()  # stop() fails where it finds the queue full
        handler.tell()
        root.removeHandler(handler)
        listener.stop()
        writer.close()


def set_level(level: str) -> None:
    """Write records of this level (``debug``, ``info``, …) and above, from now on."""
    number = logging.getLevelNamesMapping()[level.upper()]
    # Libraries may only warn: below that, hpack writes header fields, and with them tokens.
    logging.getLogger().setLevel(max(logging.WARNING, number))
    logging.getLogger("broadcasterd").setLevel(number)


def _nothing() -> None:
    """Reopen nothing: the journal and standard error are there as long as the daemon."""


def _writer(
    config: Log, shared: list[Processor], counts: Counts
) -> JournalHandler | ErrorHandler | FileHandler:
    """Return the handler that writes the records: to the journal, a file, or standard error."""
    if config.format == "journal" and not journal.SOCKET.exists():
        raise ConfigError(f'log.format = "journal": there is no journald at {journal.SOCKET}')
    to_journal = config.format == "auto" and config.file is None and check_journal_stream()
    if config.format == "journal" or to_journal:
        return JournalHandler(journal.SOCKET, counts)
    renderers: list[Processor]
    if config.format == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=config.file is None and sys.stderr.isatty(),
            # The pretty formatter prints local variables: event data must not reach a log.
            exception_formatter=structlog.dev.plain_traceback,
        )
        renderers = [structlog.processors.format_exc_info, _printable, console]
    writer = ErrorHandler(sys.stderr) if config.file is None else _file(config.file, counts)
    writer.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    return writer


def _file(path: Path, counts: Counts) -> FileHandler:
    try:
        return FileHandler(path, counts)
    except OSError as error:
        raise ConfigError(f'log.file = "{path}": cannot be opened: {error.strerror}') from error


def _printable(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Show control characters by their codes: a terminal, or who reads a line, obeys them."""
    for key, value in record.items():
        if key == "exception":
            record[key] = printable_lines(str(value))
        elif not isinstance(value, int | float | None):
            record[key] = printable(str(value))
    return record


def _resolve_exc_info(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Take the exception along: the thread that formats the record has another one, or none."""
    if record.get("exc_info") is True:
        record["exc_info"] = sys.exc_info()
    return record
