"""The account: bytes taken are counted, and all of them are returned, whatever happens."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.memory.account import Account, Holding


def test_what_is_taken_counts_while_it_is_held() -> None:
    account = Account()
    with account.holding() as held:
        held.take(10)
        held.take(5)

        assert 15 == held.bytes == account.bytes

    assert 0 == account.bytes


def test_holders_are_counted_together_and_return_their_own() -> None:
    account = Account()
    with account.holding() as one:
        one.take(10)
        with account.holding() as other:
            other.take(100)

            assert (10, 100, 110) == (one.bytes, other.bytes, account.bytes)

        assert 10 == account.bytes

    assert 0 == account.bytes


def test_an_error_returns_what_was_taken() -> None:
    account = Account()

    def fail_with_something_taken() -> None:
        with account.holding() as held:
            held.take(10)
            raise ValueError("too much")

    with pytest.raises(ValueError, match="too much"):
        fail_with_something_taken()

    assert 0 == account.bytes


def test_what_others_count_directly_stays() -> None:
    account = Account()
    with account.holding() as held:
        held.take(10)
        account.bytes += 7

    assert 7 == account.bytes


@given(st.lists(st.tuples(st.sampled_from(["come", "take", "go"]), st.integers(0, 9))))
def test_the_account_is_the_sum_of_its_holders(steps: list[tuple[str, int]]) -> None:
    account = Account()
    there: list[tuple[ExitStack, Holding]] = []
    for action, number in steps:
        if action == "come":
            stack = ExitStack()
            there.append((stack, stack.enter_context(account.holding())))
        elif there and action == "take":
            there[number % len(there)][1].take(number)
        elif there:
            there.pop(number % len(there))[0].close()

        assert account.bytes == sum(held.bytes for _, held in there)

    for stack, _ in there:
        stack.close()

    assert 0 == account.bytes
