"""An event stream that is read as it comes, each step with a deadline."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Self

import trio

from tests.support.inprocess import SOON
from tests.support.sse import Event, parse


class Pieces:
    """A body in pieces: no generator, which nobody would read to its end, or close.

    Args:
        take: waits for the next piece; ``None`` is the end.

    """

    def __init__(self, take: Callable[[], Awaitable[bytes | None]]) -> None:
        self._take = take

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next piece."""
        if (piece := await self._take()) is None:
            raise StopAsyncIteration
        return piece


class Following:
    """A subscription in progress.

    Args:
        pieces: the body, in pieces of any size; what it raises at a broken end goes up.

    Attributes:
        cursor: the id that the client would resume after.
        heard: every line so far, without its line break.

    """

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = aiter(pieces)
        self._rest = b""
        self._lines: deque[str] = deque()
        self.cursor = ""
        self.heard: list[str] = []

    async def line(self, *, within: float = SOON) -> str | None:
        """Wait for the next line; ``None`` at a clean end of the stream."""
        if not self._lines and not await self._receive(within):
            return None
        line = self._lines.popleft()
        self.heard.append(line)
        return line

    async def _receive(self, within: float) -> bool:
        """Wait for the rest of a line, or more; ``False`` is a clean end of the stream."""
        with trio.fail_after(within):
            while not self._lines:
                try:
                    piece = await anext(self._pieces)
                except StopAsyncIteration:
                    return False
                *lines, self._rest = (self._rest + piece).split(b"\n")
                self._lines.extend(line.decode() for line in lines)
        return True

    async def opening(self) -> None:
        """Wait for the first bytes: the retry line, and the comment that names the stream."""
        retry, comment = await self.line(), await self.line()

        assert retry is not None
        assert retry.startswith("retry: ")
        assert comment is not None
        assert comment.startswith(": stream ")

    async def heartbeat(self) -> None:
        """Wait for a heartbeat, which has to come next."""
        assert ":" == await self.line()

    async def event(self, *, within: float = SOON) -> Event | None:
        """Wait for the next event; ``None`` at a clean end of the stream."""
        block: list[str] = []
        while (line := await self.line(within=within)) is not None:
            block.append(line)
            if line:
                continue
            before = self.cursor
            for ids in (x for x in block if x.startswith("id: ")):
                self.cursor = ids.removeprefix("id: ")
            for event in parse(block, last_event_id=before):
                return event
            block.clear()
        return None

    async def data(self, count: int) -> list[str]:
        """Wait for so many events, and return their data."""
        return [event.data for _ in range(count) if (event := await self.event()) is not None]

    async def rest(self) -> list[Event]:
        """Return all events up to a clean end of the stream."""
        events: list[Event] = []
        while (event := await self.event()) is not None:
            events.append(event)
        return events

    async def end(self) -> dict[str, object]:
        """Skip to the news of the end and return it; nothing may follow it."""
        *_, last = await self.rest()

        assert "broadcaster.end" == last.type
        news: dict[str, object] = json.loads(last.data)
        return news
