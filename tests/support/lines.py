"""The lines that a process writes: read by a thread, so that its pipe never fills."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO


class Lines:
    """The lines of one pipe, in order; each can be waited for, with a deadline.

    Args:
        pipe: what to read, until its end.
        record: a file that gets every line as well, as soon as it is there.

    """

    def __init__(self, pipe: IO[str], *, record: Path | None = None) -> None:
        self._pipe = pipe
        self._record = record
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def next(self, *, within: float) -> str | None:
        """Return the next line without its line break, or ``None`` at the end.

        Raises:
            TimeoutError: there is none ``within`` so many seconds.

        """
        try:
            line = self._queue.get(timeout=within)
        except queue.Empty:
            raise TimeoutError(f"no line within {within} s") from None
        if line is None:
            self._queue.put(None)  # the end stays the end
        return line

    def close(self) -> None:
        """Wait for the end, which comes when the process is gone."""
        self._reader.join()

    def _read(self) -> None:
        with self._pipe, suppress(ConnectionResetError):  # of a socket, that is an end, too
            for line in self._pipe:
                if self._record is not None:
                    with self._record.open("a") as record:
                        record.write(line)
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)
