"""Frames of HTTP/2: cut into pieces of a few, and counted by the second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.server.http2_frames import (
    CONTROL_FRAMES_PER_S,
    FRAMES_IN_A_ROW,
    PREFACE,
    RESETS_PER_S,
    Batches,
    Calm,
    Frames,
)


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def frame(size: int, kind: int = 0) -> bytes:
    return size.to_bytes(3, "big") + bytes((kind,)) + b"\0" * 5 + b"x" * size


@given(st.lists(st.integers(0, 50), max_size=100), st.lists(st.integers(1, 400), min_size=1))
def test_pieces_are_what_came_and_have_a_few_frames_each(
    sizes: list[int], arrivals: list[int]
) -> None:
    whole = PREFACE + b"".join(map(frame, sizes))
    batches, at = Batches(), 0
    pieces: list[bytes] = []
    while at < len(whole):
        for size in arrivals:
            pieces += batches.cut(whole[at : at + size])
            at += size

    ends, position = {len(PREFACE)}, len(PREFACE)
    for size in sizes:
        position += 9 + size
        ends.add(position)
    assert whole == b"".join(pieces)
    start = 0
    for piece in pieces:
        end = start + len(piece)
        assert len([at for at in ends if start < at <= end]) <= FRAMES_IN_A_ROW
        start = end


@given(st.lists(st.sampled_from([0, 1, 3, 8]), max_size=RESETS_PER_S), st.integers(1, 100))
def test_resets_are_known_as_soon_as_their_heads_are_there(kinds: list[int], size: int) -> None:
    whole = PREFACE + b"".join(frame(4, kind) for kind in kinds)
    batches = Batches()
    for at in range(0, len(whole), size):
        batches.cut(whole[at : at + size])

    assert kinds.count(3) == batches.resets


def test_resets_are_counted_by_the_second() -> None:
    clock, frames = Clock(), Frames()
    calm = Calm(frames, clock)
    frames.resets = RESETS_PER_S
    assert calm.is_kept()
    frames.resets = 1
    assert not calm.is_kept()

    clock.now += 1
    frames.resets = RESETS_PER_S

    assert calm.is_kept()


def test_more_resets_at_once_than_in_a_second_are_too_many() -> None:
    frames = Frames()
    frames.resets = RESETS_PER_S + 1

    assert not Calm(frames, Clock()).is_kept()


def test_control_frames_are_counted_but_for_those_that_answer_data() -> None:
    frames = Frames()
    calm = Calm(frames, Clock())
    for _ in range(1000):
        calm.data_sent()
    frames.controls = 2000 + 2 * CONTROL_FRAMES_PER_S
    assert calm.is_kept()
    frames.controls = 1

    assert not calm.is_kept()
