"""Rates: what totals grew by, over windows that are full and windows that are not yet."""

from __future__ import annotations

import pytest

from broadcasterd.figures.rates import WINDOWS_S, Rates, Totals

START = 1000.0


def sampled(seconds: int, *, per_s: int = 0, burst_at: int | None = None) -> tuple[Rates, Totals]:
    """Return the rates of a daemon so old; in one of its seconds there are 600 events more."""
    rates = Rates(START)
    events = 0
    for second in range(1, seconds + 1):
        events += per_s + (600 if second == burst_at else 0)
        rates.add(Totals(events=events, delivered_bytes=10 * events), START + second + 0.003)
    return rates, Totals(events=events, delivered_bytes=10 * events)


@pytest.mark.parametrize("window", WINDOWS_S.values())
@pytest.mark.parametrize("age", [5, 60, 4000])
def test_a_steady_rate_is_the_same_over_all_windows(window: float, age: int) -> None:
    rates, totals = sampled(age, per_s=20)
    grown, seconds = rates.grown(totals, START + age + 0.003, window)

    assert 20 == pytest.approx(grown.events / seconds, rel=0.05)
    assert 200 == pytest.approx(grown.delivered_bytes / seconds, rel=0.05)
    assert 0 == grown.errors
    assert min(window, age) <= seconds <= min(window, age) + 10.1


@pytest.mark.parametrize(
    ("ago", "expected"),
    [(3, [600, 600, 600]), (30, [0, 600, 600]), (300, [0, 0, 600]), (900, [0] * 3)],
)
def test_a_burst_is_in_the_windows_that_reach_back_to_it(ago: int, expected: list[int]) -> None:
    rates, totals = sampled(1000, burst_at=1000 - ago)
    now = START + 1000.003

    assert expected == [rates.grown(totals, now, window)[0].events for window in WINDOWS_S.values()]


def test_what_came_since_the_last_sample_counts() -> None:
    rates, _ = sampled(20)

    assert 7 == rates.grown(Totals(events=7), START + 20.5, 10)[0].events


def test_a_daemon_that_just_started_has_no_rate_of_millions() -> None:
    assert (Totals(events=5), 1.0) == Rates(START).grown(Totals(events=5), START + 1e-6, 10)


def test_more_samples_than_are_needed_take_no_room() -> None:
    rates = Rates(START)
    for number in range(100_000):
        rates.add(Totals(events=number), START + number / 10)

    assert len(rates._fine) + len(rates._coarse) <= 122
