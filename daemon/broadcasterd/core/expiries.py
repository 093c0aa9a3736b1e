"""When events expire that have a ttl of their own: a binary heap in two arrays, soonest first.

``heapq`` would need an object for each, which takes eight times as much and lies between others.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import inf

_NO_MOMENTS, _NO_EVENTS = array("d"), array("Q")
"""Of all who have none: most logs never have any. Nothing is added to them."""


class Expiries:
    """Moments, in seconds, and the numbers of the events that expire then."""

    __slots__ = ("_ats", "_seqs")

    def __init__(self) -> None:
        self._ats = _NO_MOMENTS
        self._seqs = _NO_EVENTS

    def __len__(self) -> int:
        return len(self._ats)

    @property
    def size_bytes(self) -> int:
        """The memory of the items."""
        return 16 * len(self._ats)

    @property
    def soonest(self) -> float:
        """The first moment; infinite if there is none."""
        return self._ats[0] if self._ats else inf

    def push(self, at: float, seq: int) -> None:
        """Add an event that expires at a moment."""
        if not self._ats:
            self._ats, self._seqs = array("d"), array("Q")
        ats, seqs = self._ats, self._seqs
        ats.append(at)
        seqs.append(seq)
        place = len(ats) - 1
        while place and ats[parent := (place - 1) // 2] > at:
            ats[place], seqs[place] = ats[parent], seqs[parent]
            place = parent
        ats[place], seqs[place] = at, seq

    def pop(self) -> int:
        """Remove the event that expires first, and return it."""
        ats, seqs = self._ats, self._seqs
        first, at, seq = seqs[0], ats.pop(), seqs.pop()
        count, place = len(ats), 0
        if not count:
            return seq
        while (child := 2 * place + 1) < count:
            if child + 1 < count and ats[child + 1] < ats[child]:
                child += 1
            if ats[child] >= at:
                break
            ats[place], seqs[place] = ats[child], seqs[child]
            place = child
        ats[place], seqs[place] = at, seq
        return first

    def keep(self, is_wanted: Callable[[int], bool]) -> None:
        """Forget the events that are not wanted any more."""
        if not self._ats:
            return
        wanted = [
            (at, seq) for at, seq in zip(self._ats, self._seqs, strict=True) if is_wanted(seq)
        ]
        wanted.sort()  # sorted, they are a heap
        self._ats = array("d", [at for at, _ in wanted])
        self._seqs = array("Q", [seq for _, seq in wanted])
