"""Subscribers and publishers that go on while something happens to the daemon: nobody notices.

The TCP connection of each subscriber has to be the same before and after, and every acknowledged
event has to come on it once and in order.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import trio
from typing_extensions import override

from tests.support.flood import Reader, Stream, hang_up, read_answer
from tests.support.service import PORT, Service
from tests.support.tools import raise_open_files

SUBSCRIBERS = 1000
SESSIONS = 10
PUBLISH_S = 0.2
EVENTS = 5
"""Events that each subscriber gets before something happens, and between and after."""

CHANGE_S = 60.0
FILES = 1000
"""Files that a test has open besides."""


@dataclass(frozen=True, slots=True)
class Door:
    """A port that clients come through: the daemon's own, or that of a proxy.

    Attributes:
        context: of clients, where TLS is spoken there.

    """

    port: int = PORT
    context: ssl.SSLContext | None = None

    async def connect(self, host: str) -> Stream:
        """Open a connection."""
        plain = await trio.open_tcp_stream(host, self.port)
        if self.context is None:
            return plain
        secured = trio.SSLStream(plain, self.context, https_compatible=True)
        await secured.do_handshake()
        return secured


class Watcher(Reader):
    """A subscriber that notes the time of everything that came."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.heard_at: list[float] = []

    @override
    def _take(self, data: bytes) -> None:
        self.heard_at.append(trio.current_time())
        super()._take(data)


class Publisher:
    """Publishes numbers to a session, each until it is acknowledged: as a program that retries.

    A connection for each try, as cheap as those of :mod:`tests.support.flood`: ten of these and a
    thousand watchers share two cores with the daemon.
    """

    def __init__(self, service: Service, session: str, door: Door) -> None:
        self.session = session
        self.acknowledged: list[str] = []
        self._host, self._door = service.host, door

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            text = f"{self.session} {len(self.acknowledged)}"
            if await self._try(text):
                self.acknowledged.append(text)
            await trio.sleep(PUBLISH_S)

    def _request(self, text: str, *fields: str) -> bytes:
        body = f'{{"data":"{text}","idempotency_key":"{text}"}}'
        return "\r\n".join(
            [
                f"POST /v1/sessions/{self.session}/events HTTP/1.1",
                "Host: localhost",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                *fields,
                "",
                body,
            ]
        ).encode()

    async def _try(self, text: str) -> bool:
        answer = b""
        try:
            async with await self._door.connect(self._host) as stream:
                await stream.send_all(self._request(text, "Connection: close"))
                async for data in stream:
                    answer += data
        except trio.BrokenResourceError:
            pass
        return answer.startswith(b"HTTP/1.1 200")


class KeptPublisher(Publisher):
    """The same on one connection, as long as that is kept. Every request has to be answered."""

    _stream: Stream | None = None

    @override
    async def _try(self, text: str) -> bool:
        if self._stream is None:
            self._stream = await self._door.connect(self._host)
        await self._stream.send_all(self._request(text))
        try:
            answer = await read_answer(self._stream)
        except (EOFError, trio.BrokenResourceError) as error:
            raise AssertionError(f"{text} was not answered through {self._door}") from error
        assert answer.status == 200, f"{text} through {self._door}: {answer}"
        if answer.headers.get("connection") == "close":
            hang_up(self._stream)
            self._stream = None
        return True

    @override
    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._stream is not None:
                hang_up(self._stream)


async def unnoticed(
    service: Service,
    *changes: Callable[[], object],
    subscribers: int = SUBSCRIBERS,
    sessions: int = SESSIONS,
    doors: Sequence[Door] = (Door(),),
    publisher_kind: type[Publisher] = Publisher,
    events: int = EVENTS,
) -> float:
    """Make changes, one after another, that no subscriber may notice.

    Args:
        service: has a session for each publisher.
        changes: to be made.
        subscribers: how many there are.
        sessions: how many there are, each with a publisher.
        doors: subscribers and publishers come through all of them.
        publisher_kind: how the publishers go about it.
        events: that each subscriber gets before something happens, and between and after.

    Returns:
        The longest time, in seconds, that any of them heard nothing.

    """
    raise_open_files(subscribers + FILES)
    readers: list[tuple[Publisher, Watcher]] = []
    publishers = [
        publisher_kind(service, f"s{number}", doors[number % len(doors)])
        for number in range(sessions)
    ]
    async with trio.open_nursery() as nursery:
        for number in range(subscribers):
            publisher = publishers[number % sessions]
            door = doors[(number + number // sessions) % len(doors)]
            reader = await _subscribe(service, publisher.session, door)
            readers.append((publisher, reader))
            nursery.start_soon(reader.run)
        async with trio.open_nursery() as publishing:
            for publisher in publishers:
                publishing.start_soon(publisher.run)
            await _all_have_more(readers, events)
            for change in changes:
                with trio.fail_after(CHANGE_S):
                    await trio.to_thread.run_sync(change)
                await _all_have_more(readers, events)
            publishing.cancel_scope.cancel()
        for publisher, reader in readers:
            await _until_it_has(reader, len(publisher.acknowledged))
        still_open = [not reader.ended.is_set() for _, reader in readers]
        nursery.cancel_scope.cancel()
    for publisher, reader in readers:
        reader.hang_up()
        # An event that was accepted as the publisher was stopped has no acknowledgement.
        count = len(publisher.acknowledged)
        assert reader.data[:count] == publisher.acknowledged
        assert len(reader.data) <= count + 1
        assert reader.news == []

    assert all(still_open)
    return max(b - a for _, reader in readers for a, b in pairwise(reader.heard_at))


async def _subscribe(service: Service, session: str, door: Door) -> Watcher:
    stream = await door.connect(service.host)
    await stream.send_all(
        f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    return Watcher(stream)


async def _all_have_more(readers: list[tuple[Publisher, Watcher]], events: int) -> None:
    wanted = [(reader, len(reader.data) + events) for _, reader in readers]
    for reader, count in wanted:
        await _until_it_has(reader, count)


async def _until_it_has(reader: Watcher, count: int) -> None:
    await reader.until(lambda r: len(r.data) >= count, within=CHANGE_S)
