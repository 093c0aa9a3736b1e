"""Records that a stranger can cause, so many a second at the most: the log is for its operator.

A flood of bad requests must neither cost the loop more than the requests do, nor push everything
else out of the log. What is left out is counted, and told by kind as soon as a second has passed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from typing_extensions import override

RECORDS_PER_S = 5
"""Records of one kind in one second: enough to see what happens, and to whom."""

LIMITED = frozenset(
    {
        "a page of another site was refused",
        "a proxy is not trusted: its clients count as one",
        "a request failed",
        "a response failed",
        "a connection failed",
        "a stream failed",
        "a task held up the loop",
        "connections are refused",
        "connections cannot be accepted",
        "token refused",
    }
)
"""What anybody can bring about who reaches the port. ``stream ended`` is not among them: whoever
has a stream has a token, and each stream has its record."""


class RecordLimit(logging.Filter):
    """Lets the first records of a kind pass in each second, and counts the others.

    A kind is one of ``LIMITED``, whatever has a traceback, or all that one other library says.

    Args:
        clock: seconds on a monotonic clock.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._second = 0
        self._passed: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        kind = _kind(record)
        if kind is None:
            return True
        if (second := int(self._clock())) != self._second:
            self._second = second
            self._passed.clear()
        self._passed[kind] += 1
        if self._passed[kind] <= RECORDS_PER_S:
            return True
        self._left_out[kind] += 1
        return False

    def take_left_out(self, *, is_over: bool = False) -> Counter[str]:
        """Return how many of each kind were left out in a second that is over; begin anew."""
        if not self._left_out or not (is_over or int(self._clock()) != self._second):
            return Counter()
        left_out, self._left_out = self._left_out, Counter()
        return left_out


def _kind(record: logging.LogRecord) -> str | None:
    """Return what a record is counted as; ``None`` for one that is always written."""
    if not isinstance(record.msg, dict):
        return record.name
    text = str(record.msg.get("event"))
    return text if text in LIMITED or record.msg.get("exc_info") else None
