"""The tally: exact, and without an entry for a key that has none."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.access.tally import Tally


def test_what_is_added_and_removed_is_counted_by_key() -> None:
    tally = Tally()
    assert [1, 2, 1] == [tally.add("a"), tally.add("a"), tally.add("b")]
    tally.remove("a")

    assert (1, 1, 0) == (tally["a"], tally["b"], tally["c"])


def test_nobody_is_not_counted() -> None:
    tally = Tally()
    assert 0 == tally.add(None)
    tally.remove(None)

    assert (0, 0) == (tally[None], len(tally))


def test_what_was_never_added_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        Tally().remove("a")


@given(st.lists(st.sampled_from("abc")))
def test_only_those_who_have_something_take_room(keys: list[str]) -> None:
    tally, left = Tally(), Counter(keys)
    for key in keys:
        tally.add(key)
    for key in keys:
        tally.remove(key)
        left[key] -= 1
        assert [left[k] for k in "abc"] == [tally[k] for k in "abc"]
        assert len(+left) == len(tally)
