"""Counting bytes exactly, where they are taken and where they are given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Account:
    """A sum of bytes that several holders share. Never negative, if each returns what it took."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0

    @contextmanager
    def holding(self) -> Iterator[Holding]:
        """Count the bytes taken inside; all of them are returned on the way out."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.bytes -= holding.bytes


class Holding:
    """The bytes that one holder has taken so far."""

    __slots__ = ("_account", "bytes")

    def __init__(self, account: Account) -> None:
        self._account = account
        self.bytes = 0

    def take(self, size: int) -> None:
        """Take ``size`` bytes more."""
        self.hold(self.bytes + size)

    def hold(self, size: int) -> None:
        """Hold ``size`` bytes from now on."""
        self._account.bytes += size - self.bytes
        self.bytes = size
