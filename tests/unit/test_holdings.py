"""Whoever holds memory for nothing is told to let go of it: the largest first, as far as needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import pytest
from hypercorn.trio.worker_context import EventWrapper

from broadcasterd.memory.holdings import AT_ONCE, UNUSED_S, Holdings
from broadcasterd.server.http2 import Buffer

NOW = 100.0
LONG_AGO = NOW - UNUSED_S
JUST_NOW = NOW - UNUSED_S / 2


@dataclass(eq=False)
class Held:
    """A holder that does nothing but remember what it was told."""

    name: str
    held_bytes: int
    since: float = LONG_AGO
    told: list[str] = field(default_factory=list)

    def unused_since(self, now: float) -> float:
        assert now == NOW
        return self.since

    def let_go(self) -> None:
        self.told.append(self.name)


def holdings(*holders: Held) -> Holdings:
    found = Holdings()
    for holder in holders:
        found.add(holder)
    return found


@pytest.mark.parametrize("wanted", [31, 50])
def test_the_largest_are_told_first_and_no_more_than_is_needed(wanted: int) -> None:
    told: list[str] = []
    sizes = {"small": 10, "large": 30, "middle": 20}
    all_of_them = holdings(*(Held(name, size, told=told) for name, size in sizes.items()))
    found = all_of_them.let_go(wanted, now=NOW)

    assert ["large", "middle"] == told
    assert (2, 60) == (found.told, found.bytes)


def test_of_equals_the_oldest_is_told_first() -> None:
    told: list[str] = []
    holdings(*(Held(name, 10, told=told) for name in "abc")).let_go(11, now=NOW)

    assert ["a", "b"] == told


def test_nobody_is_told_who_is_served_or_was_a_moment_ago() -> None:
    served, recent = Held("served", 10, inf), Held("recent", 20, JUST_NOW)
    found = holdings(served, recent).let_go(1000, now=NOW)

    assert [] == served.told + recent.told
    assert 20 == found.bytes, "what is of no use will be back in a moment: no history pays for it"


def test_who_was_told_is_not_told_again_and_counts_until_it_is_gone() -> None:
    first, second = Held("first", 30), Held("second", 10)
    both = holdings(first, second)
    both.let_go(20, now=NOW)
    first.since = inf  # it is busy with its end
    found = both.let_go(20, now=NOW)

    assert (["first"], []) == (first.told, second.told)
    assert (0, 40) == (found.told, found.bytes)
    both.discard(first)
    assert 10 == both.let_go(5, now=NOW).bytes
    assert ["second"] == second.told


def test_no_step_tells_too_many() -> None:
    many = [Held("one", 1) for _ in range(AT_ONCE + 5)]
    all_of_them = holdings(*many)

    assert AT_ONCE == all_of_them.let_go(10**6, now=NOW).told
    assert 5 == all_of_them.let_go(10**6, now=NOW).told
    assert 0 == all_of_them.let_go(10**6, now=NOW).told


def test_others_are_told_as_well() -> None:
    ours, other = Held("ours", 10), Held("other", 20)
    found = holdings(ours).let_go(15, now=NOW, besides=[other])

    assert ([], ["other"]) == (ours.told, other.told)
    assert (1, 30) == (found.told, found.bytes)


def test_the_holders_are_counted_and_their_bytes_are_an_account() -> None:
    held = Held("one", 10)
    all_of_them = holdings(held)
    with all_of_them.holding() as holding:
        holding.hold(7)
        assert (1, 7) == (len(all_of_them), all_of_them.bytes)
    all_of_them.discard(held)
    all_of_them.discard(held)

    assert (0, 0) == (len(all_of_them), all_of_them.bytes)


async def test_of_a_request_that_is_over_nothing_is_counted() -> None:
    holdings = Holdings()
    buffer = Buffer(EventWrapper, holdings, lambda: None)
    await buffer.push(b"an answer")
    buffer.count(100)  # of a body that has come
    await buffer.close()
    buffer.count(-100)  # it is taken
    await buffer.pop(10)
    buffer.count(50)

    assert 0 == holdings.bytes
