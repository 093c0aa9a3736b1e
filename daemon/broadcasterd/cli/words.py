"""Figures as people read them: three digits, and a unit."""

from __future__ import annotations

_THOUSANDS = ("", "k", "M", "G", "T")


def number(value: float) -> str:
    """Return a count or a rate: ``0``, ``0.25``, ``12.5``, ``1234``, ``56.7k``."""
    scaled, unit = value, 0
    if value >= 10_000:  # noqa: PLR2004 (four digits are as short as three and a letter)
        while scaled >= 1000 and unit < len(_THOUSANDS) - 1:  # noqa: PLR2004 (the next letter's)
            scaled, unit = scaled / 1000, unit + 1
    return f"{_three_digits(scaled)}{_THOUSANDS[unit]}"


def size(count: float) -> str:
    """Return bytes: ``512 B``, ``1.5 kB``."""
    scaled, unit = count, 0
    while scaled >= 1000 and unit < len(_THOUSANDS) - 1:  # noqa: PLR2004 (the next letter's)
        scaled, unit = scaled / 1000, unit + 1
    return f"{_three_digits(scaled)} {_THOUSANDS[unit]}B"


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``4 s``, ``3 min 20 s``, ``2 d 1 h``."""
    whole = int(seconds)
    units = [("d", whole // 86_400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60)]
    parts = [f"{count} {name}" for name, count in [*units, ("s", whole % 60)] if count]
    return " ".join(parts[:2]) or "0 s"


def _three_digits(value: float) -> str:
    if value == int(value):
        return f"{value:.0f}"
    places = 2 - min(len(f"{round(value, 2):.0f}") - 1, 2)
    return f"{value:.{places}f}"
