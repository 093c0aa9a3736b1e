"""A text or a value of TOML as the value of its setting."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args, get_origin

from broadcasterd.config.kinds import (
    Bytes,
    Hold,
    Leeway,
    Megabytes,
    MiB,
    Milliseconds,
    Seconds,
    Secret,
    Span,
)
from broadcasterd.quantities import BYTES, SECONDS, quantity

QUANTITIES: Mapping[object, tuple[Mapping[str, float], float]] = {
    Seconds: (SECONDS, 1),
    Leeway: (SECONDS, 1),
    Span: (SECONDS, 1),
    Hold: (SECONDS, 1),
    Milliseconds: (SECONDS, 0.001),
    Bytes: (BYTES, 1),
    Megabytes: (BYTES, MiB),
}
"""Kinds that take a text with units: those, and the one that the kind's number is in."""


TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)


def _bare(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def parse(text: str, kind: object) -> object:
    """Return an environment variable's text as TOML would have it; msgspec reads numbers."""
    kind = _bare(kind)
    if kind is bool:
        return TRUTH.get(text.strip().lower(), text)
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if not text and type(None) in get_args(kind):
        return None
    return text


def in_units(text: str, units: Mapping[str, float], unit: float) -> float | str:
    """Return a text with units as the number that its field takes; any other text as it is."""
    amount = quantity(text, units)
    if amount is None:
        return text
    number = amount / unit
    return round(number) if math.isclose(number, round(number)) else number


def to_own_type(kind: type, value: object) -> Path | Secret:
    """Let msgspec read the two types here that it does not know."""
    if isinstance(value, str) and value:
        return Secret(value) if kind is Secret else Path(value)
    raise ValueError("Expected a path")
