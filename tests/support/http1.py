"""An HTTP/1.1 client that can be as slow, rude or half-finished as a test needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import trio

from tests.support.daemon import CANARY
from tests.support.following import Following, Pieces
from tests.support.inprocess import SOON


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; names of header fields are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; an empty one if the body is empty."""
        document: dict[str, Any] = json.loads(self.body or b"{}")
        return document


class Http1:
    """One connection, on any stream. Whoever opened the stream closes it.

    Attributes:
        stream: to write to it, or close it, by hand.

    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._connection = h11.Connection(h11.CLIENT)

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        """Send a whole request."""
        length = {"Content-Length": str(len(body))} if body else {}
        await self.begin(method, target, {**length, **(headers or {})})
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    async def begin(
        self, method: str, target: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send the head of a request, and nothing of its body."""
        fields = {"Host": "127.0.0.1", "Cookie": f"theme={CANARY}", **(headers or {})}
        await self._send(h11.Request(method=method, target=target, headers=list(fields.items())))

    async def go_on(self, body: bytes) -> None:
        """Send a piece of the body."""
        await self._send(h11.Data(data=body))

    async def end(self) -> None:
        """Send the end of the body."""
        await self._send(h11.EndOfMessage())

    def has_asked(self) -> None:
        """Note that a request was sent on the stream itself, by hand."""
        self._connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        self._connection.send(h11.EndOfMessage())

    async def head(self) -> h11.Response:
        """Wait for the head of the response."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            assert isinstance(event, h11.InformationalResponse), event

    def body(self) -> Pieces:
        """Return the response's body as it comes; it raises if it does not end as it should."""
        return Pieces(self._piece)

    async def answer(self) -> Answer:
        """Wait for the whole response."""
        head = await self.head()
        with trio.fail_after(SOON):
            body = b"".join([piece async for piece in self.body()])
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        return Answer(head.status_code, headers, body)

    async def follow(self, target: str, headers: Mapping[str, str] | None = None) -> Following:
        """Subscribe, and wait for the opening of the stream."""
        await self.ask("GET", target, headers)
        following = await self.follow_begun()
        await following.opening()
        return following

    async def follow_begun(self) -> Following:
        """Follow the stream that was asked for."""
        head = await self.head()

        assert 200 == head.status_code
        return Following(self.body())

    async def closed(self, *, within: float = SOON) -> None:
        """Wait until the server closes the connection; bytes that it still sends are ignored."""
        with trio.fail_after(within):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass  # with a reset: that is closed, too

    async def over(self) -> None:
        """Wait for the end of the response, whether it is whole or not."""
        with suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
            await self.head()
            async for _ in self.body():
                pass

    def next_request(self) -> None:
        """Get ready for another request on the same connection."""
        self._connection.start_next_cycle()

    async def _piece(self) -> bytes | None:
        if isinstance(event := await self._event(), h11.EndOfMessage):
            return None
        assert isinstance(event, h11.Data), event
        return bytes(event.data)

    async def _send(self, event: h11.Event) -> None:
        await self.stream.send_all(self._connection.send(event) or b"")

    async def _event(self) -> h11.Event:
        with trio.fail_after(SOON):
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                self._connection.receive_data(bytes(await self.stream.receive_some()))
        assert isinstance(event, h11.Event), event
        return event
