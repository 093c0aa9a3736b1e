"""Durations and sizes as people write them: ``"1h30m"``, ``"64MiB"``."""

from __future__ import annotations

import re
from collections.abc import Mapping

SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BYTES: Mapping[str, float] = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}

_PART = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", re.ASCII)


def quantity(text: str, units: Mapping[str, float]) -> float | None:
    """Return the sum of the numbers in a text, each in its unit; ``None`` if it is anything else.

    Args:
        text: numbers with units, and spaces where you like.
        units: how many of the basic unit each is.

    """
    total, at = 0.0, 0
    while part := _PART.match(text, at):
        if part[2] not in units:
            return None
        total += float(part[1]) * units[part[2]]
        at = part.end()
    return total if at and at == len(text) else None
