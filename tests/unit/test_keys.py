"""Idempotency keys without an object for each: found again, and only by what has them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.core.keys import GrowingKeyRow, KeyIndex

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
keys = st.none() | texts


@given(st.lists(keys))
def test_a_row_tells_the_key_of_each_event(row: list[str | None]) -> None:
    growing = GrowingKeyRow(row)
    placed = growing.placed(memoryview(bytearray(growing.size_bytes + 3)))

    for found in (growing, placed):
        assert [*found] == row
        assert len(found) == len(row)
        assert found.size_bytes == growing.size_bytes


@given(st.lists(st.tuples(st.sampled_from(["put", "remove", "compact"]), st.integers(0, 15))))
def test_an_index_does_what_a_dictionary_does(steps: list[tuple[str, int]]) -> None:
    """With few keys, of which some share a place: what lies behind a removed one is found."""
    index, model = KeyIndex(), dict[int, str]()
    for seq, (step, number) in enumerate(steps, start=1):
        key = f"key {number}"
        match step:
            case "put":
                index.put(key, seq)
                model[seq] = key
            case "remove" if key in model.values():
                oldest = next(seq for seq, found in model.items() if found == key)
                index.remove(key, oldest)
                del model[oldest]
            case "remove":
                index.remove(key, seq)  # it is not there
            case "compact":
                index.compact()
        assert len(index) == len(model)
        for one in {f"key {n}" for n in range(16)}:
            found = {seq for seq in index.candidates(one) if model[seq] == one}
            assert found == {seq for seq, key in model.items() if key == one}


def test_an_index_has_room_for_half_as_many_more_to_three_times_as_many() -> None:
    index = KeyIndex()
    assert index.size_bytes == 0
    for seq in range(1, 1001):
        index.put(f"key {seq}", seq)
        assert 1.5 * 8 * seq <= index.size_bytes <= max(64, 3 * 8 * seq)
    for seq in range(1, 997):
        index.remove(f"key {seq}", seq)
    index.compact()

    assert (index.size_bytes, [*index.candidates("key 1000")]) == (64, [1000])
    for seq in range(997, 1001):
        index.remove(f"key {seq}", seq)
    index.compact()
    assert index.size_bytes == 0
