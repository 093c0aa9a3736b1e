"""Rate limits by key: a bounded table of token buckets, each kept as one number."""

from __future__ import annotations

import math
from collections.abc import Callable

LOOKED_AT = 8
"""Buckets that each take looks at, in turn, for one to forget: its cost has a limit too."""


class RateLimiter:
    """Token buckets by key: each holds ``burst`` at most and regains ``rate`` a second.

    A bucket is kept as one number: the moment at which it will be full. A full bucket is as good as
    none, and is forgotten. Where the table is full all the same, the bucket that is nearest to full
    among those looked at is forgotten, so that debtors stay.

    Args:
        rate: the amount that a key regains in a second.
        burst: the amount that a key may take at once after a pause. More is granted to a full
            bucket, which then owes the rest.
        max_keys: how many buckets are kept.
        clock: seconds on a monotonic clock.

    """

    def __init__(
        self, rate: float, burst: float, *, max_keys: int, clock: Callable[[], float]
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._clock = clock
        self._full_at: dict[str, float] = {}  # the ones looked at longest ago come first

    def __len__(self) -> int:
        return len(self._full_at)

    def reconfigure(self, rate: float, burst: float) -> None:
        """Go on with another rate and burst; the debts of all keys stay."""
        now = self._clock()
        stretch = self._rate / rate
        for key, full_at in self._full_at.items():
            self._full_at[key] = now + (full_at - now) * stretch
        self._rate, self._burst = rate, burst

    def take(self, key: str, amount: float = 1.0) -> float:
        """Take ``amount``; return 0.0, or the seconds to wait where it is refused."""
        now = self._clock()
        if wait := self._wait(key, amount, now):
            return wait
        full_at = self._full_at.get(key)
        if full_at is None:
            self._forget_some(now)
            full_at = now
        self._full_at[key] = max(full_at, now) + amount / self._rate
        return 0.0

    def would_wait(self, key: str, amount: float = 1.0) -> float:
        """Return what :meth:`take` would return, and take nothing."""
        return self._wait(key, amount, self._clock())

    def _wait(self, key: str, amount: float, now: float) -> float:
        spared = max(self._burst - amount, 0.0) / self._rate
        granted_at = self._full_at.get(key, now) - spared
        if granted_at <= now:
            return 0.0
        # Rounded up: a client that waits for so long is not to be told to wait another instant.
        return math.nextafter(granted_at, math.inf) - now

    def _forget_some(self, now: float) -> None:
        looked_at = [key for key, _ in zip(self._full_at, range(LOOKED_AT), strict=False)]
        buckets = sorted((self._full_at.pop(key), key) for key in looked_at)
        if buckets and len(self._full_at) + len(buckets) >= self._max_keys:
            del buckets[0]
        self._full_at.update({key: full_at for full_at, key in buckets if full_at > now})
