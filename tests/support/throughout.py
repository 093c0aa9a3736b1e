"""Subscribers and publishers that go on while something happens to the daemon: nobody notices.

The TCP connection of each subscriber has to be the same before and after, and every acknowledged
event has to come on it once and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import trio
from typing_extensions import override

from tests.support.flood import Reader, read_answer
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


class Watcher(Reader):
    """A subscriber that notes the time of everything that came."""

    def __init__(self, stream: trio.SocketStream) -> None:
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

    def __init__(self, service: Service, session: str, port: int) -> None:
        self.session = session
        self.acknowledged: list[str] = []
        self._where = service.host, port

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
            async with await trio.open_tcp_stream(*self._where) as stream:
                await stream.send_all(self._request(text, "Connection: close"))
                async for data in stream:
                    answer += data
        except trio.BrokenResourceError:
            pass
        return answer.startswith(b"HTTP/1.1 200")


class KeptPublisher(Publisher):
    """The same on one connection, as long as that is kept. Every request has to be answered."""

    _stream: trio.SocketStream | None = None

    @override
    async def _try(self, text: str) -> bool:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(*self._where)
        await self._stream.send_all(self._request(text))
        try:
            answer = await read_answer(self._stream)
        except (EOFError, trio.BrokenResourceError) as error:
            raise AssertionError(f"{text} was not answered through {self._where}") from error
        assert answer.status == 200, f"{text} through {self._where}: {answer}"
        if answer.headers.get("connection") == "close":
            self._stream.socket.close()
            self._stream = None
        return True

    @override
    async def run(self) -> None:
        try:
            await super().run()
        finally:
            if self._stream is not None:
                self._stream.socket.close()


async def unnoticed(
    service: Service,
    *changes: Callable[[], object],
    subscribers: int = SUBSCRIBERS,
    ports: Sequence[int] = (PORT,),
    publisher_kind: type[Publisher] = Publisher,
    events: int = EVENTS,
) -> float:
    """Make changes, one after another, that no subscriber may notice.

    Args:
        service: has a session for each of ten publishers.
        changes: to be made.
        subscribers: how many there are.
        ports: the daemon's and its proxies'; subscribers and publishers come through all of them.
        publisher_kind: how the publishers go about it.
        events: that each subscriber gets before something happens, and between and after.

    Returns:
        The longest time, in seconds, that any of them heard nothing.

    """
    raise_open_files(subscribers + FILES)
    readers: list[tuple[Publisher, Watcher]] = []
    publishers = [
        publisher_kind(service, f"s{number}", ports[number % len(ports)])
        for number in range(SESSIONS)
    ]
    async with trio.open_nursery() as nursery:
        for number in range(subscribers):
            publisher = publishers[number % SESSIONS]
            port = ports[number // SESSIONS % len(ports)]
            reader = await _subscribe(service, publisher.session, port)
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
        reader.stream.socket.close()
        # An event that was accepted as the publisher was stopped has no acknowledgement.
        count = len(publisher.acknowledged)
        assert reader.data[:count] == publisher.acknowledged
        assert len(reader.data) <= count + 1
        assert reader.news == []

    assert all(still_open)
    return max(b - a for _, reader in readers for a, b in pairwise(reader.heard_at))


async def _subscribe(service: Service, session: str, port: int) -> Watcher:
    stream = await trio.open_tcp_stream(service.host, port)
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
