"""When events expire: the soonest first, whatever order they came in."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.core.expiries import Expiries

moments = st.lists(st.floats(0, 1e9) | st.sampled_from([1.0, 2.0, 3.0]))


def filled(ats: list[float]) -> Expiries:
    expiries = Expiries()
    for seq, at in enumerate(ats):
        expiries.push(at, seq)
    return expiries


def drained(expiries: Expiries) -> list[tuple[float, int]]:
    found = []
    while len(expiries):
        found.append((expiries.soonest, expiries.pop()))
    return found


@given(moments)
def test_the_soonest_comes_first(ats: list[float]) -> None:
    found = drained(filled(ats))

    assert [at for at, _ in found] == sorted(ats)
    assert sorted(found) == sorted((at, seq) for seq, at in enumerate(ats))


@given(moments, st.sets(st.integers(0, 20)))
def test_what_is_not_wanted_any_more_is_forgotten(ats: list[float], gone: set[int]) -> None:
    expiries = filled(ats)
    expiries.keep(lambda seq: seq not in gone)
    expiries.push(5.0, 1000)

    left = [(at, seq) for seq, at in enumerate(ats) if seq not in gone]
    assert sorted(drained(expiries)) == sorted([*left, (5.0, 1000)])


def test_where_there_is_none_it_is_never() -> None:
    assert Expiries().soonest == inf
    assert Expiries().size_bytes == 0


def test_an_item_takes_sixteen_bytes() -> None:
    assert 2 * 16 == filled([1.0, 2.0]).size_bytes
