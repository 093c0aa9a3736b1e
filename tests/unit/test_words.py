"""Figures as people read them."""

from __future__ import annotations

import pytest

from broadcasterd.cli.words import duration, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.123, "0.12"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (9999, "9999"),
        (10_000, "10k"),
        (56_789, "56.8k"),
        (1_234_567, "1.23M"),
        (5e15, "5000T"),
    ],
)
def test_a_number_has_three_digits_or_four(value: float, text: str) -> None:
    assert text == number(value)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (2e6, "2 MB")]
)
def test_a_size_has_a_unit(count: float, text: str) -> None:
    assert text == size(count)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3605, "1 h 5 s"),
        (90_061, "1 d 1 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert text == duration(seconds)
