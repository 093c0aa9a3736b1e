"""A restart that no client notices: connections stay open, and every event comes once and in order.

The sockets wait in the descriptor store of the real systemd while one process ends and the next
begins. What counts is the TCP connection of each subscriber: it is the same before and after.
"""

from __future__ import annotations

import logging
import resource
from itertools import pairwise

import pytest
import trio

from broadcasterd.observe.messages import MESSAGE_IDS
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
        self.session = session
        self.acknowledged: list[str] = []

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            text = f"{self.session} {len(self.acknowledged)}"
            if await self._try(text):
                self.acknowledged.append(text)
            await trio.sleep(PUBLISH_S)

    async def _try(self, text: str) -> bool:
        body = f'{{"data":"{text}","idempotency_key":"{text}"}}'
        head = (
            f"POST /v1/sessions/{self.session}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
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


async def restart_under_load(service: Service, *, restarts: int) -> float:
    """Restart the service with subscribers and publishers; return the longest silence, in seconds.

    Checks that each subscriber has every event once and in order, on one connection.
    """
    readers: list[tuple[Publisher, Watcher]] = []
    publishers = [Publisher(service, f"s{number}") for number in range(SESSIONS)]
    async with trio.open_nursery() as nursery:
        for number in range(SUBSCRIBERS):
            publisher = publishers[number % SESSIONS]
            reader = await subscribe(service, publisher.session)
            readers.append((publisher, reader))
            nursery.start_soon(reader.run)
        async with trio.open_nursery() as publishing:
            for publisher in publishers:
                publishing.start_soon(publisher.run)
            await _each_has(readers, 20)
            for _ in range(restarts):
                pid = service.pid
                await trio.to_thread.run_sync(service.restart)

                assert service.pid != pid
                await _each_has(readers, len(publishers[0].acknowledged) + 20)
            publishing.cancel_scope.cancel()
        for publisher, reader in readers:
            # One that was accepted as its publisher was stopped has no acknowledgement.
            await _has(reader, len(publisher.acknowledged))
        closed = [reader for _, reader in readers if reader.ended.is_set()]
        nursery.cancel_scope.cancel()
    for publisher, reader in readers:
        count = len(publisher.acknowledged)

        assert publisher.acknowledged == reader.data[:count]
        assert len(reader.data) <= count + 1
        assert [] == reader.news
        reader.stream.socket.close()
    assert [] == closed
    return max(b - a for _, reader in readers for a, b in pairwise(reader.heard_at))


async def _each_has(readers: list[tuple[Publisher, Watcher]], count: int) -> None:
    for _, reader in readers:
        await _has(reader, count)


async def _has(reader: Watcher, count: int) -> None:
    await reader.until(lambda r: len(r.events) >= count, within=RESTART_S)


async def test_a_restart_closes_no_connection_and_loses_no_event(service: Service) -> None:
    service.start()
    silence = await restart_under_load(service, restarts=2)
    moved = service.journal(f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}")

    log.info("the longest silence of %d subscribers was %.2f s", SUBSCRIBERS, silence)
    assert [(str(SUBSCRIBERS), "0")] * 2 == [(m["STREAMS"], m["LOST_STREAMS"]) for m in moved]
    assert "0" == service.show("NFileDescriptorStore"), "nothing stays behind"


def test_without_a_descriptor_store_clients_come_back_to_the_log_that_was_left(
    service: Service,
) -> None:
    service.start("Environment=FDSTORE=0\n")
    first = service.publish("s", "a", "b", "c")["first_id"]
    with service.listening("s") as listener:
        listener.until("c")
        service.restart()

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    again = service.page("s", last_event_id=first)

    assert ["b", "c"] == [event["data"] for event in again["events"]]
    assert "gap" not in again
    assert [] == list((service.container.root / "run/broadcasterd").iterdir())


def test_what_an_unknown_version_left_is_let_go_of_and_clients_are_told(service: Service) -> None:
    service.start(
        "Environment=FDSTORE=0\nExecStartPre=+/bin/sh -c"
        " 'sed -i s/handover.1/handover_9/ /run/broadcasterd/*.handover || true'\n"
    )
    first = service.publish("s", "a", "b")["first_id"]
    service.restart()
    again = service.page("s", last_event_id=first)

    assert 1 == len(service.journal(f"MESSAGE_ID={MESSAGE_IDS['handover unreadable']}"))
    assert ([], {"asked": first, "oldest": None}) == (again["events"], again["gap"])
    assert service.publish("s", "c")["first_id"].partition("-")[0] != first.partition("-")[0]
    assert [] == list((service.container.root / "run/broadcasterd").iterdir())


def test_a_process_that_dies_hands_nothing_over_and_the_next_one_begins_anew(
    service: Service,
) -> None:
    service.start()
    first = service.publish("s", "a")["first_id"]
    pid = service.pid
    with service.listening("s") as listener:
        listener.until("a")
        service.kill("KILL")
        service.until_restarted(pid)

        assert listener.is_over()
    assert "gap" in service.page("s", last_event_id=first)
