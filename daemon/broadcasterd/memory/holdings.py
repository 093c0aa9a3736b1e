"""What clients make the daemon hold beside histories: its bytes, and who lets go of it first.

Each kind has a constant, measured by ``tests/memory/test_holdings.py``: the resident set grows by
as much for one of them. The contents of buffers come on top, byte by byte. All of it is in one
account, and none of it is any history's to pay for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import inf
from typing import Protocol

from broadcasterd.memory.account import Account

KIB = 1024

CONNECTION_BYTES = 7 * KIB
"""A connection that waits for a request: its socket, its task, and what reads it."""

SAVED_BYTES = 2 * KIB
"""What a connection lacks that has said nothing yet where TLS is spoken: nothing reads it."""

HANDSHAKE_BYTES = 40 * KIB
"""A TLS handshake that is under way, beside its connection."""

TLS_BYTES = 14 * KIB
"""TLS, when it is agreed on, beside the connection or the stream that it secures."""

HTTP2_BYTES = 27 * KIB
"""The state of HTTP/2, beside its connection."""

HTTP2_REQUEST_BYTES = 24 * KIB
"""A request on it, with its task, until its answer is sent."""

FRAMEWORK_BYTES = 16 * KIB
"""A request on HTTP/1 that the framework serves."""

REQUEST_BYTES = 8 * KIB
"""A request that waits: for its body, or for news."""

STREAM_BYTES = 900
"""A stream that is up to date: a socket and a cursor; the kernel has some more."""

UNUSED_S = 2.0
"""What nobody has used for so long is let go of when memory is short."""

AT_ONCE = 200
"""Holders that are told in one step: each takes some 100 µs to be gone."""


class Holder(Protocol):
    """Somebody who holds memory for a client, and can let go of it."""

    @property
    def held_bytes(self) -> int:
        """The bytes that would be free."""

    def unused_since(self, now: float) -> float:
        """Return since when it is of no use; ``inf`` while somebody is served with it."""

    def let_go(self) -> None:
        """Give it up, soon if not at once."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """What a look at the holders found.

    Attributes:
        told: how many were told to let go; there may be more of them.
        bytes: what those have that are of no use, told by now or not: it need not come from
            anybody else.

    """

    told: int
    bytes: int


class Holdings(Account):
    """The bytes that clients make us hold, and the holders who can be told to let go."""

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[Holder, bool] = {}  # oldest first; and whether it was told

    def __len__(self) -> int:
        return len(self._holders)

    def add(self, holder: Holder) -> None:
        """Know a holder from now on."""
        self._holders[holder] = False

    def discard(self, holder: Holder) -> None:
        """Forget a holder: it is gone, or it was never there."""
        self._holders.pop(holder, None)

    def let_go(self, wanted: int, *, now: float, besides: Sequence[Holder] = ()) -> LetGo:
        """Have so many bytes let go of, as far as that much is of no use; the largest first.

        Args:
            wanted: bytes.
            now: seconds on the clock of the holders.
            besides: others who may be told.

        """
        spare, unused = 0, []
        for holder, was_told in (*self._holders.items(), *((each, False) for each in besides)):
            since = holder.unused_since(now)
            if since == inf and not was_told:
                continue
            size = holder.held_bytes
            spare += size
            if was_told:
                wanted -= size
            elif now - since >= UNUSED_S:
                unused.append((size, holder))
        told = 0
        for size, holder in nlargest(AT_ONCE, unused, key=lambda each: each[0]):
            if wanted > 0:
                if holder in self._holders:
                    self._holders[holder] = True
                holder.let_go()
                wanted -= size
                told += 1
        return LetGo(told, spare)
