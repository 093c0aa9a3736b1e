"""Records on standard error, whose reader may stop to read: a full pipe, a terminal on hold.

The listener's thread of ``log.py`` waits for such a reader, for as long as the daemon runs. Where
the daemon wants to stop, it must not: so nothing is written before there is room.
"""

from __future__ import annotations

import io
import logging
import select
import time
from typing import TextIO

from typing_extensions import override

PIECE_CHARS = 1024
"""In UTF-8 no more than PIPE_BUF: where poll(2) tells of room, there is as much (pipe(7))."""

LOOK_S = 0.1
"""How often a writer that waits looks whether it is to give up."""


class ErrorHandler(logging.Handler):
    """Writes records. Only the thread that listens to the queue calls it.

    Args:
        stream: where to; flushed after each piece.

    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._give_up_at = float("inf")
        self._poll: select.poll | None = None
        try:
            fd = stream.fileno()
        except io.UnsupportedOperation:
            return  # it is in memory
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, as far as there is room before it is time to give up."""
        try:
            text = f"{self.format(record)}\n"
            for start in range(0, len(text), PIECE_CHARS):
                if not self._has_room():
                    return
                self._stream.write(text[start : start + PIECE_CHARS])
                self._stream.flush()
        except Exception:  # noqa: BLE001 (as the standard handlers do: a record is no reason to fail)
            self.handleError(record)

    def give_up_after(self, seconds: float) -> None:
        """Drop all records that could not be written by then: the daemon wants to stop."""
        self._give_up_at = time.monotonic() + seconds

    def _has_room(self) -> bool:
        if self._poll is None:
            return True
        while time.monotonic() < self._give_up_at:
            if self._poll.poll(LOOK_S * 1000):
                return True
        return False
