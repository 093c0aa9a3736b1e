"""A handover as bytes: packed records are unpacked, in segments, and damage is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.handover.format import (
    MAGIC,
    Done,
    EventLeft,
    HandoverError,
    NameEnded,
    Record,
    Segment,
    SessionLeft,
    StreamLeft,
    pack,
    unpack,
)

AT = 1_700_000_000.5

SESSION = SessionLeft("s", "7f3c", 3, 9, 60.0, 1.0, 2.0)
EVENT = EventLeft(9, b"1c\r\ndata: x\nid: 7f3c-9\n\n\r\n", 0.5, 30.0, "key")
STREAM = StreamLeft(4711, "s", "ab12", "127.0.0.1", 9, b"rest", 5.0, 1000, 9, 500)


def unpacked(segments: list[bytearray]) -> list[Record]:
    """Return all records but the heads of segments."""
    records = [record for segment in segments for record in unpack(segment)]
    return [record for record in records if not isinstance(record, Segment)]


texts = st.text(max_size=20)
numbers = st.integers(0, 2**60)
ages = st.floats(0, 1e6)
records = st.one_of(
    st.builds(SessionLeft, texts, texts, numbers, numbers, ages, ages, ages),
    st.builds(
        EventLeft, numbers, st.binary(max_size=200), ages, st.none() | ages, st.none() | texts
    ),
    st.builds(
        StreamLeft,
        numbers,
        texts,
        texts,
        texts,
        numbers,
        st.binary(max_size=50),
        ages,
        numbers,
        numbers,
        numbers,
        st.none() | texts,
        st.none() | texts,
        st.none() | ages,
    ),
    st.builds(NameEnded, texts, ages),
)


@given(st.lists(records, max_size=30), st.integers(1, 2000))
def test_what_is_packed_is_unpacked_whatever_the_size_of_segments(
    left: list[Record], segment_bytes: int
) -> None:
    segments = list(pack(left, handover="h", at=AT, segment_bytes=segment_bytes))

    assert [*left, Done()] == unpacked(segments)
    assert [Segment("h", index, AT) for index in range(len(segments))] == [
        next(unpack(segment)) for segment in segments
    ]


def test_a_segment_ends_with_the_record_that_fills_it() -> None:
    segments = list(pack([EVENT] * 100, handover="h", at=AT, segment_bytes=500))
    sizes = [len(segment) for segment in segments[:-1]]

    assert len(sizes) > 5
    assert all(500 <= size < 700 for size in sizes)


def test_a_record_is_asked_for_only_when_the_segment_before_it_was_taken() -> None:
    asked = 0

    def endless() -> Iterator[Record]:
        nonlocal asked
        while True:
            asked += 1
            yield EVENT

    segments = pack(endless(), handover="h", at=AT, segment_bytes=500)
    next(segments)
    first = asked
    next(segments)

    assert 0 < first < asked < 3 * first


@given(st.integers(0, 10_000))
def test_a_segment_that_was_cut_anywhere_is_refused_or_ends_between_two_records(
    length: int,
) -> None:
    [segment] = pack([SESSION, EVENT, STREAM], handover="h", at=AT)
    cut = segment[: length % len(segment)]
    found: list[Record] = []
    with suppress(HandoverError):
        found.extend(unpack(cut))

    assert Done() not in found


@pytest.mark.parametrize(
    "segment",
    [
        b"",
        b"broadcasterd handover 2\n",
        b"{}",
        MAGIC + b"\x00",
        MAGIC + (5).to_bytes(4) + b"\x91\xa6future",
        MAGIC + (3).to_bytes(4) + b"\xff\xff\xff",
        MAGIC + (2**31).to_bytes(4),
    ],
)
def test_what_is_no_segment_of_this_version_is_refused(segment: bytes) -> None:
    with pytest.raises(HandoverError):
        list(unpack(segment))


def test_a_field_that_a_later_version_adds_is_skipped_and_one_that_is_missing_has_its_default() -> (
    None
):
    later = msgspec.msgpack.encode(["ended", "name", 2.5, "new in the next version"])
    older = msgspec.msgpack.encode(["event", 9, b"frame", 0.5])
    both = b"".join(len(record).to_bytes(4) + record for record in (later, older))

    assert [NameEnded("name", 2.5), EventLeft(9, b"frame", 0.5)] == list(unpack(MAGIC + both))
