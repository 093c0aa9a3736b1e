"""A run: what a reader is sent, and the place of one that took a part of it."""

from __future__ import annotations

import pytest

from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.run import Cut, Run, UnchunkedRun
from broadcasterd.core.segment import LARGE_BYTES, Entry, Tail

ALL = 1 << 40


def run_of(*sizes: int) -> Run:
    """Return a run of events with so many bytes."""
    log = ReplayLog(incarnation="7f3c", max_events=10**6, max_bytes=ALL, max_age=60)
    for size in sizes:
        log.append(b"x" * size, now=0.0)
    run = log.run_after(0, max_bytes=ALL)
    assert run is not None
    return run


def test_events_of_one_sealed_segment_are_a_slice_of_it() -> None:
    log = ReplayLog(incarnation="7f3c", max_events=10**6, max_bytes=ALL, max_age=60)
    for _ in range(2000):
        log.append(b"x" * 1000, now=0.0)
    run = log.run_after(1000, max_bytes=10_000)

    assert run is not None
    assert isinstance(run.frames, memoryview)
    assert any(run.frames.obj is segment.mapping for segment in log.segments)


def tail(*events: tuple[int, bytes]) -> Tail:
    """Return a segment of these events, by number and frame."""
    segment = Tail(4 * LARGE_BYTES, is_mapped=False)
    for seq, frame in events:
        segment.add(Entry(seq, frame, 0.0))
    return segment


def test_a_reader_goes_on_at_the_very_byte_in_whatever_segment_that_is() -> None:
    first = tail((1, b"a"), (2, b"bb"), (4, b"ccc"), (5, b"dddd"), (6, b"e"))
    second = tail((7, b"ff"), (8, b"ggggg"), (9, b"hh"), (10, b"i"))
    events = [(4, b"ccc"), (5, b"dddd"), (8, b"ggggg"), (9, b"hh")]
    run = Run([(first, 2, 4), (second, 1, 3)])

    assert b"cccddddggggghh" == run.frames
    assert (4, 9) == (run.count, run.end)

    sent = 0
    for count, (seq, frame) in enumerate(events, start=1):
        for taken in range(1, len(frame) + 1):
            assert Cut(seq, count, memoryview(frame[taken:])) == run.cut(sent + taken)
        sent += len(frame)


def test_the_rest_of_a_frame_that_is_just_not_large_is_a_copy() -> None:
    rest = Run([(tail((1, b"x" * LARGE_BYTES)), 0, 1)]).cut(1).rest

    assert b"x" * (LARGE_BYTES - 1) == rest.obj


def test_a_reader_that_took_all_has_no_rest() -> None:
    run = run_of(10, 10)

    assert Cut(2, 2, memoryview(b"")) == run.cut(len(run.frames))


def test_the_rest_of_a_frame_is_a_copy() -> None:
    rest = run_of(10, 1000).cut(500).rest

    assert isinstance(rest.obj, bytes)
    assert len(rest) == len(rest.obj)


def test_the_rest_of_a_large_frame_is_there_once_for_all() -> None:
    run = run_of(10, 2 * LARGE_BYTES)

    assert run.cut(500).rest.obj is run.cut(600).rest.obj


def test_no_reader_takes_more_than_there_is() -> None:
    run = run_of(10)

    with pytest.raises(ValueError, match="more than there is"):
        run.cut(len(run.frames) + 1)


# --- without chunks ------------------------------------------------------------------------------


def test_without_chunks_a_reader_gets_what_is_in_them() -> None:
    run = UnchunkedRun(run_of(3, 5))

    assert b"xx\nid: 7f3c-1\n\nxxxx\nid: 7f3c-2\n\n".replace(b"\nid", b"id") == run.frames
    assert (2, 2) == (run.count, run.end)


def test_without_chunks_a_reader_goes_on_at_the_very_byte() -> None:
    run = UnchunkedRun(run_of(10, 2 * LARGE_BYTES, 10))
    size = len(run.frames)
    first = run.frames.index(b"\n\n") + 2
    second = first + run.frames[first:].index(b"\n\n") + 2

    for sent in (*range(1, 60), second - 1, second, second + 1, size - 1, size):
        cut = run.cut(sent)
        count = 1 + (sent > first) + (sent > second)
        end = [first, second, size][count - 1]

        assert (count, count) == (cut.cursor, cut.count)
        assert run.frames[sent:end] == cut.rest


def test_without_chunks_the_rest_of_a_large_frame_is_there_once_for_all() -> None:
    run = UnchunkedRun(run_of(10, 2 * LARGE_BYTES))

    assert run.cut(500).rest.obj is run.cut(600).rest.obj


def test_without_chunks_no_reader_takes_more_than_there_is() -> None:
    run = UnchunkedRun(run_of(10))

    with pytest.raises(ValueError, match="more than there is"):
        run.cut(len(run.frames) + 1)
