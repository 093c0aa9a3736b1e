"""A batch: new events on their way to all who are up to date."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from broadcasterd.core.run import Cut
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import unchunk


class Mark:
    """A place in what a session broadcasts: one object, which all streams share that are there.

    So a stream that is live is known by *is*, and what it was sent need not be counted by itself.

    Attributes:
        seq: the last event before it.
        events, bytes: all that was broadcast up to there, since a beginning that all marks share.

    """

    __slots__ = ("bytes", "events", "seq")

    def __init__(self, seq: int = 0, events: int = 0, size: int = 0) -> None:
        self.seq = seq
        self.events = events
        self.bytes = size


class Batch:
    """New events, encoded once for all.

    Args:
        entries: one or more, in order.
        offered: as the attribute.
        previous: the mark after the batch before this one, if there was any.

    Attributes:
        before, after: the marks of a live stream that waits for them, and of one that has them.
        frames: their frames, joined.
        size: the bytes of ``frames``.
        count: how many they are.
        start: the cursor of a reader that has everything before them.
        end: the cursor of a reader that has them.
        offered: the last event that a reader could have had before all that came with them.

    """

    __slots__ = (
        "_entries",
        "_unchunked",
        "after",
        "before",
        "count",
        "end",
        "frames",
        "offered",
        "size",
        "start",
    )

    def __init__(
        self, entries: Sequence[Entry], offered: int, previous: Mark | None = None
    ) -> None:
        self._entries = entries
        self._unchunked: Batch | None = None
        self.offered = offered
        self.count = len(entries)
        is_one = self.count == 1
        self.frames = entries[0].frame if is_one else b"".join([entry.frame for entry in entries])
        self.size = len(self.frames)
        self.start = entries[0].seq - 1
        self.end = entries[-1].seq
        previous = previous or Mark()
        is_next = previous.seq == self.start
        self.before = previous if is_next else Mark(self.start, previous.events, previous.bytes)
        self.after = Mark(self.end, previous.events + self.count, previous.bytes + self.size)

    @property
    def unchunked(self) -> Batch:
        """The same events without the chunks that they are: made once for all of HTTP/1.0."""
        if self._unchunked is None:
            bare = [
                msgspec.structs.replace(entry, frame=unchunk(entry.frame))
                for entry in self._entries
            ]
            self._unchunked = Batch(bare, self.offered)
        return self._unchunked

    def cut(self, sent: int) -> Cut:
        """Return the place of a reader that took so many bytes of it, one or more."""
        for count, entry in enumerate(self._entries, start=1):
            size = len(entry.frame)
            if sent <= size:
                return Cut(entry.seq, count, memoryview(entry.frame)[sent:])
            sent -= size
        msg = "a reader took more than there is"
        raise ValueError(msg)
