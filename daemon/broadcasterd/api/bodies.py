"""Reading a request's body: in pieces, with a limit on the wait for each.

A body is cut short when its time is up, when the daemon drains, when memory gets short, and when
its sender's grant expires.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator

import trio

from broadcasterd.access.grants import Grant
from broadcasterd.api.auth import token_expired
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.errors import Draining, ShortOfMemory, TooLarge, TooSlow
from broadcasterd.memory.account import Holding
from broadcasterd.memory.holdings import REQUEST_BYTES


class ClientDisconnected(Exception):  # noqa: N818 (an event, not a mistake of ours)
    """The client went away in the middle of its body; nobody waits for an answer."""


class Arriving(AsyncIterator[bytes]):
    """A body of which it is known whether the rest is here already: that need not be waited for."""

    @abstractmethod
    def at_hand(self) -> bytes | None:
        """Return the whole body if it is here; else ``None``, and nothing is taken."""


BODY_COPIES = 3
"""While events are made of a body, its bytes are there as sent, as text, and as encoded."""


EVENT_BYTES = 512
"""Memory that an event takes beside its data, until it is in the log (measured)."""


async def whole_body(
    body: AsyncIterable[bytes],
    head: Head,
    *,
    grant: Grant,
    hub: Hub,
    max_body_bytes: int,
    held: Holding,
) -> bytes:
    """Wait for all of a body that is no stream; ``held`` counts it, and an event of it.

    Raises:
        TooLarge: it has more than ``max_body_bytes``.
        TooSlow: it is not there within ``limits.body_timeout``.
        Problem: as :func:`next_piece`.

    """
    if isinstance(body, Arriving) and (at_hand := body.at_hand()) is not None:
        if len(at_hand) > max_body_bytes:
            raise _too_large(max_body_bytes)
        held.take(BODY_COPIES * len(at_hand) + EVENT_BYTES)
        return at_hand
    length = head.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > max_body_bytes:
        raise _too_large(max_body_bytes)  # before it is read
    too_slow = TooSlow("the body took too long (limits.body_timeout)")
    deadline = trio.current_time() + hub.settings.limits.body_timeout
    whole = bytearray()
    pieces = aiter(body)
    with hub.holdings.holding() as request:
        request.hold(REQUEST_BYTES)
        while piece := await next_piece(pieces, grant, hub, deadline, too_slow):
            whole += piece
            held.take(len(piece))
            del piece  # while the next is waited for, it would be there twice
            if hub.pressure.refuses_more():
                raise ShortOfMemory
            if len(whole) > max_body_bytes:
                raise _too_large(max_body_bytes)
    held.hold(BODY_COPIES * len(whole) + EVENT_BYTES)
    if hub.pressure.refuses_more():
        raise ShortOfMemory
    return bytes(whole)


async def next_piece(
    pieces: AsyncIterator[bytes], grant: Grant, hub: Hub, deadline: float, too_slow: TooSlow
) -> bytes:
    """Wait for the next piece of a body; empty at its end.

    Raises:
        Unavailable: the daemon drains, and does not wait for a stream that may last for ever.
        TooSlow: ``too_slow``, if no piece came by the deadline.
        Problem: 401, the grant has expired; or 503, the breaker opens.

    """
    piece, expired = None, False
    with (
        hub.interrupts.until_drain() as waiting,
        hub.interrupts.until_short_of_memory() as short,
        hub.interrupts.until_expired(grant) as granted,
    ):
        waiting.deadline = deadline
        try:
            piece = await anext(pieces, b"")
            await trio.lowlevel.checkpoint()  # pieces may come too fast to wait for any
        finally:
            expired = granted.cancel_called  # also where pieces come too fast to wait for any
    if expired:
        raise token_expired()
    if short.cancelled_caught:
        raise ShortOfMemory
    if piece is None:
        raise Draining if hub.draining else too_slow
    return piece


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body has more than {most} bytes (server.max_body_bytes)")
