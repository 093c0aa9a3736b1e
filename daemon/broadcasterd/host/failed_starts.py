"""Starts that failed one after the other, and the pause before the next: it grows.

systemd starts a service that failed again, so that it serves as soon as its files are mended; from
254 on it can let the pause grow by itself. The count waits in the service's runtime directory,
which is emptied when it is stopped.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0
"""Less than `TimeoutStartSec=` of the unit."""


class FailedStarts:
    """Counts them.

    Args:
        directory: the runtime directory; ``None`` where nobody starts the daemon again.

    """

    def __init__(self, directory: Path | None) -> None:
        self._file = None if directory is None else directory / "failed-starts"

    def another(self) -> float:
        """Count one more; return for how many seconds to wait before it may end as such.

        The first ends at once: whoever asked for it waits for the answer.
        """
        if self._file is None:
            return 0.0
        before = 0
        with suppress(OSError, ValueError):
            before = int(self._file.read_text())
        with suppress(OSError):  # a full disk: without a pause, then
            self._file.write_text(str(before + 1))
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(before, 10)) if before else 0.0

    def forget(self) -> None:
        """Begin anew: one did not fail."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
