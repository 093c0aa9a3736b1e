"""The rate limiter: the amount that a bucket grants over time, and a table that stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.access.ratelimit import LOOKED_AT, RateLimiter


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def limiter(
    rate: float = 2.0, burst: float = 10.0, max_keys: int = 1000
) -> tuple[RateLimiter, Clock]:
    clock = Clock()
    return RateLimiter(rate, burst, max_keys=max_keys, clock=clock), clock


def test_a_burst_is_granted_and_then_the_rate() -> None:
    limits, clock = limiter(rate=2.0, burst=3.0)

    assert [0.0, 0.0, 0.0] == [limits.take("a") for _ in range(3)]
    assert limits.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert limits.take("a") == 0.0
    assert limits.take("a") == pytest.approx(0.5)


def test_a_pause_fills_the_bucket_and_no_more() -> None:
    limits, clock = limiter(rate=2.0, burst=3.0)
    limits.take("a", 3.0)
    clock.now += 3600.0

    assert [0.0, 0.0, 0.0] == [limits.take("a") for _ in range(3)]
    assert limits.take("a") > 0.0


def test_what_is_refused_takes_nothing() -> None:
    limits, clock = limiter(rate=2.0, burst=3.0)
    limits.take("a", 3.0)
    waits = {limits.take("a", 2.0) for _ in range(100)}
    clock.now += waits.pop()

    assert waits == set()
    assert limits.take("a", 2.0) == 0.0


def test_a_bucket_that_has_just_become_full_is_forgotten() -> None:
    limits, clock = limiter(rate=2.0)
    limits.take("a", 1.0)
    clock.now += 0.5
    limits.take("b")

    assert 1 == len(limits)


def test_to_ask_takes_nothing() -> None:
    limits, _ = limiter(burst=3.0)

    assert {0.0} == {limits.would_wait("a", 3.0) for _ in range(100)}
    assert limits.take("a", 3.0) == 0.0
    assert limits.would_wait("a") == limits.take("a") > 0.0


def test_keys_do_not_share_a_bucket() -> None:
    limits, _ = limiter(burst=1.0)
    limits.take("a")

    assert limits.take("b") == 0.0
    assert limits.take("a") > 0.0


def test_more_than_a_bucket_holds_is_granted_when_it_is_full() -> None:
    limits, clock = limiter(rate=2.0, burst=10.0)

    assert limits.take("a", 100.0) == 0.0
    assert limits.take("a", 1.0) == pytest.approx((100.0 - 10.0 + 1.0) / 2.0)
    clock.now += 49.0
    assert limits.take("a", 100.0) == pytest.approx(1.0)
    clock.now += 1.0
    assert limits.take("a", 100.0) == 0.0


def test_full_buckets_are_forgotten() -> None:
    limits, clock = limiter(rate=2.0)
    for n in range(1000):
        limits.take(f"old {n}")
    clock.now += 1.0
    for n in range(1000 // LOOKED_AT + 1):
        limits.take(f"new {n}")

    assert len(limits) <= 1000 // LOOKED_AT + 1


def test_the_table_has_a_limit() -> None:
    limits, _ = limiter(max_keys=10)
    for n in range(10_000):
        assert limits.take(f"{n}") == 0.0
        assert len(limits) <= 10


def test_a_debtor_is_not_forgotten_for_new_keys() -> None:
    limits, _ = limiter(burst=3.0, max_keys=50)
    limits.take("debtor", 3.0)
    for n in range(10_000):
        limits.take(f"{n}")

    assert limits.take("debtor") > 0.0


def test_a_table_of_one_bucket_still_limits() -> None:
    limits, _ = limiter(burst=1.0, max_keys=1)

    assert limits.take("a") == 0.0
    assert limits.take("a") > 0.0
    assert limits.take("b") == 0.0
    assert len(limits) == 1


@given(
    st.floats(0.1, 1e5),
    st.floats(1.0, 1e5),
    st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.01, 1e6)), max_size=50),
)
def test_never_more_is_granted_than_the_burst_and_the_rate(
    rate: float, burst: float, run: list[tuple[float, float]]
) -> None:
    limits, clock = limiter(rate, burst)
    started, granted = clock.now, 0.0
    for pause, amount in run:
        clock.now += pause
        if limits.take("a", amount) == 0.0:
            needed = granted + min(amount, burst)  # the rest is debt, and paid before the next
            assert needed <= (burst + rate * (clock.now - started)) * (1 + 1e-6)
            granted += amount


@given(
    st.floats(0.1, 1e5),
    st.floats(1.0, 1e5),
    st.lists(st.tuples(st.floats(0.0, 60.0), st.floats(0.01, 1e6)), max_size=50),
)
def test_who_waits_for_as_long_as_he_was_told_is_granted_it(
    rate: float, burst: float, run: list[tuple[float, float]]
) -> None:
    limits, clock = limiter(rate, burst)
    for pause, amount in run:
        clock.now += pause
        wait = limits.take("a", amount)
        assert wait >= 0.0
        if wait:
            clock.now += wait
            assert limits.take("a", amount) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmno"), st.floats(0, 5), st.floats(0.1, 30))))
def test_a_table_with_room_is_as_good_as_a_limiter_for_each_key(
    run: list[tuple[str, float, float]],
) -> None:
    limits, clock = limiter(max_keys=15)
    alone = {key: limiter() for key in "abcdefghijklmno"}
    for key, pause, amount in run:
        clock.now += pause
        own, own_clock = alone[key]
        own_clock.now = clock.now
        assert limits.take(key, amount) == own.take(key, amount)


@pytest.mark.parametrize(("rate", "burst"), [(2.0, 3.0), (4.0, 3.0), (1.0, 3.0), (2.0, 30.0)])
def test_another_rate_forgives_no_debt(rate: float, burst: float) -> None:
    limits, clock = limiter(rate=2.0, burst=3.0)
    limits.take("a", 3.0)
    limits.reconfigure(rate, burst)

    assert limits.would_wait("a", burst) == pytest.approx(3.0 / rate)
    clock.now += 3.0 / rate
    assert limits.take("a", burst) == 0.0


def test_a_lower_burst_holds_for_those_who_took_more() -> None:
    limits, _ = limiter(rate=2.0, burst=10.0)
    limits.take("a", 10.0)
    limits.reconfigure(2.0, 4.0)

    assert limits.would_wait("a") == pytest.approx((10.0 - 3.0) / 2.0)
    assert limits.take("b", 4.0) == 0.0
