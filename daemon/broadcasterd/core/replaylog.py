"""The replay log: what one session retains, in order, within count, bytes and age.

Operations: append a block (it gets the next id), read what follows a cursor, resolve where a
client wants to start, drop what is too old.

Goals: every bound is exact at every moment; appending and expiring cost the same whatever is
retained; a reader holds a cursor and nothing else, so a slow one costs no memory here.

A *cursor* is the sequence number of the last event that its holder has seen. Sequence numbers
start at 1 and have no holes, but the retained events can have holes: one with a shorter ``ttl``
of its own leaves from the middle. Its publisher asked for that, so it is no gap. ``floor`` is
the newest event that left because of a bound of the log: a cursor below it has lost something.

WARNING: not safe for concurrent use, and needs none: one session task owns it, and no method
awaits. Times are seconds on a monotonic clock that the caller reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from broadcasterd.core.cost import check_block_fits, surely_fits
from broadcasterd.core.event import EncodedEvent
from broadcasterd.core.expiries import Expiries
from broadcasterd.core.history import History
from broadcasterd.core.keys import KeyIndex
from broadcasterd.core.position import ById, First, Last, Now, Since, Start
from broadcasterd.core.run import Run
from broadcasterd.core.segment import Entry, Segment
from broadcasterd.core.wire import encode_frame
from broadcasterd.figures.counts import Counts
from broadcasterd.memory.account import Account

Block = bytes  # `bytes` is something else inside the log

_SEQ = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Gap:
    """The news for a client whose starting point is not in the log."""

    asked: str
    oldest: str | None


@dataclass(frozen=True, slots=True)
class Position:
    """The place where a reader starts: after ``cursor``; ``gap`` if it has lost something."""

    cursor: int
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A snapshot: counts, bytes accounted, and the retained ids (``None`` when empty)."""

    events: int
    bytes: int
    oldest_id: str | None
    last_id: str | None
    oldest_at: float | None


class ReplayLog:
    """The retained events of one incarnation of one session.

    Args:
        incarnation: names this log in every id; another log must have another.
        max_events: events retained at most.
        max_bytes: bytes accounted at most.
        max_age: seconds that an event is retained at most.
        account: counts the bytes of all logs together.
        counts: what the daemon counts.

    """

    def __init__(
        self,
        *,
        incarnation: str,
        max_events: int,
        max_bytes: int,
        max_age: float,
        account: Account | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.incarnation = incarnation
        self.floor = 0
        self.floor_at = -inf  # when that event was appended
        self.last = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._history = History(account or Account())
        self._counts = counts or Counts()
        self._keys = KeyIndex()
        self._short_lived = Expiries()  # of events with their own ttl

    def __len__(self) -> int:
        return self._history.count

    @property
    def bytes(self) -> int:
        """The bytes accounted to the retained events."""
        return self._history.bytes

    @property
    def accounted(self) -> int:
        """The same, and what lies around them: what is on the account of all logs for this one."""
        return self._history.accounted

    def statistics(self) -> LogStatistics:
        """Return figures of the retained events."""
        oldest = self.segments[0] if self.segments else None
        return LogStatistics(
            events=len(self),
            bytes=self.bytes,
            oldest_id=None if oldest is None else self.id_of(oldest.first),
            last_id=self.id_of(self.last) if self.last else None,
            oldest_at=None if oldest is None else oldest.first_at,
        )

    def id_of(self, seq: int) -> str:
        """Return the id of an event: the incarnation, and the sequence number in it."""
        return f"{self.incarnation}-{seq}"

    def seq_of(self, event_id: str) -> int | None:
        """Return the sequence number in an id, or ``None`` if this log never gave it."""
        incarnation, _, seq = event_id.rpartition("-")
        if incarnation != self.incarnation or not _SEQ.fullmatch(seq):
            return None
        return int(seq) if int(seq) <= self.last else None

    def duplicate_of(self, key: str | None) -> int | None:
        """Return the retained event that has this idempotency key."""
        if key is None or not self._keys:
            return None
        found = (seq for seq in self._keys.candidates(key) if self._history.key_of(seq) == key)
        return next(found, None)

    def check_fit(self, events: Iterable[EncodedEvent]) -> None:
        """Raise TooLarge if any of some events could never be retained."""
        room = surely_fits(self._max_bytes)
        for event in events:
            if event.key is not None or len(event.block) > room:
                check_block_fits(
                    event.block, ttl=event.ttl, key=event.key, max_bytes=self._max_bytes
                )

    def append(
        self,
        block: Block,
        *,
        now: float,
        ttl: float | None = None,
        key: str | None = None,
        more: bool = False,
    ) -> Entry:
        """Retain a block under the next id, evicting the oldest as the bounds require.

        With ``more``, others follow at once and :meth:`keep_bounds` comes last: nothing is evicted
        before. A block that could never be retained is evicted: ask :meth:`check_fit` before.
        """
        self.last += 1
        entry = self._retain(self.last, encode_frame(self.id_of(self.last), block), now, ttl, key)
        if not more:
            self.keep_bounds(now)
        return entry

    def put(
        self,
        seq: int,
        block: Block,
        *,
        now: float,
        ttl: float | None = None,
        key: str | None = None,
    ) -> Entry:
        """Retain a block under a number that it has already, the highest so far.

        One that does not fit, since the bounds are tighter by now, is evicted at once.
        """
        self.last = seq - 1
        return self.append(block, now=now, ttl=ttl, key=key)

    def keep_bounds(self, now: float) -> None:
        """Evict the oldest events as the bounds require."""
        history = self._history
        if history.count > self._max_events or history.bytes > self._max_bytes:
            self.expire(now)  # expired events make room first: nobody loses them
            self._keep_bounds()

    def since(self, cursor: int, *, max_bytes: int, max_events: int | None = None) -> list[Entry]:
        """Return the retained events after ``cursor``, oldest first.

        There is at least one if any is retained; then as many as stay within ``max_bytes`` of
        frames (and ``max_events``).
        """
        found: list[Entry] = []
        for segment, start, end in self._history.stretches(cursor, max_bytes):
            indexes = range(start, end)
            if max_events is not None:
                indexes = indexes[: max_events - len(found)]
            found += map(segment.entry, indexes)
            if len(found) == max_events:
                break
        return found

    def run_after(self, cursor: int, *, max_bytes: int) -> Run | None:
        """Return what :meth:`since` does, as bytes; ``None`` where there is nothing."""
        stretches = [*self._history.stretches(cursor, max_bytes)]
        return Run(stretches) if stretches else None

    def resolve(self, start: Start) -> Position:
        """Return the position of a reader that asks for ``start``."""
        match start:
            case First():
                return Position(self.floor)
            case Now():
                return Position(self.last)
            case Last(count):
                return Position(self._before(self._history.newest(count)))
            case Since(moment, asked):
                return self._since(moment, asked)
            case ById(event_id):
                seq = self.seq_of(event_id)
                if seq is None or seq < self.floor:
                    return Position(self.floor, self.gap(event_id))
                return Position(seq)

    def renewed(self, position: Position) -> Position:
        """Return a position as it is now: what follows it may have been evicted since."""
        if position.cursor >= self.floor:
            return position
        asked = position.gap.asked if position.gap else self.id_of(position.cursor)
        return Position(self.floor, self.gap(asked))

    def gap(self, asked: str, *, after: int | None = None) -> Gap:
        """Return the gap of a reader that asked for ``asked`` and goes on after a cursor.

        Without a cursor, the reader goes on with all retained events.
        """
        for segment, index, _ in self._history.stretches(self.floor if after is None else after, 0):
            return Gap(asked, self.id_of(segment.seqs[index]))
        return Gap(asked, None)

    def resize(self, *, max_events: int, max_bytes: int, max_age: float) -> None:
        """Set other bounds, and evict the events that exceed them.

        Events that are too old by the new ``max_age`` go with the next :meth:`expire`. An event
        whose own ttl was longer than the old ``max_age`` counts as one without a ttl.
        """
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep_bounds()

    def trim(self, to_bytes: int) -> int:
        """Evict the oldest events until ``to_bytes`` or fewer are left; return how many."""
        before = len(self)
        while self.bytes > to_bytes:
            if self.bytes - self.segments[0].cost >= to_bytes:
                self._evict_segment()
            else:
                self._evict_oldest()
        self._give_back()
        return before - len(self)

    def expire(self, now: float, *, share: float = 1.0) -> int:
        """Drop the events that are too old at ``now``; return how many.

        Where memory is needed, ``share`` of a lifetime counts as all of it.
        """
        history = self._history
        before = history.count
        while self._short_lived.soonest <= now:
            seq = self._short_lived.pop()
            self._forget_key(history.drop(seq), seq)  # it may have been evicted before
        last_too_old = now - self._max_age * share
        segments = history.segments
        while segments and (oldest := segments[0]).times[oldest.head] <= last_too_old:
            if oldest.times[-1] <= last_too_old:
                self._evict_segment()
            else:
                self._evict_oldest()
        if share < 1 or (before and not history.count):
            self._give_back()
        if expired := before - history.count:
            self._counts.expired_events += expired
        return expired

    # Handing over

    @property
    def segments(self) -> Sequence[Segment]:
        """The segments that hold the events, oldest first; each has one at least."""
        return self._history.segments

    def go_on_from(self, *, floor: int, last: int, floor_at: float) -> None:
        """Begin, empty, where another log of this incarnation ended. Call it once, first of all."""
        self.floor, self.last, self.floor_at = floor, last, floor_at

    def adopt(self, segment: Segment) -> None:
        """Retain a copy of a segment of the log that this one goes on from, before any event."""
        copy = self._history.adopt(segment)
        for index, seq in enumerate(copy.seqs):
            if copy.keys is not None and (key := copy.keys[index]) is not None:
                self._keys.put(key, seq)
            if copy.ttls is not None and (ttl := copy.ttls[index]) != inf:
                self._short_lived.push(copy.times[index] + ttl, seq)
        self._keep_bounds()  # they may be tighter now

    def restore(
        self, seq: int, frame: Block, *, appended_at: float, ttl: float | None, key: str | None
    ) -> None:
        """Retain an event of the log that this one goes on from; call it oldest first."""
        self._retain(seq, frame, appended_at, ttl, key)
        self._keep_bounds()  # they may be tighter now

    def _retain(
        self, seq: int, frame: Block, appended_at: float, ttl: float | None, key: str | None
    ) -> Entry:
        if ttl is not None and ttl >= self._max_age:
            ttl = None
        entry = Entry(seq, frame, appended_at, ttl, key)
        if key is not None:
            self._forget_key(key, self.duplicate_of(key))
            self._keys.put(key, seq)
        self._history.add(entry)
        if ttl is not None:
            self._short_lived.push(appended_at + ttl, seq)
        return entry

    def _keep_bounds(self) -> None:
        history = self._history
        while history.count > self._max_events or history.bytes > self._max_bytes:
            excess = history.count - self._max_events
            if excess > 1 and (newest := history.drop_first(excess)) is not None:
                self.floor, self.floor_at = newest
            else:
                self._evict_oldest()
        if len(self._short_lived) > 2 * self._max_events:
            self._prune_short_lived()

    def _prune_short_lived(self) -> None:
        """Forget the short-lived events that were evicted before their time."""
        self._short_lived.keep(lambda seq: seq > self.floor)

    def _since(self, moment: float, asked: str) -> Position:
        if self.floor_at >= moment:  # what came then was evicted
            return Position(self.floor, self.gap(asked))
        return Position(self._before(self._history.since(moment)))

    def _before(self, seq: int | None) -> int:
        return self.last if seq is None else seq - 1

    def _evict_oldest(self) -> None:
        self.floor, self.floor_at, key = self._history.drop_oldest()
        if key is not None:
            self._forget_key(key, self.floor)

    def _evict_segment(self) -> None:
        segment = self._history.drop_oldest_segment()
        if segment.keys is not None:
            for index in segment.following(segment.head):
                self._forget_key(segment.keys[index], segment.seqs[index])
        newest = segment.newest()
        self.floor, self.floor_at = segment.seqs[newest], segment.times[newest]

    def _forget_key(self, key: str | None, seq: int | None) -> None:
        if key is not None and seq is not None:
            self._keys.remove(key, seq)

    def _give_back(self) -> None:
        """Let go of memory that is kept for nothing."""
        self._history.give_back()
        self._prune_short_lived()
        self._keys.compact()
