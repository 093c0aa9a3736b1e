"""Logging: structlog for those who write, a bounded queue and one thread for those who read.

A record is formatted and written by the listener's thread, so that a slow terminal, pipe or
disk never stalls the event loop. When the queue is full, records are dropped and counted.
Neither tokens nor event data are ever given to a logger.
"""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener

import structlog
from structlog.typing import EventDict, Processor

from broadcasterd.config import Log

QUEUED_RECORDS = 10_000
"""About 10 MB at the most; a burst of 10,000 streams that end at once fits."""


class DroppingQueueHandler(QueueHandler):
    """Drops what finds the queue full, and counts it in ``dropped``."""

    def __init__(self, records: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(records)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Pass the record on as it is: it stays in this process, and is formatted there."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record, or drop it."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


@contextmanager
def logging_to_stderr(config: Log) -> Iterator[None]:
    """Write all records to standard error while inside; flush them on the way out."""
    renderers: list[Processor]
    if config.format == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The pretty one prints local variables: event data must not reach a log.
            exception_formatter=structlog.dev.plain_traceback,
        )
        renderers = [console]
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
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUED_RECORDS)
    handler = DroppingQueueHandler(records)
    listener = QueueListener(records, stream)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    for chatty in ("hypercorn", "quart", "trio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        records.join()  # stop() fails where it finds the queue full
        listener.stop()
        if handler.dropped:
            stream.handle(
                logging.makeLogRecord(
                    {
                        "name": __name__,
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": f"{handler.dropped} log records were dropped: the queue was full",
                    }
                )
            )


def _resolve_exc_info(_logger: object, _method: str, record: EventDict) -> EventDict:
    """Take the exception along: the thread that formats the record has another one, or none."""
    if record.get("exc_info") is True:
        record["exc_info"] = sys.exc_info()
    return record
