"""Records for systemd's journal: each key of a record is a field that journalctl finds it by.

The listener's thread of ``log.py`` sends them over journald's native protocol. A journald that
takes nothing, as it does for a while when its disk is slow, costs that thread a second per record
and the event loop nothing.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
from logging_journald import JournaldTransport
from typing_extensions import override

from broadcasterd.figures.counts import Counts
from broadcasterd.observe.messages import MESSAGE_IDS

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "broadcasterd"

SEND_TIMEOUT_S = 1.0
"""How long a record waits for journald; then it is dropped and counted."""

FIELDS: Mapping[str, str] = {
    "session": "SESSION_ID",
    "stream": "SUBSCRIBER_ID",
    "last_id": "EVENT_ID",
    "peer": "REMOTE_ADDR",
    "after": "BREAKER_STATE",
    "before": "BREAKER_STATE_BEFORE",
}
"""The fields whose name is not simply the key in capitals."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7  # syslog(3) calls it so; 0 and 1 would be shown on every terminal
_SAID_OTHERWISE = frozenset({"event", "level", "logger", "timestamp", "exception"})


class JournalHandler(logging.Handler):
    """Sends records to journald. Only the thread that listens to the queue calls it.

    Args:
        path: journald's socket.
        counts: what the daemon counts.

    """

    def __init__(self, path: Path = SOCKET, counts: Counts | None = None) -> None:
        super().__init__()
        self._counts = counts or Counts()
        self._transport = _Transport(path, connected=False)
        self._untold = 0
        self._give_up_at = float("inf")

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or drop and count it; the count is told before the next record."""
        if time.monotonic() >= self._give_up_at:
            self._count_unwritten()
            return
        try:
            if self._untold:
                self._transport.send(fields(_dropped(self._untold)))
                self._untold = 0
            self._transport.send(fields(record))
        except OSError:
            self._count_unwritten()
        except Exception:  # noqa: BLE001 (as the standard handlers do: a record is no reason to fail)
            self.handleError(record)

    def _count_unwritten(self) -> None:
        self._untold += 1
        self._counts.unwritten_records += 1

    def give_up_after(self, seconds: float) -> None:
        """Drop all records that could not be sent by then: the daemon wants to stop."""
        self._give_up_at = time.monotonic() + seconds

    @override
    def close(self) -> None:
        """Close the socket."""
        self._transport.socket.close()
        super().close()


class _Transport(JournaldTransport):  # type: ignore[misc] # published without types
    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.settimeout(SEND_TIMEOUT_S)
        return opened


def fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record, as systemd.journal-fields(7) names them."""
    event = _event(record)
    text = str(event["event"])
    yield "MESSAGE", _clean(_message(text, event))
    yield "PRIORITY", str(next((p for low, p in _PRIORITIES if record.levelno >= low), _DEBUG))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    if text in MESSAGE_IDS:
        yield "MESSAGE_ID", MESSAGE_IDS[text]
    yield "LOGGER", record.name
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or ""
    for key, value in event.items():
        if key not in _SAID_OTHERWISE and value is not None:
            yield FIELDS.get(key, key.upper()), _clean(_text(value))


def _dropped(count: int) -> logging.LogRecord:
    """Return the record of dropped records; the queue could drop that one, too."""
    event = {"event": "log records were dropped", "count": count, "why": "journald took none"}
    return logging.makeLogRecord({"name": __name__, "levelno": logging.ERROR, "msg": event})


def _event(record: logging.LogRecord) -> dict[str, object]:
    """Return structlog's dictionary, or one like it of another library's record."""
    if isinstance(record.msg, dict):
        event = dict(record.msg)
    else:
        event = {"event": record.getMessage(), "exc_info": record.exc_info}
    return dict(structlog.processors.format_exc_info(None, "", event))


def _message(text: str, event: Mapping[str, object]) -> str:
    """Return the line that journalctl shows, with all that there is to know."""
    known = [
        f"{key}={_text(value)}"
        for key, value in event.items()
        if key not in _SAID_OTHERWISE and value is not None
    ]
    line = " ".join([text, *known])
    return f"{line}\n{event['exception']}" if event.get("exception") else line


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _clean(text: str) -> str:
    """Return the text without lone surrogates, which cannot be encoded."""
    return text.encode(errors="backslashreplace").decode()
