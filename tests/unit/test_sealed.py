"""Sealed segments on their way to the next process: whole, or refused."""

from __future__ import annotations

from array import array

import pytest

from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.segment import Segment
from broadcasterd.handover import sealed
from broadcasterd.handover.format import SEGMENT_BYTES, HandoverError, SealedLeft


def log_of(count: int, size: int) -> ReplayLog:
    """Return a log of so many events with so many bytes."""
    log = ReplayLog(incarnation="7f3c", max_events=10**6, max_bytes=1 << 40, max_age=60)
    for number in range(count):
        log.append(b"x" * size, now=float(number))
    return log


def entries(segment: Segment) -> list[object]:
    """Return what is left of a segment."""
    return [*map(segment.entry, segment.following(segment.head))]


def test_all_but_the_tail_can_go_as_they_are() -> None:
    log = log_of(500, 200)

    assert list(log.segments[:-1]) == sealed.movable(log.segments)


def test_what_fits_into_no_record_goes_event_by_event() -> None:
    log = log_of(SEGMENT_BYTES // 10_000 + 100, 10_000)

    assert [] == sealed.movable(log.segments)


def test_a_segment_arrives_as_it_left_but_by_another_clock() -> None:
    segment = log_of(500, 200).segments[0]
    left = sealed.leave(segment, now=1000.0)
    there = sealed.take(left, now=1000.0)

    assert entries(segment) == entries(there)
    assert [at + 500 for at in segment.times] == list(sealed.take(left, now=1500.0).times)


def test_events_that_were_dropped_stay_behind() -> None:
    segment = log_of(500, 200).segments[0]
    for index in (0, 1, 5, 7):
        segment.drop(index)
    left = sealed.leave(segment, now=1000.0)

    assert entries(segment) == entries(sealed.take(left, now=1000.0))
    assert len(left.frames) == segment.left


@pytest.mark.parametrize(
    "damage",
    [
        {"ends": memoryview(b"123")},
        {"ends": memoryview(b"")},
        {"seqs": memoryview(bytes(16))},
        {"ages": memoryview(bytes(8))},
        {"frames": memoryview(b"short")},
        {"ttls": memoryview(bytes(8))},
        {"keys": ["one"]},
        {"seqs": memoryview(array("Q", [3, 2, 1])).cast("B")},
    ],
    ids=[
        "half an end",
        "no end",
        "fewer numbers",
        "fewer ages",
        "cut",
        "fewer ttls",
        "fewer keys",
        "disorder",
    ],
)
def test_a_damaged_one_is_refused(damage: dict[str, object]) -> None:
    [tail] = log_of(3, 10).segments
    whole = sealed.leave(tail, now=0.0)
    assert entries(tail) == entries(sealed.take(whole, now=0.0))
    fields = {name: getattr(whole, name) for name in SealedLeft.__struct_fields__}

    with pytest.raises(HandoverError):
        sealed.take(SealedLeft(**{**fields, **damage}), now=0.0)
