"""Counts by key: how many of something each of many holders has at the moment."""

from __future__ import annotations


class Tally:
    """Counts by key. A key that has none takes no memory; ``None`` is nobody, and never counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __getitem__(self, key: str | None) -> int:
        """Return how many ``key`` has."""
        return 0 if key is None else self._counts.get(key, 0)

    def __len__(self) -> int:
        """Return how many keys have any."""
        return len(self._counts)

    def add(self, key: str | None, amount: int = 1) -> int:
        """Count so many more, one at least; return how many there are now."""
        if key is None:
            return 0
        count = self._counts[key] = self._counts.get(key, 0) + amount
        return count

    def remove(self, key: str | None, amount: int = 1) -> None:
        """Count so many less, which were added before."""
        if key is None:
            return
        left = self._counts.pop(key) - amount
        if left:
            self._counts[key] = left
