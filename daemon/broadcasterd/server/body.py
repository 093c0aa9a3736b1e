"""A request's body as it arrives, with backpressure: what is not read yet stays in the socket."""

from __future__ import annotations

from typing import Self

import trio

from broadcasterd.api.bodies import ClientDisconnected


class RequestBody:
    """An async iterable of pieces, for one reader.

    Quart's own body collects what arrives as fast as it arrives; a stream of events that is
    published for hours needs the publisher to be held back instead.

    Args:
        limits: the lengths that Quart passes; unused, for the reader counts.

    """

    def __init__(self, *limits: int | None) -> None:  # noqa: ARG002
        self._filler, self._pieces = trio.open_memory_channel[bytes](1)
        self._has_reader = False
        self.was_cut_short = False
        self.complete = False

    @property
    def is_being_read(self) -> bool:
        """Whether a reader will learn from the body itself that the client went away."""
        return self._has_reader and not self.complete

    # For the connection that fills it

    async def put(self, piece: bytes, *, more: bool) -> None:
        """Add a piece, when there is room; ``more`` is false for the last."""
        try:
            if piece:
                await self._filler.send(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # nobody reads it any more
        if not more:
            self.complete = True
            self._filler.close()

    def cut_short(self) -> None:
        """Note that the rest will never come."""
        if not self.complete:
            self.was_cut_short = True
            self._filler.close()

    # For the handler that reads it

    def discard(self) -> None:
        """Let go of what was not read: the answer does not depend on it."""
        self._pieces.close()

    def __aiter__(self) -> Self:
        self._has_reader = True
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next piece.

        Raises:
            ClientDisconnected: the body was cut short.

        """
        try:
            return await self._pieces.receive()
        except trio.EndOfChannel:
            if self.was_cut_short:
                raise ClientDisconnected from None
            raise StopAsyncIteration from None
