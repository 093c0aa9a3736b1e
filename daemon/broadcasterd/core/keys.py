"""The idempotency keys of a log, without an object for each: texts in a row, and an index of them.

An object of its own for each key would take five times its bytes, and lie between those of other
logs: when it is gone, no page is free.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence


class KeyRow:
    """The keys of a row of events, some of which have none.

    Args:
        text: they, end to end, in UTF-8.
        ends: where each ends; one that is empty is none.

    """

    __slots__ = ("ends", "text")

    def __init__(self, text: bytearray | memoryview, ends: Sequence[int]) -> None:
        self.text = text
        self.ends = ends

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str | None:
        """Return the key of an event; ``None`` if it has none."""
        start = self.ends[index - 1] if index else 0
        return bytes(self.text[start : self.ends[index]]).decode() or None

    def __iter__(self) -> Iterator[str | None]:
        return map(self.__getitem__, range(len(self)))

    @property
    def size_bytes(self) -> int:
        """The memory of its text and figures."""
        return 4 * len(self.ends) + len(self.text)


class GrowingKeyRow(KeyRow):
    """The same, which grows at its end."""

    __slots__ = ()

    ends: array[int]
    text: bytearray

    def __init__(self, keys: Iterable[str | None] = ()) -> None:
        super().__init__(bytearray(), array("I"))
        self.extend(keys)

    def append(self, key: str | None) -> None:
        """Add an event and its key."""
        if key is not None:
            self.text += key.encode()
        self.ends.append(len(self.text))

    def extend(self, keys: Iterable[str | None]) -> None:
        """Add events and their keys."""
        for key in keys:
            self.append(key)

    def placed(self, room: memoryview) -> KeyRow:
        """Return a copy at the beginning of some room."""
        figures = 4 * len(self.ends)
        ends, text = room[:figures], room[figures : self.size_bytes]
        ends[:] = memoryview(self.ends).cast("B")
        text[:] = self.text
        return KeyRow(text, ends.cast("I"))


_SEQ_BITS = 40
_SEQS = (1 << _SEQ_BITS) - 1
_MARKS = (1 << 24) - 1
_SMALLEST = 8
_NO_SLOTS = array("Q")
"""Of all indexes without a key: most logs never have any. Nothing is added to it."""


class KeyIndex:
    """Where the keys are: a hash table with linear probing, in one array.

    A slot has a mark of the key, 24 bits of its hash, above the number of the event. So an event
    that is found may have another key: whoever looks for one compares.
    """

    __slots__ = ("_count", "_slots")

    def __init__(self) -> None:
        self._slots = _NO_SLOTS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """The memory of the table."""
        return self._slots.itemsize * len(self._slots)

    def candidates(self, key: str) -> Iterator[int]:
        """Iterate over the numbers of the events that may have a key; change nothing meanwhile."""
        mark = hash(key) & _MARKS
        for place in self._probe(mark):
            if self._slots[place] >> _SEQ_BITS == mark:
                yield self._slots[place] & _SEQS

    def put(self, key: str, seq: int) -> None:
        """Add the key of an event."""
        if 3 * (self._count + 1) > 2 * len(self._slots):
            self._rebuild()
        self._insert((hash(key) & _MARKS) << _SEQ_BITS | seq)
        self._count += 1

    def remove(self, key: str, seq: int) -> None:
        """Remove the key of an event, if it is there."""
        slots, mark = self._slots, hash(key) & _MARKS
        item = mark << _SEQ_BITS | seq
        hole = next((place for place in self._probe(mark) if slots[place] == item), None)
        if hole is None:
            return
        self._count -= 1
        last = len(slots) - 1
        place = hole
        while following := slots[place := (place + 1) & last]:
            # What was pushed beyond the hole moves into it, or it would not be found.
            if (place - (following >> _SEQ_BITS)) & last >= (place - hole) & last:
                slots[hole], hole = following, place
        slots[hole] = 0

    def compact(self) -> None:
        """Let go of the room for more."""
        if self._count:
            self._rebuild()
        else:
            self._slots = _NO_SLOTS

    def _probe(self, mark: int) -> Iterator[int]:
        """Iterate over the places where a mark may be: as far as they are taken."""
        slots, last = self._slots, len(self._slots) - 1
        place = mark & last
        while slots and slots[place]:
            yield place
            place = (place + 1) & last

    def _insert(self, item: int) -> None:
        slots, last = self._slots, len(self._slots) - 1
        place = item >> _SEQ_BITS & last
        while slots[place]:
            place = (place + 1) & last
        slots[place] = item

    def _rebuild(self) -> None:
        """Have room for half as many more at least, and for three times as many at the most."""
        before, size = self._slots, _SMALLEST
        while size < 2 * self._count:
            size *= 2
        self._slots = array("Q", bytes(8 * size))
        for item in before:
            if item:
                self._insert(item)
