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
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

from broadcasterd.core.position import ById, First, Last, Now, Since, Start
from broadcasterd.core.wire import encode_frame
from broadcasterd.errors import TooLarge
from broadcasterd.memory.account import Account

ENTRY_OVERHEAD_BYTES = 320
"""The memory of an entry in CPython 3.11 beside the frame's text: the object (88), its two floats
(48), its number (32), the bytes header (33), its dict slot (about 100, with room to grow)."""

KEY_OVERHEAD_BYTES = 100
"""The same for an idempotency key: the string header (up to 76) and its dict slot."""

_ID_ROOM_BYTES = 64
"""The most that the id line and the chunk framing add to a block."""

_SEQ = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One retained event: its frame, shared by all who are sent it, and its times (seconds)."""

    seq: int
    frame: bytes
    appended_at: float
    expires_at: float
    key: str | None

    @property
    def cost(self) -> int:
        """Bytes of memory accounted to this entry."""
        return len(self.frame) + ENTRY_OVERHEAD_BYTES + _key_cost(self.key)


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

    """

    def __init__(
        self,
        *,
        incarnation: str,
        max_events: int,
        max_bytes: int,
        max_age: float,
        account: Account | None = None,
    ) -> None:
        self.incarnation = incarnation
        self._account = account or Account()
        self.floor = 0
        self.floor_at = -inf  # when that event was appended
        self.last = 0
        self.bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._head = 1  # the lowest sequence number that may be retained
        self._entries: dict[int, Entry] = {}
        self._keys: dict[str, int] = {}
        self._short_lived: list[tuple[float, int]] = []  # a heap of events with their own ttl

    def __len__(self) -> int:
        return len(self._entries)

    def statistics(self) -> LogStatistics:
        """Return figures of the retained events."""
        oldest = self._oldest()
        return LogStatistics(
            events=len(self._entries),
            bytes=self.bytes,
            oldest_id=self.id_of(oldest.seq) if oldest else None,
            last_id=self.id_of(self.last) if self.last else None,
            oldest_at=oldest.appended_at if oldest else None,
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
        return None if key is None else self._keys.get(key)

    def check_fits(self, block: bytes, *, key: str | None = None) -> None:
        """Raise TooLarge for a block that could never be retained."""
        check_block_fits(block, key=key, max_bytes=self._max_bytes)

    def append(
        self, block: bytes, *, now: float, ttl: float | None = None, key: str | None = None
    ) -> Entry:
        """Retain a block under the next id, evicting the oldest as the bounds require.

        Raises:
            TooLarge: with its key the block alone is over ``max_bytes``; nothing was changed.

        """
        self.check_fits(block, key=key)
        self.last += 1
        frame = encode_frame(self.id_of(self.last), block)
        entry = self._retain(self.last, frame, appended_at=now, ttl=ttl, key=key)
        if self._over_bounds():
            self.expire(now)  # expired events make room first: nobody loses them
        while self._over_bounds():
            self._evict_oldest()
        return entry

    def since(self, cursor: int, *, max_bytes: int, max_events: int | None = None) -> list[Entry]:
        """Return the retained events after ``cursor``, oldest first.

        There is at least one if any is retained; then as many as stay within ``max_bytes`` of
        frames (and ``max_events``).
        """
        found: list[Entry] = []
        size = 0
        for entry in self._after(max(cursor + 1, self._head)):
            size += len(entry.frame)
            if found and (size > max_bytes or len(found) == max_events):
                break
            found.append(entry)
        return found

    def resolve(self, start: Start) -> Position:
        """Return the position of a reader that asks for ``start``."""
        match start:
            case First():
                return Position(self.floor)
            case Now():
                return Position(self.last)
            case Last(count):
                return Position(self._before(list(self._entries)[-count:] if count else []))
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
        following = self.since(self.floor if after is None else after, max_bytes=0)
        return Gap(asked, self.id_of(following[0].seq) if following else None)

    def resize(self, *, max_events: int, max_bytes: int, max_age: float) -> None:
        """Set other bounds, and evict the events that exceed them.

        Events that are too old by the new ``max_age`` go with the next :meth:`expire`. An event
        whose own ttl was longer than the old ``max_age`` counts as one without a ttl.
        """
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        while self._over_bounds():
            self._evict_oldest()

    def trim(self, to_bytes: int) -> int:
        """Evict the oldest events until ``to_bytes`` or fewer are left; return how many."""
        before = len(self._entries)
        while self._entries and self.bytes > to_bytes:
            self._evict_oldest()
        self._prune_short_lived()
        return self._evicted_since(before)

    def expire(self, now: float, *, share: float = 1.0) -> int:
        """Drop the events that are too old at ``now``; return how many.

        Where memory is needed, ``share`` of a lifetime counts as all of it.
        """
        before = len(self._entries)
        while self._short_lived and self._short_lived[0][0] <= now:
            _, seq = heappop(self._short_lived)
            self._forget(seq)
        max_age = self._max_age * share
        while (oldest := self._oldest()) is not None and oldest.appended_at + max_age <= now:
            self._evict_oldest()
        return self._evicted_since(before)

    # Handing over

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over the retained events, oldest first."""
        return iter(self._entries.values())

    def go_on_from(self, *, floor: int, last: int, floor_at: float) -> None:
        """Begin, empty, where another log of this incarnation ended. Call it once, first of all."""
        self.floor, self.last, self.floor_at = floor, last, floor_at
        self._head = floor + 1

    def restore(
        self, seq: int, frame: bytes, *, appended_at: float, ttl: float | None, key: str | None
    ) -> None:
        """Retain an event of the log that this one goes on from; call it oldest first."""
        self._retain(seq, frame, appended_at=appended_at, ttl=ttl, key=key)
        while self._over_bounds():  # the bounds may be tighter now
            self._evict_oldest()

    def ttl_of(self, entry: Entry) -> float | None:
        """Return an entry's own ttl in seconds; ``None`` if it lives as long as any."""
        lifetime = entry.expires_at - entry.appended_at
        return lifetime if entry.expires_at < entry.appended_at + self._max_age else None

    def _retain(
        self, seq: int, frame: bytes, *, appended_at: float, ttl: float | None, key: str | None
    ) -> Entry:
        lifetime = self._max_age if ttl is None else min(ttl, self._max_age)
        entry = Entry(seq, frame, appended_at, appended_at + lifetime, key)
        self._entries[seq] = entry
        self.bytes += entry.cost
        self._account.bytes += entry.cost
        if key is not None:
            self._keys[key] = seq
        if lifetime < self._max_age:
            self._remember_short_lived(entry)
        return entry

    def _after(self, first: int) -> Iterator[Entry]:
        if self.last - first < len(self._entries):
            for seq in range(first, self.last + 1):
                if (entry := self._entries.get(seq)) is not None:
                    yield entry
        else:  # mostly holes, maybe millions: look at the entries instead
            yield from (entry for seq, entry in self._entries.items() if seq >= first)

    def _over_bounds(self) -> bool:
        return len(self._entries) > self._max_events or self.bytes > self._max_bytes

    def _remember_short_lived(self, entry: Entry) -> None:
        heappush(self._short_lived, (entry.expires_at, entry.seq))
        if len(self._short_lived) > 2 * self._max_events:
            self._prune_short_lived()

    def _prune_short_lived(self) -> None:
        """Forget the short-lived events that were evicted before their time."""
        self._short_lived = [item for item in self._short_lived if item[1] in self._entries]
        heapify(self._short_lived)

    def _evicted_since(self, before: int) -> int:
        """Return how many events were evicted; give an empty log's tables back."""
        if before and not self._entries:
            self._entries, self._keys, self._short_lived = {}, {}, []  # emptied ones keep memory
        return before - len(self._entries)

    def _since(self, moment: float, asked: str) -> Position:
        if self.floor_at >= moment:  # what came then was evicted
            return Position(self.floor, self.gap(asked))
        newer = [e.seq for e in self._entries.values() if e.appended_at >= moment]
        return Position(self._before(newer))

    def _before(self, seqs: list[int]) -> int:
        return seqs[0] - 1 if seqs else self.last

    def _oldest(self) -> Entry | None:
        if not self._entries:
            return None
        while self._head not in self._entries:
            self._head += 1
        return self._entries[self._head]

    def _evict_oldest(self) -> None:
        oldest = self._oldest()
        assert oldest is not None  # noqa: S101 (an empty log is within every bound)
        self._forget(oldest.seq)
        self.floor, self.floor_at = oldest.seq, oldest.appended_at
        self._head = oldest.seq + 1

    def _forget(self, seq: int) -> None:
        entry = self._entries.pop(seq, None)
        if entry is None:
            return  # evicted before its ttl ended
        self.bytes -= entry.cost
        self._account.bytes -= entry.cost
        if entry.key is not None and self._keys.get(entry.key) == seq:
            del self._keys[entry.key]


def _key_cost(key: str | None) -> int:
    # The most: one wide character makes the whole text wide.
    if key is None:
        return 0
    return KEY_OVERHEAD_BYTES + len(key) * (1 if key.isascii() else 4)


def check_block_fits(block: bytes, *, max_bytes: int, key: str | None = None) -> None:
    """Raise TooLarge for a block that, with its key, no log of ``max_bytes`` could retain."""
    if len(block) + _ID_ROOM_BYTES + ENTRY_OVERHEAD_BYTES + _key_cost(key) > max_bytes:
        msg = (
            f"an event of {len(block)} bytes does not fit into what a session retains "
            f"(sessions.max_history_bytes is {max_bytes})"
        )
        raise TooLarge(msg)
