"""Clients that go on whatever happens to their daemon: publishers that retry, and a follower.

Each remembers what it was promised. The follower reads as an EventSource does: it comes back with
the last id that it has seen whole.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from dataclasses import dataclass, field

import trio

RETRY_S = 0.005


class Cut(Exception):  # noqa: N818 (what happened)
    """The connection is gone."""


async def connect(port: int) -> trio.SocketStream:
    """Connect to this machine's port, as soon as there is somebody."""
    while True:
        try:
            return await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(RETRY_S)


async def receive(stream: trio.SocketStream) -> bytes:
    """Return what comes next.

    Raises:
        Cut: nothing will.

    """
    try:
        piece = await stream.receive_some()
    except (trio.BrokenResourceError, OSError) as error:
        raise Cut from error
    if not piece:
        raise Cut
    return bytes(piece)


@dataclass
class Publisher:
    """Publishes numbered events, each until it is answered 200.

    Args:
        name: begins the data of each event.
        session: gets them.
        keyed: whether a retry is the first try again, with its keys; else it has data of its own.

    Attributes:
        promised: the data of the events that were answered 200, in order.
        refused: answers 503.

    """

    name: str
    session: str
    dice: random.Random
    keyed: bool = True
    promised: list[str] = field(default_factory=list)
    refused: int = 0
    _number: int = 0
    _batch: list[str] = field(default_factory=list)  # that is under way

    async def run(self, port: int, acknowledged: trio.MemorySendChannel[None]) -> None:
        """Publish until cancelled; say so whenever something was promised."""
        while True:
            stream = await connect(port)
            with suppress(Cut):
                async with stream:
                    while True:
                        if await self.publish(stream):
                            with suppress(trio.WouldBlock):  # there is such news already
                                acknowledged.send_nowait(None)

    async def publish(self, stream: trio.SocketStream) -> bool:
        """Publish the next few events; return whether they were taken.

        Raises:
            Cut: it is not known.

        """
        if not (self._batch and self.keyed):
            count = self.dice.choice((1, 1, 1, 3, 20))
            self._batch = [f"{self.name}-{self._number + n}" for n in range(count)]
            self._number += count
        batch = self._batch
        events: list[dict[str, str]] = [
            {"data": data, "idempotency_key": data} if self.keyed else {"data": data}
            for data in batch
        ]
        status, head = await self._ask(stream, json.dumps(events))
        if status == 200:
            self.promised += batch
            self._batch = []
            return True
        assert status == 503, head
        assert b"\r\nretry-after:" in head.lower()
        self.refused += 1
        await trio.sleep(RETRY_S)
        return False

    async def _ask(self, stream: trio.SocketStream, body: str) -> tuple[int, bytes]:
        request = (
            f"POST /v1/sessions/{self.session}/events HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        try:
            await stream.send_all(request.encode())
        except (trio.BrokenResourceError, OSError) as error:
            raise Cut from error
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await receive(stream)
        head, _, rest = answer.partition(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        while len(rest) < length:
            rest += await receive(stream)
        return int(head.split(b" ")[1]), head


@dataclass
class Follower:
    """Listens to a session, and comes back with its last id whenever it is cut.

    Attributes:
        data: of all events, in order, as often as they came.
        ids: theirs.
        gaps: news of gaps.
        cuts: how often it came back.

    """

    session: str
    data: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    cuts: int = 0
    _came: trio.Event = field(default_factory=trio.Event)

    async def run(self, port: int) -> None:
        """Listen until cancelled."""
        while True:
            async with await connect(port) as stream:
                last = f"Last-Event-ID: {self.ids[-1]}\r\n" if self.ids else ""
                try:
                    await stream.send_all(
                        f"GET /v1/sessions/{self.session}/events HTTP/1.0\r\n{last}\r\n".encode()
                    )
                    buffer = b""
                    while b"\r\n\r\n" not in buffer:
                        buffer += await receive(stream)
                    _, _, buffer = buffer.partition(b"\r\n\r\n")
                    while True:
                        *blocks, buffer = buffer.split(b"\n\n")
                        for block in blocks:
                            self._take(block.decode())
                        buffer += await receive(stream)
                except (Cut, trio.BrokenResourceError):
                    self.cuts += 1

    async def until(self, data: str) -> None:
        """Wait until an event with this data has come."""
        while data not in self.data:
            self._came = trio.Event()
            await self._came.wait()

    def _take(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line[1:])
        if fields.get("event", "").startswith("broadcaster."):
            self.gaps += [block] if "gap" in fields["event"] else []
        elif "data" in fields:
            self.data.append(fields["data"])
            self.ids.append(fields["id"])
            self._came.set()
