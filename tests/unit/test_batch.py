"""A batch: frames joined once for all, and the place of a reader that took a part of them."""

from __future__ import annotations

import pytest

from broadcasterd.broadcast.batch import Batch, Mark
from broadcasterd.core.run import Cut
from broadcasterd.core.segment import Entry
from broadcasterd.core.wire import chunk

BATCH = Batch([Entry(4, b"four", 0.0), Entry(6, b"six", 0.0)], 3)


def test_frames_are_joined() -> None:
    assert (b"foursix", 7, 2, 3, 6) == (
        BATCH.frames,
        BATCH.size,
        BATCH.count,
        BATCH.start,
        BATCH.end,
    )


@pytest.mark.parametrize(
    ("sent", "cursor", "count", "rest"),
    [(1, 4, 1, b"our"), (4, 4, 1, b""), (5, 6, 2, b"ix"), (7, 6, 2, b"")],
)
def test_a_reader_goes_on_where_it_stopped(sent: int, cursor: int, count: int, rest: bytes) -> None:
    assert Cut(cursor, count, memoryview(rest)) == BATCH.cut(sent)


def test_marks_of_batches_that_follow_each_other_are_one_and_count_on() -> None:
    first = Batch([Entry(4, b"four", 0.0)], 3, Mark(3, 10, 100))
    second = Batch([Entry(5, b"five!", 0.0), Entry(6, b"six", 0.0)], 4, first.after)

    assert first.after is second.before
    assert (11, 104) == (first.after.events, first.after.bytes)
    assert (13, 112) == (second.after.events, second.after.bytes)


def test_where_an_event_lies_between_two_batches_nobody_goes_from_one_to_the_next() -> None:
    first = Batch([Entry(4, b"four", 0.0)], 3)
    third = Batch([Entry(6, b"six", 0.0)], 5, first.after)

    assert first.after is not third.before
    assert (5, 1, 4) == (third.before.seq, third.before.events, third.before.bytes)
    assert (2, 7) == (third.after.events, third.after.bytes)


def test_no_reader_takes_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="more than there is"):
        BATCH.cut(8)


def test_without_chunks_it_is_made_once() -> None:
    batch = Batch([Entry(4, chunk(b"four"), 0.0), Entry(6, chunk(b"six"), 0.0)], 3)

    assert (b"foursix", 7, 2, 3, 6, 3) == (
        batch.unchunked.frames,
        batch.unchunked.size,
        batch.unchunked.count,
        batch.unchunked.start,
        batch.unchunked.end,
        batch.unchunked.offered,
    )
    assert batch.unchunked is batch.unchunked
