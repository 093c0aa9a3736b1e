"""A batch: new events on their way to all who are up to date."""

from __future__ import annotations

from collections.abc import Sequence

from broadcasterd.core.run import Cut
from broadcasterd.core.segment import Entry


class Batch:
    """New events, encoded once for all.

    Args:
        entries: one or more, in order.

    Attributes:
        frames: their frames, joined.
        size: the bytes of ``frames``.
        count: how many they are.
        start: the cursor of a reader that has everything before them.
        end: the cursor of a reader that has them.
        offered: the last event that a reader could have had before all that came with them.

    """

    __slots__ = ("_entries", "count", "end", "frames", "offered", "size", "start")

    def __init__(self, entries: Sequence[Entry], offered: int) -> None:
        self._entries = entries
        self.offered = offered
        self.frames = b"".join([entry.frame for entry in entries])
        self.size = len(self.frames)
        self.count = len(entries)
        self.start = entries[0].seq - 1
        self.end = entries[-1].seq

    def cut(self, sent: int) -> Cut:
        """Return the place of a reader that took so many bytes of it, one or more."""
        for count, entry in enumerate(self._entries, start=1):
            size = len(entry.frame)
            if sent <= size:
                return Cut(entry.seq, count, memoryview(entry.frame)[sent:])
            sent -= size
        msg = "a reader took more than there is"
        raise ValueError(msg)
