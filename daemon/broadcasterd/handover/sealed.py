"""Sealed segments of a log on their way to the next process: as they are, not event by event.

Figures are packed as they are in memory: the next process runs on the same machine.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from broadcasterd.core.keys import GrowingKeyRow
from broadcasterd.core.segment import Segment, Tail
from broadcasterd.handover.format import SEGMENT_BYTES, HandoverError, SealedLeft


def movable(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments of a log, oldest first, that can go as they are.

    All but the tail, or none where they would not fit into one record.
    """
    sealed = [segment for segment in segments if not isinstance(segment, Tail)]
    return sealed if sum(segment.cost for segment in sealed) <= SEGMENT_BYTES else []


def leave(segment: Segment, *, now: float) -> SealedLeft:
    """Return what is left of a segment as a part of a record."""
    if segment.left < segment.size:
        segment = Tail.of(segment, segment.size, is_mapped=False).sealed()
    return SealedLeft(
        frames=memoryview(segment.buffer),
        ends=_packed("I", segment.ends),
        seqs=_packed("Q", segment.seqs),
        ages=_packed("d", [now - at for at in segment.times]),
        ttls=None if segment.ttls is None else _packed("d", segment.ttls),
        keys=None if segment.keys is None else [*segment.keys],
    )


def take(left: SealedLeft, *, now: float) -> Segment:
    """Return the segment that was left, on memory that belongs to the record.

    Raises:
        HandoverError: it is damaged.

    """
    try:
        ends, seqs = array("I", bytes(left.ends)), array("Q", bytes(left.seqs))
        times = array("d", [now - age for age in array("d", bytes(left.ages))])
        ttls = None if left.ttls is None else array("d", bytes(left.ttls))
    except ValueError:
        raise HandoverError("a sealed segment has half a figure") from None
    keys = None if left.keys is None else GrowingKeyRow(left.keys)
    others = [seqs, times, *(part for part in (ttls, keys) if part is not None)]
    if not ends or any(len(part) != len(ends) for part in others):
        raise HandoverError("a sealed segment has not one figure for each event")
    if ends[-1] != len(left.frames) or not (_is_rising(ends) and _is_rising(seqs)):
        raise HandoverError("a sealed segment has figures that belong to another")
    return Segment(left.frames, ends, seqs, times, ttls=ttls, keys=keys)


def _packed(typecode: str, figures: Sequence[int] | Sequence[float]) -> memoryview:
    return memoryview(array(typecode, figures)).cast("B")


def _is_rising(figures: array[int]) -> bool:
    return sorted(set(figures)) == figures.tolist()
