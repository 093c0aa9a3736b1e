"""A segment: events are read, dropped and copied, with their ttls and keys, in any memory."""

from __future__ import annotations

from mmap import PAGESIZE

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.core import segment as module
from broadcasterd.core.segment import Entry, Segment, Tail

KEYS = st.none() | st.text("aé", min_size=1, max_size=40)
TTLS = st.none() | st.floats(1, 100)
LISTED = st.lists(st.tuples(st.binary(min_size=1, max_size=60), TTLS, KEYS), min_size=1)
MAPPED = st.booleans()


def tail_of(entries: list[Entry], *, is_mapped: bool, room: int = 0) -> Tail:
    tail = Tail(max(room, sum(len(entry.frame) for entry in entries)), is_mapped=is_mapped)
    for entry in entries:
        assert tail.add(entry) == entry.cost
    return tail


def listed(figures: list[tuple[bytes, float | None, str | None]]) -> list[Entry]:
    """Return entries whose numbers have gaps, as where some were dropped before."""
    return [
        Entry(2 * n + 10, frame, float(n), ttl, key) for n, (frame, ttl, key) in enumerate(figures)
    ]


def left_in(segment: Segment) -> list[Entry]:
    return [segment.entry(index) for index in segment.following(segment.head)]


@given(LISTED, MAPPED)
def test_what_was_added_is_there_sealed_or_not(
    figures: list[tuple[bytes, float | None, str | None]],
    is_mapped: bool,  # noqa: FBT001 (hypothesis passes it)
) -> None:
    entries = listed(figures)
    tail = tail_of(entries, is_mapped=is_mapped)

    for segment in (tail, tail.sealed()):
        assert left_in(segment) == entries
        assert segment.cost == sum(entry.cost for entry in entries)
        assert (len(segment), segment.first, segment.last) == (
            len(entries), entries[0].seq, entries[-1].seq,
        )  # fmt: skip
        assert bytes(segment.read(0, len(entries))) == b"".join(e.frame for e in entries)


@given(LISTED, MAPPED, st.data())
def test_what_was_dropped_is_in_no_copy(
    figures: list[tuple[bytes, float | None, str | None]],
    is_mapped: bool,  # noqa: FBT001 (hypothesis passes it)
    data: st.DataObject,
) -> None:
    entries = listed(figures)
    segment: Segment = tail_of(entries, is_mapped=is_mapped)
    if data.draw(st.booleans(), "sealed"):
        assert isinstance(segment, Tail)
        segment = segment.sealed()
    indexes = st.sampled_from(range(len(entries)))
    gone = data.draw(st.lists(indexes, max_size=len(entries) - 1, unique=True))
    for index in gone:
        assert segment.drop(index) == entries[index].cost
        assert segment.find(entries[index].seq) is None

    left = [entry for index, entry in enumerate(entries) if index not in gone]
    copy = Tail.of(segment, segment.left, is_mapped=not is_mapped)
    for found in (segment, copy, copy.sealed()):
        assert left_in(found) == left
        assert found.cost == sum(entry.cost for entry in left)
    assert segment.left == copy.size == sum(len(entry.frame) for entry in left)


def test_stretches_end_where_something_was_dropped_or_bytes_do() -> None:
    segment = tail_of([Entry(n, b"x" * 10, 0.0) for n in range(1, 11)], is_mapped=False)
    segment.drop(4)

    assert segment.stretch(0, 1000) == 4
    assert segment.stretch(0, 25) == 2
    assert segment.stretch(5, 0) == 6, "one at least"
    assert (segment.after(4), segment.after(5), segment.after(10)) == (5, 5, 10)
    assert segment.came_at(1.0) == 10


@pytest.mark.parametrize("is_mapped", [True, False])
def test_pages_before_the_first_event_are_given_back(*, is_mapped: bool) -> None:
    entries = [Entry(n, b"%d" % n * PAGESIZE, 0.0) for n in range(1, 5)]
    segment = tail_of(entries, is_mapped=is_mapped).sealed()
    for index in range(3):
        segment.drop(index)
        segment.release()

    assert (segment.released, segment.wasted) == (
        (3 * PAGESIZE, 0) if is_mapped else (0, 3 * PAGESIZE)
    )
    assert segment.left == PAGESIZE
    assert left_in(segment) == entries[3:]


@pytest.mark.parametrize("count", [7, 8])
@pytest.mark.parametrize("size", [8, 13])
def test_figures_are_sealed_into_the_mapping_as_far_as_they_fit(
    monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(module, "_SHARE_OF_FIGURES", 1 << 40)  # no more room than is asked for
    entries = [Entry(n, b"x" * size, float(n), 1.0, "ten octets") for n in range(count)]
    frames = -(-count * size // 8) * 8  # aligned
    figures = frames + (8 + 4) * count
    ttls = figures + 4 * (count % 2) + 8 * count
    keys = ttls + (4 + 10) * count

    def placed(room: int) -> list[bool]:
        sealed = tail_of(entries, is_mapped=True, room=room).sealed()
        assert left_in(sealed) == entries
        assert sealed.keys is not None
        rows = (sealed.times, sealed.ends, sealed.ttls, sealed.keys.ends)
        return [isinstance(row, memoryview) for row in rows]

    assert [False, False, True, False] == placed(figures - 1)
    assert [True, True, False, False] == placed(figures) == placed(ttls - 1)
    assert [True, True, True, False] == placed(ttls) == placed(keys - 1)
    assert [True, True, True, True] == placed(keys)


@given(LISTED, MAPPED)
def test_what_a_segment_costs_is_what_its_events_do(
    figures: list[tuple[bytes, float | None, str | None]],
    is_mapped: bool,  # noqa: FBT001 (hypothesis passes it)
) -> None:
    sealed = tail_of(listed(figures), is_mapped=is_mapped).sealed()
    same = Segment(
        memoryview(sealed.buffer),
        sealed.ends,
        sealed.seqs,
        sealed.times,
        ttls=sealed.ttls,
        keys=sealed.keys,
    )

    assert (same.cost, same.size) == (sealed.cost, sealed.size)


def test_numbers_without_gaps_take_no_memory() -> None:
    entries = [Entry(n, b"x", 0.0) for n in range(3, 7)]

    assert range(3, 7) == tail_of(entries, is_mapped=True).sealed().seqs


@pytest.mark.parametrize("is_mapped", [True, False])
def test_what_was_read_is_good_while_a_tail_grows(*, is_mapped: bool) -> None:
    tail = tail_of([Entry(1, b"a", 0.0)], is_mapped=is_mapped, room=10)
    read = tail.read(0, 1)
    tail.add(Entry(2, b"b", 0.0))

    assert (b"a", b"ab") == (bytes(read), bytes(tail.read(0, 2)))
    assert is_mapped is isinstance(read, memoryview), "a mapping is not copied"


def test_the_newest_is_the_last_that_is_left() -> None:
    segment = tail_of([Entry(n, b"x", 0.0) for n in range(1, 5)], is_mapped=False)

    assert 3 == segment.newest()
    segment.drop(1)
    assert 3 == segment.newest()
    segment.drop(3)
    assert 2 == segment.newest()


def test_what_is_not_here_is_not_found() -> None:
    segment = tail_of([Entry(n, b"x", 0.0) for n in (1, 3, 5)], is_mapped=False)
    segment.drop(0)

    assert [None, None, 1, None, 2, None] == [segment.find(seq) for seq in (1, 2, 3, 4, 5, 6)]
    segment.drop(2)
    assert segment.find(5) is None
