"""Durations and sizes with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.quantities import BYTES, SECONDS, quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("10min", 600), ("1h", 3600), ("1d 2h", 93_600), (" 1.5 s ", 1.5), ("0s", 0)],
)
def test_parts_add_up(text: str, seconds: float) -> None:
    assert seconds == quantity(text, SECONDS)


@pytest.mark.parametrize(
    "text", ["", "s", "10", "1m 10", "1x", "-1s", "1e3s", "1,5s", "1h\0", "\u0661s"]
)
def test_anything_else_is_none(text: str) -> None:
    assert quantity(text, SECONDS) is None


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES)))
def test_sizes_are_multiples_of_their_unit(number: int, unit: str) -> None:
    assert number * BYTES[unit] == quantity(f"{number}{unit}", BYTES)
