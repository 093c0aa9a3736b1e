"""The history of a log: when segments are sealed, mapped, given back and copied."""

from __future__ import annotations

from mmap import PAGESIZE
from typing import Any

import pytest

from broadcasterd.core import history as module
from broadcasterd.core import segment as segment_module
from broadcasterd.core.history import (
    COPIED_SHARE,
    HOLES_SHARE,
    MAX_MAPPINGS,
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    RELEASED_SHARE,
    SHARE,
    SMALL_AGAIN_BYTES,
    SMALL_BYTES,
    History,
)
from broadcasterd.core.segment import LARGE_BYTES, Entry, Tail
from broadcasterd.memory.account import Account


def frame(seq: int, size: int) -> bytes:
    """Return a frame that can be told from others."""
    return (b"%d " % seq * size)[:size]


def filled(count: int, size: int, account: Account | None = None) -> History:
    """Return a history of so many events of so many bytes."""
    history = History(account or Account())
    for seq in range(1, count + 1):
        history.add(Entry(seq, frame(seq, size), float(seq)))
    return history


def check(history: History, first: int, last: int, size: int) -> None:
    """Check that these events are left, and whole."""
    found = [segment.entry(i) for segment in history.segments for i in segment.following(0)]
    assert [Entry(n, frame(n, size), float(n)) for n in range(first, last + 1)] == [
        entry for entry in found if entry.seq >= first
    ]
    assert history.count == last - first + 1


def test_a_small_history_is_one_tail_without_a_mapping() -> None:
    [tail] = filled(SMALL_BYTES // 100, 100).segments

    assert isinstance(tail, Tail)
    assert not tail.is_mapped


def test_a_larger_one_is_one_tail_with_a_mapping() -> None:
    [tail] = filled(SMALL_BYTES // 100 + 1, 100).segments

    assert isinstance(tail, Tail)
    assert tail.is_mapped


def test_segments_are_larger_in_a_larger_history_within_bounds() -> None:
    history = filled(5000, 1000)
    sizes = [segment.size for segment in history.segments]

    assert sizes[:-1] == sorted(sizes[:-1])
    assert MIN_SEGMENT_BYTES - 1000 < sizes[0] <= MIN_SEGMENT_BYTES
    assert MAX_SEGMENT_BYTES - 1000 < sizes[-2] <= MAX_SEGMENT_BYTES
    assert all(segment.is_mapped for segment in history.segments)
    check(history, 1, 5000, 1000)


def test_a_large_frame_has_a_segment_of_its_own() -> None:
    history = filled(10, 100)
    for seq, size in enumerate([LARGE_BYTES + 1, 100, LARGE_BYTES + 1, LARGE_BYTES + 1, 100], 11):
        history.add(Entry(seq, frame(seq, size), float(seq)))

    assert [10, 1, 1, 1, 1, 1] == [len(segment) for segment in history.segments]


@pytest.mark.parametrize("size", [100, 1000])
def test_what_is_left_is_whole_while_the_oldest_go(size: int) -> None:
    count = 300_000 // size
    history = filled(count, size)
    for first in range(2, count):
        history.drop_oldest()
        if first % 97 == 0:
            check(history, first, count, size)


def test_the_moment_of_the_last_event_of_a_segment_is_found_in_that() -> None:
    history = filled(3000, 100)

    assert len(history.segments) > 2
    for segment in history.segments:
        assert history.since(segment.last_at) == segment.last
        assert history.since(segment.last_at + 0.5) in {segment.last + 1, None}


@pytest.mark.parametrize("most", [1, 2, 7, 100, 5000])
def test_many_of_the_oldest_go_together_as_they_would_one_by_one(most: int) -> None:
    account = Account()
    together, one_by_one = filled(3000, 100, account), filled(3000, 100)
    while together.count > most:
        before = together.count
        newest = together.drop_first(most)
        for _ in range(before - together.count):
            seq, at, _ = one_by_one.drop_oldest()

        assert 1 <= before - together.count <= most
        assert (seq, at) == newest
        assert (together.count, together.bytes) == (one_by_one.count, one_by_one.bytes)
        wasted = sum(segment.wasted for segment in together.segments)
        assert wasted <= max(module.WASTED_BYTES, together.bytes // COPIED_SHARE)
    assert together.accounted == account.bytes
    check(together, 3001 - together.count, 3000, 100)


@pytest.mark.parametrize("special", [{"ttl": 5.0}, {"key": "k"}])
def test_those_with_a_ttl_or_a_key_are_not_dropped_together(special: dict[str, Any]) -> None:
    history = filled(3, 100)
    history.add(Entry(4, frame(4, 100), 4.0, **special))

    assert history.drop_first(2) is None
    assert history.count == 4


def test_those_around_a_hole_are_not_dropped_together() -> None:
    history = filled(5, 100)
    history.drop(3)

    assert history.drop_first(2) is None
    assert history.count == 4


@pytest.mark.parametrize("count", [5, 50, 500, 5000])
def test_a_history_that_turns_over_has_little_for_nothing(count: int) -> None:
    history = filled(count, 200)
    for seq in range(count + 1, 3 * count):
        history.add(Entry(seq, frame(seq, 200), float(seq)))
        history.drop_oldest()

        wasted = sum(segment.wasted for segment in history.segments)
        assert wasted <= max(module.WASTED_BYTES, history.bytes // COPIED_SHARE)
    check(history, 2 * count, 3 * count - 1, 200)


def test_events_from_the_middle_leave_little_behind() -> None:
    history = filled(2000, 200)
    at_first = history.bytes
    for seq in range(2, 2000):
        history.drop(seq)

        for segment in history.segments:
            most = max(segment.size // HOLES_SHARE, at_first // RELEASED_SHARE)
            assert segment.wasted <= max(module.WASTED_BYTES, most)
    assert [1, 2000] == [
        segment.seqs[i] for segment in history.segments for i in segment.following(segment.head)
    ]


@pytest.mark.parametrize(
    ("left", "is_small"), [(SMALL_AGAIN_BYTES, True), (SMALL_AGAIN_BYTES + 1, False)]
)
def test_what_is_left_of_a_history_may_be_small_again(left: int, *, is_small: bool) -> None:
    history = History(Account())
    for seq, size in enumerate([PAGESIZE - 1, left], 1):
        history.add(Entry(seq, frame(seq, size), float(seq)))
    assert history.segments[0].is_mapped
    history.drop_oldest()
    [tail] = history.segments

    assert isinstance(tail, Tail)
    assert tail.limit == (SMALL_BYTES if is_small else MIN_SEGMENT_BYTES)
    assert tail.is_mapped is not is_small


def test_the_newest_so_many_begin_with_the_oldest_where_there_are_no_more() -> None:
    history = filled(3, 100)

    assert [None, 3, 1, 1, 1] == [history.newest(count) for count in (0, 1, 3, 4, 100)]
    assert filled(0, 100).newest(1) is None


def test_in_a_large_history_a_little_for_nothing_is_let_be() -> None:
    history = filled(300, 1000)
    oldest, last_sealed = history.segments[0], history.segments[-2]
    for _ in range(5):
        history.drop_oldest()
    assert 0 == oldest.released
    for _ in range(5):
        history.drop_oldest()
    assert 10_000 // PAGESIZE * PAGESIZE == oldest.released
    for seq in range(last_sealed.first + 1, last_sealed.first + 11):
        history.drop(seq)

    assert history.segments[0] is oldest
    assert history.segments[-2] is last_sealed


def test_memory_that_is_needed_is_given_back_by_the_page() -> None:
    history = filled(3000, 200)
    for _ in range(3 * PAGESIZE // 200):
        history.drop_oldest()
    history.give_back()

    assert history.segments[0].wasted < PAGESIZE


def test_there_are_so_many_mappings_at_most_for_all() -> None:
    account = Account()
    account.bytes = MAX_MAPPINGS * MAX_SEGMENT_BYTES  # elsewhere
    history = filled(100, 1000, account)

    assert not any(segment.is_mapped for segment in history.segments)
    check(history, 1, 100, 1000)


def test_without_a_mapping_the_allocator_s_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(segment_module, "mmap", refuse)
    history = filled(1000, 200)

    assert not any(segment.is_mapped for segment in history.segments)
    for first in range(2, 1000):
        history.drop_oldest()
        if first % 97 == 0:
            check(history, first, 1000, 200)


def test_the_bytes_are_on_the_common_account() -> None:
    account = Account()
    account.bytes = 7
    history = filled(1000, 200, account)

    assert account.bytes == 7 + history.accounted
    history.drop(500)
    history.drop_oldest()
    history.drop_oldest_segment()
    assert account.bytes == 7 + history.accounted
    while history.count:
        history.drop_oldest_segment()
    assert (7, 0) == (account.bytes, history.bytes)


def test_an_event_that_is_not_there_has_no_key() -> None:
    history = History(Account())
    for seq, key in enumerate(["key", None, "gone", "other"], 1):
        history.add(Entry(seq, b"x", 1.0, None, key))
    assert "gone" == history.drop(3)

    assert ["key", None, None, "other", None] == [history.key_of(seq) for seq in range(1, 6)]
    assert filled(1, 100).key_of(1) is None


def test_a_history_within_a_small_buffer_fills_it() -> None:
    [tail] = filled(SMALL_BYTES // 128, 128).segments

    assert SMALL_BYTES == tail.size
    assert not tail.is_mapped


def test_a_buffer_that_grows_has_room_for_the_next_frame() -> None:
    history = filled(SMALL_BYTES // 100, 100)
    history.add(Entry(1000, frame(1, LARGE_BYTES), 1000.0))
    [tail] = history.segments

    assert isinstance(tail, Tail)
    assert tail.size == tail.limit


def test_no_segment_has_more_than_its_share_of_the_history_before_it() -> None:
    before = 0
    for segment in filled(2000, 1000).segments:
        assert segment.size <= min(max(MIN_SEGMENT_BYTES, before // SHARE), MAX_SEGMENT_BYTES)
        before += segment.cost


def test_a_frame_that_is_not_large_has_no_segment_of_its_own() -> None:
    history = filled(300, 1000)
    assert isinstance(history.segments[-1], Tail)
    while history.segments[-1].limit - history.segments[-1].size < LARGE_BYTES:
        history.add(Entry(history.count + 1, frame(1, 1000), 1000.0))
    before = len(history.segments)
    history.add(Entry(history.count + 1, frame(1, LARGE_BYTES), 1000.0))
    assert before == len(history.segments)

    for _ in range(20):
        history.add(Entry(history.count + 1, frame(1, LARGE_BYTES), 1000.0))
    assert before + 20 // 2 > len(history.segments)


def test_a_tail_is_sealed_without_a_copy_while_it_may_have_its_mapping() -> None:
    account = Account()
    for elsewhere in (0, MAX_MAPPINGS * MAX_SEGMENT_BYTES):
        history = filled(100, 100, account)
        [tail] = history.segments
        account.bytes += elsewhere
        history.add(Entry(101, frame(101, LARGE_BYTES + 1), 101.0))

        assert tail.is_mapped
        assert history.segments[0].mapping is (None if elsewhere else tail.mapping)


def test_stretches_are_within_the_bytes_together() -> None:
    history = filled(100, 100)
    history.drop(31)
    history.drop(61)

    def read(max_bytes: int) -> list[tuple[int, int]]:
        return [(start, end) for _, start, end in history.stretches(0, max_bytes)]

    assert [(0, 30), (31, 60), (61, 100)] == read(9800)
    assert [(0, 30), (31, 60), (61, 99)] == read(9799)
    assert [(0, 30), (31, 60)] == read(5999)
    assert [(0, 30), (31, 32)] == read(3199) == read(3100)
    assert [(0, 30)] == read(3099)


def test_a_time_when_nothing_came_that_is_left_finds_nothing() -> None:
    history = filled(3, 100)
    history.drop(3)

    assert [1, 2, None] == [history.since(moment) for moment in (1.0, 2.0, 3.0)]
