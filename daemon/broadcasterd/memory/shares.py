"""Fair shares of what is left when memory is short: who holds more pays first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Holder = TypeVar("Holder")


def dues(held: Mapping[Holder, int], to_free: int) -> dict[Holder, int]:
    """Return what each holder pays first of so many bytes that are to be freed.

    The fair share is the same for all, and what one does not need of it, others have (max-min
    fairness). So those above it, cut down to it, free what is needed between them. But a holder of
    no more than the average pays nothing: among equals, there is none to pay first.

    Args:
        held: bytes by holder.
        to_free: bytes.

    """
    total = sum(held.values())
    share = _fair_share(held, max(0, total - to_free))
    return {
        holder: size - share
        for holder, size in held.items()
        if size > share and size * len(held) > total
    }


def _fair_share(held: Mapping[Holder, int], left: int) -> int:
    """Return the most that each may keep, so that all together keep so many bytes."""
    holders = len(held)
    for size in sorted(held.values()):
        if size * holders > left:
            return left // holders
        left -= size
        holders -= 1
    return max(held.values(), default=0)
