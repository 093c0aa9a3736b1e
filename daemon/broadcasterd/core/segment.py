"""A segment: events of one log that follow each other, with their frames end to end in one buffer.

Operations: read a frame or a stretch of frames by index, drop an event, copy what is left. A
:class:`Tail` takes events at its end, until it is sealed.

Goals: next to nothing around an event; an event is dropped without moving the others; a stretch is
read without joining anything; memory that is given up is back with the kernel at once.

Plan: the figures of each event are in arrays, own ttls and keys only where there are any. An event
that is dropped stays in the buffer, unseen, until the log wants its memory back. A buffer has a
mapping of its own (mmap(2)), which no allocator keeps for later and no other object shares, and of
which single pages can be given back; only a small one has not.

WARNING: indexes count the dropped events too, and change when a segment is copied. A slice of a
buffer is good until an event of it is dropped, unless that was the only one of its segment.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from math import inf
from mmap import MADV_DONTNEED, MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap

import msgspec
from typing_extensions import override

from broadcasterd.core.cost import (
    ENTRY_OVERHEAD_BYTES,
    OWN_TTL_OVERHEAD_BYTES,
    cost_of,
    key_cost,
)
from broadcasterd.core.keys import GrowingKeyRow, KeyRow

LARGE_BYTES = 16 * 1024
"""A frame above it has a segment of its own, so that readers who are in the middle of it can keep a
slice of it, and it is there once. A smaller one they copy."""

_SHARE_OF_FIGURES = 2
"""A mapping has room for figures as well: 12 bytes for each event, whose frame has 40 or more; and
for ttls and keys, where they are not longer than that."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One retained event, as it is read: its frame, as all who listen are sent it.

    Attributes:
        appended_at: when it came, in seconds.
        ttl: for how many seconds it is retained, if that is less than for others.

    """

    seq: int
    frame: bytes
    appended_at: float
    ttl: float | None = None
    key: str | None = None

    @property
    def cost(self) -> int:
        """Bytes of memory accounted to this event."""
        return cost_of(len(self.frame), has_ttl=self.ttl is not None, key=self.key)


class Segment:
    """Events of a log in order, to read and to drop.

    Args:
        buffer: the frames, end to end.
        ends: where each frame ends in the buffer.
        seqs: sequence numbers, rising.
        times: when each event came, in seconds, rising or equal.
        ttls: own ttls in seconds, infinite where there is none; ``None`` if there are none at all.
        keys: idempotency keys; ``None`` if there are none at all.
        mapping: the memory of the buffer, if it has a mapping, and begins with it.

    Attributes:
        size: bytes of all frames.
        cost: bytes that the events that are left are accounted as.
        head: the index of the first of them.
        holes: the indexes behind it of the events that were dropped; ``None`` if there are none.
        wasted: bytes that the buffer has for the events that were dropped.
        released: bytes at its front that it gave back.

    """

    __slots__ = (
        "buffer",
        "cost",
        "ends",
        "head",
        "holes",
        "keys",
        "mapping",
        "released",
        "seqs",
        "size",
        "times",
        "ttls",
        "wasted",
    )

    def __init__(
        self,
        buffer: bytearray | memoryview,
        ends: Sequence[int],
        seqs: Sequence[int],
        times: Sequence[float],
        *,
        ttls: Sequence[float] | None = None,
        keys: KeyRow | None = None,
        mapping: mmap | None = None,
    ) -> None:
        self.buffer = buffer
        self.ends = ends
        self.seqs = seqs
        self.times = times
        self.ttls = ttls
        self.keys = keys
        self.size = ends[-1] if ends else 0
        self.cost = self.size + ENTRY_OVERHEAD_BYTES * len(ends)
        if ttls is not None:
            self.cost += OWN_TTL_OVERHEAD_BYTES * sum(ttl != inf for ttl in ttls)
        if keys is not None:
            self.cost += sum(map(key_cost, keys))
        self.head = 0
        self.wasted = 0
        self.holes: set[int] | None = None
        self.mapping = mapping
        self.released = 0

    def __len__(self) -> int:
        return len(self.ends) - self.head - (len(self.holes) if self.holes else 0)

    @property
    def first(self) -> int:
        """The number of the oldest event that is left."""
        return self.seqs[self.head]

    @property
    def first_at(self) -> float:
        """When that came."""
        return self.times[self.head]

    @property
    def last(self) -> int:
        """The number of the newest event that it has ever had."""
        return self.seqs[-1]

    @property
    def last_at(self) -> float:
        """When that came."""
        return self.times[-1]

    @property
    def is_mapped(self) -> bool:
        """Whether the buffer has a mapping of its own."""
        return self.mapping is not None

    @property
    def left(self) -> int:
        """The bytes of the frames of the events that are left."""
        return self.size - self.wasted - self.released

    def newest(self) -> int:
        """Return the index of the newest event that is left."""
        return max(self.following(self.head)) if self.holes else len(self.ends) - 1

    # Indexes

    def after(self, seq: int) -> int:
        """Return the index of the first event that is left after ``seq``; one too high if none."""
        return self._skip_holes(max(self.head, bisect_right(self.seqs, seq)))

    def came_at(self, moment: float) -> int:
        """Return the index of the first event that is left and came at ``moment`` or later."""
        return self._skip_holes(max(self.head, bisect_left(self.times, moment)))

    def find(self, seq: int) -> int | None:
        """Return the index of an event; ``None`` if it is not here, or was dropped."""
        index = bisect_left(self.seqs, seq, self.head)
        if index == len(self.seqs) or self.seqs[index] != seq:
            return None
        return None if self.holes and index in self.holes else index

    def following(self, index: int) -> Iterator[int]:
        """Iterate over the indexes of the events that are left, from this one on."""
        rest = range(index, len(self.ends))
        holes = self.holes
        return iter(rest) if not holes else (i for i in rest if i not in holes)

    def stretch(self, index: int, max_bytes: int) -> int:
        """Return where a stretch ends that begins with this event: nothing in it was dropped.

        Its frames have ``max_bytes`` at most, but there is one at least.
        """
        end = bisect_right(self.ends, self.start_of(index) + max_bytes, index + 1)
        if self.holes:
            end = min((hole for hole in self.holes if index < hole < end), default=end)
        return end

    def _skip_holes(self, index: int) -> int:
        if self.holes:
            while index in self.holes:
                index += 1
        return index

    # Events

    def start_of(self, index: int) -> int:
        """Return where a frame begins in the buffer."""
        return self.ends[index - 1] if index else 0

    def frame(self, index: int) -> bytes:
        """Return a copy of a frame."""
        return bytes(memoryview(self.buffer)[self.start_of(index) : self.ends[index]])

    def read(self, start: int, end: int) -> memoryview | bytes:
        """Return the frames of a stretch: a slice of the buffer."""
        return memoryview(self.buffer)[self.start_of(start) : self.ends[end - 1]]

    def entry(self, index: int) -> Entry:
        """Return an event."""
        ttl = inf if self.ttls is None else self.ttls[index]
        return Entry(
            self.seqs[index],
            self.frame(index),
            self.times[index],
            None if ttl == inf else ttl,
            None if self.keys is None else self.keys[index],
        )

    def drop(self, index: int) -> int:
        """Drop an event that is left; return what it was accounted as."""
        ends, ttls, keys = self.ends, self.ttls, self.keys
        size = ends[index] - (ends[index - 1] if index else 0)
        cost = size + ENTRY_OVERHEAD_BYTES
        if ttls is not None and ttls[index] != inf:
            cost += OWN_TTL_OVERHEAD_BYTES
        if keys is not None:
            cost += key_cost(keys[index])
        self.cost -= cost
        self.wasted += size
        if index != self.head:
            self.holes = self.holes or set()
            self.holes.add(index)
        else:
            self.head = index + 1
            while self.holes and self.head in self.holes:
                self.holes.remove(self.head)
                self.head += 1
        return cost

    def drop_first(self, count: int) -> int:
        """Drop the first so many that are left; return what they were accounted as.

        There is none with a ttl of its own or a key, and no hole.
        """
        size = self.ends[self.head + count - 1] - self.start_of(self.head)
        cost = size + ENTRY_OVERHEAD_BYTES * count
        self.head += count
        self.cost -= cost
        self.wasted += size
        return cost

    def release(self) -> None:
        """Give back the pages before the first event that is left, if the buffer has a mapping."""
        end = self.start_of(self.head) // PAGESIZE * PAGESIZE
        if self.mapping is not None and end > self.released:
            self.mapping.madvise(MADV_DONTNEED, self.released, end - self.released)
            self.wasted -= end - self.released
            self.released = end


class Tail(Segment):
    """The newest segment of a log: it grows at its end, until it is sealed.

    Args:
        limit: bytes of frames that it is to have at most.
        is_mapped: whether its buffer is a mapping with room for so many. Pages of it that are not
            written yet take no memory. Otherwise the buffer grows, among small objects, as it must.

    """

    __slots__ = ("limit",)

    ends: array[int]
    seqs: array[int]
    times: array[float]
    ttls: array[float] | None
    keys: GrowingKeyRow | None

    def __init__(self, limit: int, *, is_mapped: bool) -> None:
        mapping = _map(limit + limit // _SHARE_OF_FIGURES) if is_mapped else None
        buffer = bytearray() if mapping is None else memoryview(mapping)
        super().__init__(buffer, array("I"), array("Q"), array("d"), mapping=mapping)
        self.limit = limit

    @classmethod
    def of(cls, segment: Segment, limit: int, *, is_mapped: bool) -> Tail:
        """Return a copy of what is left of a segment."""
        tail = cls(limit, is_mapped=is_mapped)
        index = segment.head
        while index < len(segment.ends):
            end = segment.stretch(index, segment.size)
            tail._extend(segment, index, end)
            index = segment.after(segment.seqs[end - 1])
        tail.cost = segment.cost
        return tail

    @override
    def read(self, start: int, end: int) -> memoryview | bytes:
        """Return the frames of a stretch; of a buffer that grows a copy, or it could not grow."""
        frames = super().read(start, end)
        return bytes(frames) if self.mapping is None else frames

    def add(self, entry: Entry) -> int:
        """Add an event, whose number is the highest; return what it is accounted as."""
        frame, ttl, key = entry.frame, entry.ttl, entry.key
        size = len(frame)
        end = self.size + size
        if self.mapping is None:
            self.buffer += frame  # type: ignore[operator] # then it is a bytearray
        else:
            self.buffer[self.size : end] = frame
        self.size = end
        self.ends.append(end)
        self.seqs.append(entry.seq)
        self.times.append(entry.appended_at)
        cost = size + ENTRY_OVERHEAD_BYTES
        if ttl is not None or self.ttls is not None:
            self._all_ttls(len(self.seqs) - 1).append(inf if ttl is None else ttl)
            cost += OWN_TTL_OVERHEAD_BYTES if ttl is not None else 0
        if key is not None or self.keys is not None:
            self._all_keys(len(self.seqs) - 1).append(key)
            cost += key_cost(key)
        self.cost += cost
        return cost

    def sealed(self) -> Segment:
        """Return the same events in a buffer that does not grow. Add nothing to this one then."""
        first, last = self.seqs[0], self.seqs[-1]
        is_row = last - first == len(self.seqs) - 1
        times: Sequence[float] = self.times[:]
        ends: Sequence[int] = self.ends[:]
        ttls: Sequence[float] | None = self.ttls
        keys: KeyRow | None = self.keys
        buffer = self.buffer
        if isinstance(buffer, bytearray):
            buffer = memoryview(bytes(buffer))
        else:
            rest = buffer[self.size + -self.size % 8 :]
            if len(rest) >= 8 * len(times) + 4 * len(ends):
                times = _placed(self.times, rest).cast("d")
                ends = _placed(self.ends, rest[8 * len(times) :]).cast("I")
                rest = rest[8 * len(times) + 4 * (len(ends) + len(ends) % 2) :]
            if self.ttls is not None and len(rest) >= 8 * len(times):
                ttls = _placed(self.ttls, rest).cast("d")
                rest = rest[8 * len(times) :]
            if self.keys is not None and len(rest) >= self.keys.size_bytes:
                keys = self.keys.placed(rest)
            buffer = buffer[: self.size]
        seqs = range(first, last + 1) if is_row else self.seqs[:]
        sealed = Segment(buffer, ends, seqs, times, ttls=ttls, keys=keys, mapping=self.mapping)
        sealed.cost, sealed.head, sealed.holes = self.cost, self.head, self.holes
        sealed.wasted, sealed.released = self.wasted, self.released
        return sealed

    def _extend(self, segment: Segment, start: int, end: int) -> None:
        """Add a stretch of another segment, but not its cost."""
        before, shift = len(self.seqs), self.size - segment.start_of(start)
        self._write(segment.read(start, end))
        self.ends.extend([place + shift for place in segment.ends[start:end]])
        self.seqs.extend(segment.seqs[start:end])
        self.times.extend(segment.times[start:end])
        if segment.ttls is not None:
            self._all_ttls(before).extend(segment.ttls[start:end])
        if segment.keys is not None:
            self._all_keys(before).extend(map(segment.keys.__getitem__, range(start, end)))

    def _write(self, frames: bytes | memoryview) -> None:
        end = self.size + len(frames)
        if isinstance(self.buffer, bytearray):
            self.buffer += frames
        else:
            self.buffer[self.size : end] = frames
        self.size = end

    def _all_ttls(self, count: int) -> array[float]:
        if self.ttls is None:
            self.ttls = array("d", [inf]) * count
        return self.ttls

    def _all_keys(self, count: int) -> GrowingKeyRow:
        if self.keys is None:
            self.keys = GrowingKeyRow([None] * count)
        return self.keys


def _map(size: int) -> mmap | None:
    """Return memory that goes back to the kernel with its last user; ``None`` if there is none."""
    try:
        mapping = mmap(-1, size, MAP_PRIVATE | MAP_ANONYMOUS)
    except OSError:
        return None  # the process has as many mappings as it may
    mapping.madvise(MADV_NOHUGEPAGE)  # else a page that is written may bring 500 others with it
    return mapping


def _placed(figures: array[int] | array[float], room: memoryview) -> memoryview:
    """Return a copy of figures, as bytes at the beginning of some room."""
    copy = room[: len(figures) * figures.itemsize]
    copy[:] = memoryview(figures).cast("B")
    return copy
