"""A restart that no client notices: connections stay open, and every event comes once and in order.

The sockets wait in the descriptor store of the real systemd while one process ends and the next
begins. What counts is the TCP connection of each subscriber: it is the same before and after.
"""

from __future__ import annotations

import logging
import re
import resource
from itertools import pairwise

import pytest
import trio

from tests.support.container import SOON_S
from tests.support.flood import Reader
from tests.support.service import PORT, Service

log = logging.getLogger(__name__)

SUBSCRIBERS = 1000
SESSIONS = 10
PUBLISH_S = 0.02
RESTART_S = 60.0


@pytest.fixture(autouse=True)
def _many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * SUBSCRIBERS)), hard))


class Watcher(Reader):
    """A subscriber that notes when something came."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__(stream)
        self.heard_at: list[float] = []

    def _take(self, data: bytes) -> None:
        self.heard_at.append(trio.current_time())
        super()._take(data)


async def subscribe(service: Service, session: str) -> Watcher:
    """Subscribe; nothing of the stream is read yet."""
    stream = await trio.open_tcp_stream(service.host, PORT)
    await stream.send_all(f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return Watcher(stream)


class Publisher:
    """Publishes numbers to a session, each until it is acknowledged: as a program that retries."""

    def __init__(self, service: Service, session: str) -> None:
        self._service = service
        self._session = session
        self.acknowledged: list[str] = []

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            text = f"{self._session} {len(self.acknowledged)}"
            while not await self._try(text):
                await trio.sleep(PUBLISH_S)
            self.acknowledged.append(text)
            await trio.sleep(PUBLISH_S)

    async def _try(self, text: str) -> bool:
        body = f'{{"data":"{text}","idempotency_key":"{text}"}}'
        head = (
            f"POST /v1/sessions/{self._session}/events HTTP/1.1\r\nHost: x\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        answer = b""
        try:
            async with await trio.open_tcp_stream(self._service.host, PORT) as stream:
                await stream.send_all((head + body).encode())
                async for data in stream:
                    answer += data
        except trio.BrokenResourceError:
            pass
        return answer.startswith(b"HTTP/1.1 200")


async def restart_under_load(service: Service, *, restarts: int = 1) -> list[float]:
    """Restart the service with subscribers and publishers; return the longest silence of each."""
    readers: list[tuple[str, Watcher]] = []
    publishers = [Publisher(service, f"s{number}") for number in range(SESSIONS)]
    async with trio.open_nursery() as nursery:
        for number in range(SUBSCRIBERS):
            session = f"s{number % SESSIONS}"
            reader = await subscribe(service, session)
            readers.append((session, reader))
            nursery.start_soon(reader.run)
        async with trio.open_nursery() as publishing:
            for publisher in publishers:
                publishing.start_soon(publisher.run)
            await _all_have_more(readers, 20)
            for _ in range(restarts):
                pid = service.pid
                with trio.fail_after(RESTART_S):
                    await trio.to_thread.run_sync(
                        service.container.run, "systemctl", "restart", service.unit
                    )

                assert service.pid != pid
                await _all_have_more(readers, 20)
            publishing.cancel_scope.cancel()
        by_session = {p._session: p.acknowledged for p in publishers}
        with trio.fail_after(SOON_S):
            for session, reader in readers:
                while len(reader.data) < len(by_session[session]):
                    await trio.sleep(0.05)
        still_open = [not reader.ended.is_set() for _, reader in readers]
        nursery.cancel_scope.cancel()
    for session, reader in readers:
        # An event that was accepted as the publisher was stopped has no acknowledgement.
        assert reader.data[: len(by_session[session])] == by_session[session]
        assert len(reader.data) <= len(by_session[session]) + 1
        assert reader.news == []
        reader.stream.socket.close()

    assert all(still_open)
    return [max(b - a for a, b in pairwise(reader.heard_at)) for _, reader in readers]


async def _all_have_more(readers: list[tuple[str, Watcher]], count: int) -> None:
    wanted = [len(reader.events) + count for _, reader in readers]
    with trio.fail_after(RESTART_S):
        while any(len(r.events) < w for (_, r), w in zip(readers, wanted, strict=True)):
            await trio.sleep(0.05)


async def test_a_restart_closes_no_connection_and_loses_no_event(service: Service) -> None:
    service.start()
    silences = await restart_under_load(service, restarts=2)
    [taken_up, _] = [m for m in service.messages() if "handover taken up" in m]

    log.info("the longest silence of %d subscribers was %.2f s", SUBSCRIBERS, max(silences))
    assert re.search(rf"streams={SUBSCRIBERS}\b", taken_up) or "handover taken up" in taken_up
    assert "1" != service.show("NRestarts")
    assert "0" == service.show("NFileDescriptorStore"), "nothing stays behind"
