"""Counting bytes exactly, where they are taken and where they are given back."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Account:
    """A sum of bytes that several holders share. Never negative, if each returns what it took."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0

    def holding(self) -> Holding:
        """Return a holder: the bytes taken inside its block are returned on the way out."""
        return Holding(self)


class Holding:
    """The bytes that one holder has taken so far; a context manager that returns them."""

    __slots__ = ("_account", "bytes")

    def __init__(self, account: Account) -> None:
        self._account = account
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hold(0)

    def take(self, size: int) -> None:
        """Take ``size`` bytes more."""
        self.hold(self.bytes + size)

    def hold(self, size: int) -> None:
        """Hold ``size`` bytes from now on."""
        self._account.bytes += size - self.bytes
        self.bytes = size
