"""Fair shares: who holds more than the others pays first, and no more than is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.shares import dues

holdings = st.dictionaries(st.text(max_size=3), st.integers(0, 1000), max_size=12)
amounts = st.integers(1, 5000)


def test_a_hoarder_pays_all_of_it() -> None:
    assert dues({"alice": 10, "bob": 20, "mallory": 400}, 100) == {"mallory": 100}


def test_two_hoarders_are_cut_down_to_the_same() -> None:
    assert dues({"alice": 10, "mallory": 400, "mallet": 300}, 200) == {"mallory": 150, "mallet": 50}


def test_what_one_does_not_need_others_may_have() -> None:
    """Many who hold next to nothing make nobody a hoarder who holds as much as the others."""
    small = {f"small-{n}": 1 for n in range(1000)}

    assert dues({**small, "bob": 100, "carol": 100, "mallory": 400}, 200) == {"mallory": 200}


def test_among_equals_there_is_none_to_pay_first() -> None:
    assert dues({"alice": 100, "bob": 100}, 50) == {}
    assert dues({"alice": 100}, 50) == {}
    assert dues({}, 50) == {}


def test_where_nothing_may_stay_those_above_the_average_give_all() -> None:
    assert dues({"alice": 100, "mallory": 300}, 1000) == {"mallory": 300}


@given(holdings, amounts)
def test_nobody_pays_who_holds_no_more_than_the_average(held: dict[str, int], to_free: int) -> None:
    average = sum(held.values()) / max(len(held), 1)

    assert all(held[holder] > average for holder in dues(held, to_free))


@given(holdings, amounts)
def test_all_who_pay_keep_the_same_and_nobody_who_pays_nothing_keeps_more(
    held: dict[str, int], to_free: int
) -> None:
    due = dues(held, to_free)
    average = sum(held.values()) / max(len(held), 1)
    left = {held[holder] - due[holder] for holder in due}

    assert len(left) <= 1
    for share in left:
        assert share >= 0
        assert all(
            size <= max(share, average) for holder, size in held.items() if holder not in due
        )


@given(holdings, amounts)
def test_no_more_is_due_than_is_needed(held: dict[str, int], to_free: int) -> None:
    due = dues(held, to_free)

    assert sum(due.values()) < to_free + len(held)  # the share is a whole number


def test_a_holder_of_just_the_fair_share_pays_nothing() -> None:
    assert {"a": 2} == dues({"a": 10, "b": 8, "c": 0}, 2)


def test_where_all_is_to_be_freed_the_largest_pays_all_that_it_has() -> None:
    assert {"a": 5} == dues({"a": 5, "b": 0}, 10)
