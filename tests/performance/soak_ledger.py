"""The ledger of the soak: which event has which id, and which events may be missing.

Publishers enter what they were told, subscribers what they saw, and each id has to mean the same
event to all of them. An event with a ttl of its own may be missing where it was due to be gone;
which those are is known for certain only when every publisher has its answer. So what was missed
is noted, and judged by :meth:`Ledger.faults` in the next quiet moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from typing_extensions import override

FORGET_S = 120.0
"""Nobody stays away from a session for so long, and then resumes."""


@dataclass(frozen=True, slots=True)
class Id:
    """The id of an event, taken apart."""

    incarnation: str
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take an id apart."""
        incarnation, _, seq = text.rpartition("-")
        return cls(incarnation, int(seq))

    @override
    def __str__(self) -> str:
        return f"{self.incarnation}-{self.seq}"


@dataclass(slots=True)
class _Incarnation:
    """What is known of one incarnation of a session; times are the soak's own clock."""

    texts: dict[int, int] = field(default_factory=dict)  # hashes: the soak has no need for more
    gone_at: dict[int, float] = field(default_factory=dict)  # of events with a ttl
    newest: int = 0
    touched_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Missed:
    """Events that somebody should have seen; ``last`` of ``None`` means all that there were."""

    who: str
    incarnation: str
    first: int
    last: int | None
    at: float


class Ledger:
    """All events of the last minutes, by id."""

    def __init__(self) -> None:
        self._incarnations: dict[str, _Incarnation] = {}
        self._missed: list[_Missed] = []
        self._faults: list[str] = []

    def enter(
        self, event_id: Id, kind: str, text: str, *, now: float, gone_at: float | None = None
    ) -> None:
        """Note what an id stands for, as a publisher or a subscriber was told."""
        known = self._incarnations.setdefault(event_id.incarnation, _Incarnation())
        known.touched_at = now
        known.newest = max(known.newest, event_id.seq)
        if gone_at is not None:
            known.gone_at[event_id.seq] = gone_at
        meant = hash((kind, text))
        if known.texts.setdefault(event_id.seq, meant) != meant:
            self._faults.append(f"{event_id} is two events; one of them is {kind} {text[:200]!r}")

    def miss(self, who: str, after: Id, before: int | None, *, now: float) -> None:
        """Note that ``who`` saw nothing between two events, or nothing after the first."""
        last = None if before is None else before - 1
        self._missed.append(_Missed(who, after.incarnation, after.seq + 1, last, now))

    def may_be_missing(self, after: Id, before: int, *, now: float) -> bool:
        """Whether all events between these two were due to be gone."""
        missed = _Missed("", after.incarnation, after.seq + 1, before - 1, now)
        return next(self._judge(missed), None) is None

    def faults(self, *, now: float) -> list[str]:
        """Judge what was noted since the last time. Every publisher has to have its answer."""
        for missed in self._missed:
            self._faults.extend(self._judge(missed))
        faults, self._faults, self._missed = self._faults, [], []
        for name, known in tuple(self._incarnations.items()):
            if known.touched_at < now - FORGET_S:
                del self._incarnations[name]
        return faults

    def _judge(self, missed: _Missed) -> Iterator[str]:
        known = self._incarnations.get(missed.incarnation, _Incarnation())
        last = known.newest if missed.last is None else missed.last
        for seq in range(missed.first, last + 1):
            gone_at = known.gone_at.get(seq)
            if gone_at is None or gone_at > missed.at:
                early = "" if gone_at is None else f", {gone_at - missed.at:.2f} s before its time"
                yield f"{missed.who} never got {missed.incarnation}-{seq}{early}"
