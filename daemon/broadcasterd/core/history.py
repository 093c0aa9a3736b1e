"""The history of a log: its events in memory, a row of segments. What leaves it, the log decides.

A segment is sealed by bytes, for bytes are what segments lose: what is gone already of the oldest
one, what was dropped from the middle, the rest of the last page of each. All of that stays small
beside the history, whatever its size. A small history pays for none of it: it has a single segment,
which grows as it must and is never sealed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from mmap import PAGESIZE

from broadcasterd.core.segment import LARGE_BYTES, Entry, Segment, Tail
from broadcasterd.memory.account import Account

SHARE = 4
MIN_SEGMENT_BYTES = 16 * 1024
MAX_SEGMENT_BYTES = 256 * 1024
"""A segment has one part in so many of the history, within these bounds. Larger ones gain nothing.
"""

SMALL_BYTES = 4 * 1024
"""A smaller buffer has no mapping of its own: the rest of its last page would be too much. Larger
ones leave larger holes among small objects when they grow (measured)."""

SMALL_AGAIN_BYTES = SMALL_BYTES * 3 // 4
"""What is left of a history has such a buffer again if it takes no more of it: there is to be room
for more."""

MAPPING_BYTES = PAGESIZE
"""A mapping is accounted for so many bytes more: half of its first page was given up, and half of
its last is not used yet."""

MAX_MAPPINGS = 8 * 1024
"""Nor has one if it took more buffers like it than that to hold all histories. The process may have
65,530 mappings (vm.max_map_count), and there are others, and older ones that are smaller."""

WASTED_BYTES = 1024
RELEASED_SHARE = 32
COPIED_SHARE = 8
HOLES_SHARE = 4
"""A segment that has so much for nothing, and more than one part in 32 of the history, gives its
first pages back. If after that it is still more than one part in 8, or there are holes and it is a
quarter of the buffer, the rest is copied."""

Stretch = tuple[Segment, int, int]
"""A segment, and the indexes where a stretch of events begins and ends in it."""


class History:
    """The events of one log, oldest first.

    Args:
        account: counts the bytes of all histories together.

    Attributes:
        count: how many events there are.
        bytes: what they are accounted as.
        segments: they, oldest first; each segment has one at least.

    """

    __slots__ = ("_account", "_mappings", "_tail", "bytes", "count", "segments")

    def __init__(self, account: Account) -> None:
        self.count = 0
        self.bytes = 0
        self.segments: list[Segment] = []
        self._mappings = 0  # that are accounted for
        self._account = account
        self._tail: Tail | None = None  # the last of them, if it is not sealed

    @property
    def accounted(self) -> int:
        """What is on the account for this history: its events, and its mappings."""
        return self.bytes + self._mappings * MAPPING_BYTES

    # Putting in

    def add(self, entry: Entry) -> None:
        """Add an event, whose number is the highest."""
        size = len(entry.frame)
        tail = self._tail
        if tail is None or tail.size + size > tail.limit or size > LARGE_BYTES:
            tail = self._begin_tail(size)
        cost = tail.add(entry)
        self.count += 1
        self.bytes += cost
        self._account.bytes += cost

    def adopt(self, segment: Segment) -> Segment:
        """Add a copy of a segment whose numbers are the highest, and return it."""
        copy = self._compact(segment)
        self.segments.append(copy)
        self._tail = None
        self.count += len(copy)
        self.bytes += copy.cost
        self._account.bytes += copy.cost
        self._account_for_mappings()
        return copy

    def _begin_tail(self, size: int) -> Tail:
        """Return a tail with room for one more event of so many bytes."""
        tail = self._tail
        if tail is not None and size <= LARGE_BYTES and tail.limit == SMALL_BYTES:
            return self._copy_tail(tail, max(self._wanted(), tail.left + size))
        if tail is not None:
            is_ready = tail.is_mapped == self._is_mapped(tail.size)
            self.segments[-1] = tail.sealed() if is_ready else self._compact(tail)
        limit = size
        if size <= LARGE_BYTES:
            limit = max(size, self._wanted() if self.segments else SMALL_BYTES)
        self._tail = Tail(limit, is_mapped=self._is_mapped(limit))
        self.segments.append(self._tail)
        self._account_for_mappings()
        return self._tail

    def _compact(self, segment: Segment) -> Segment:
        """Return a sealed copy of what is left of a segment."""
        left = segment.left
        return Tail.of(segment, left, is_mapped=self._is_mapped(left)).sealed()

    def _wanted(self) -> int:
        """Return how many bytes a buffer is to have."""
        return min(max(MIN_SEGMENT_BYTES, self.bytes // SHARE), MAX_SEGMENT_BYTES)

    def _is_mapped(self, size: int) -> bool:
        """Whether a buffer of that size is to have a mapping of its own."""
        return size > max(SMALL_BYTES, self._account.bytes // MAX_MAPPINGS)

    # Reading

    def stretches(self, cursor: int, max_bytes: int) -> Iterator[Stretch]:
        """Iterate over the stretches after a cursor: one event or more, then within the bytes."""
        segments = self.segments
        is_first = True
        for place in range(bisect_right(segments, cursor, key=_last), len(segments)):
            segment = segments[place]
            index = segment.after(cursor)
            while index < len(segment.ends):
                start = segment.start_of(index)
                if not is_first and segment.ends[index] - start > max_bytes:
                    return
                end = segment.stretch(index, max_bytes)
                yield segment, index, end
                is_first = False
                max_bytes -= segment.ends[end - 1] - start
                index = segment.after(segment.seqs[end - 1])

    def newest(self, count: int) -> int | None:
        """Return the oldest of the newest so many events; ``None`` if there are none."""
        for segment in reversed(self.segments):
            if 0 < count <= len(segment):
                return segment.seqs[[*segment.following(segment.head)][-count]]
            count -= len(segment)
        return self.segments[0].first if count > 0 and self.segments else None

    def since(self, moment: float) -> int | None:
        """Return the oldest event that came at a moment or later; ``None`` if there is none."""
        for segment in self.segments:
            if segment.last_at >= moment:
                index = segment.came_at(moment)
                if index < len(segment.seqs):
                    return segment.seqs[index]
        return None

    def key_of(self, seq: int) -> str | None:
        """Return the key of an event; ``None`` if it has none, or is not here."""
        place = bisect_left(self.segments, seq, key=_last)
        if place == len(self.segments):
            return None
        segment = self.segments[place]
        index = segment.find(seq)
        return None if segment.keys is None or index is None else segment.keys[index]

    # Giving up

    def drop_oldest(self) -> tuple[int, float, str | None]:
        """Drop the oldest event; return its number, when it came, and its key."""
        oldest = self.segments[0]
        index = oldest.head
        seq, at = oldest.seqs[index], oldest.times[index]
        key = None if oldest.keys is None else oldest.keys[index]
        self._let_go(0, oldest.drop(index))
        return seq, at, key

    def drop_first(self, most: int) -> tuple[int, float] | None:
        """Drop several of the oldest events at once, of one segment and ``most`` at most.

        Return the number of the newest of them, and when it came; ``None``, and nothing is dropped,
        where each is to be looked at.
        """
        oldest = self.segments[0]
        if oldest.holes or oldest.ttls is not None or oldest.keys is not None:
            return None
        count = min(most, len(oldest))
        newest = oldest.head + count - 1
        seq, at = oldest.seqs[newest], oldest.times[newest]
        self._let_go(0, oldest.drop_first(count), count)
        return seq, at

    def drop_oldest_segment(self) -> Segment:
        """Drop all events of the oldest segment, and return it."""
        oldest = self.segments.pop(0)
        if oldest is self._tail:
            self._tail = None
        self.count -= len(oldest)
        self.bytes -= oldest.cost
        self._account.bytes -= oldest.cost
        self._account_for_mappings()
        return oldest

    def drop(self, seq: int) -> str | None:
        """Drop an event, wherever it is, if it is there; return its key."""
        place = bisect_left(self.segments, seq, key=_last)
        if place == len(self.segments):
            return None
        segment = self.segments[place]
        index = segment.find(seq)
        if index is None:
            return None
        key = None if segment.keys is None else segment.keys[index]
        self._let_go(place, segment.drop(index))
        return key

    def give_back(self) -> None:
        """Let go of what is kept for nothing: somebody needs the memory."""
        if self.segments:
            self.segments[0].release()

    def _let_go(self, place: int, cost: int, count: int = 1) -> None:
        """Count events of a segment as dropped, and let go of the segment if it is time to."""
        segment = self.segments[place]
        self.count -= count
        self.bytes -= cost
        self._account.bytes -= cost
        if segment.head == len(segment.ends):
            del self.segments[place]
            if segment is self._tail:
                self._tail = None
            self._account_for_mappings()
        elif segment.wasted > WASTED_BYTES and segment.wasted * RELEASED_SHARE > self.bytes:
            segment.release()
            if segment.wasted > WASTED_BYTES and (
                segment.wasted * COPIED_SHARE > self.bytes
                or (segment.holes and segment.wasted * HOLES_SHARE > segment.size)
            ):
                self._copy(place)

    def _copy(self, place: int) -> None:
        """Let go of what a segment has for nothing by a copy of the rest."""
        segment = self.segments[place]
        if segment is self._tail:
            is_small = not place and segment.left <= SMALL_AGAIN_BYTES
            self._copy_tail(segment, SMALL_BYTES if is_small else self._wanted())
        else:
            self.segments[place] = self._compact(segment)
            self._account_for_mappings()

    def _account_for_mappings(self) -> None:
        """Account for the mappings that there are now, whenever there may be others."""
        before, self._mappings = self._mappings, sum(s.is_mapped for s in self.segments)
        self._account.bytes += (self._mappings - before) * MAPPING_BYTES

    def _copy_tail(self, tail: Segment, limit: int) -> Tail:
        limit = max(limit, tail.left)
        self._tail = Tail.of(tail, limit, is_mapped=self._is_mapped(limit))
        self.segments[-1] = self._tail
        self._account_for_mappings()
        return self._tail


def _last(segment: Segment) -> int:
    return segment.last
