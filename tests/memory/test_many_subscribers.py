"""15,000 subscribers without events: one daemon, as it comes, carries them under its warning."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any, Self

import httpx
import pytest

from tests.support.broadcast import dechunk
from tests.support.daemon import Daemon, Launch, StartDaemon, execute
from tests.support.flood import MIB
from tests.support.sse import Event, parse
from tests.support.talk import publish, target
from tests.support.tools import raise_open_files

SUBSCRIBERS = 15_000
SPARE_FILES = 500
"""Of each process: what it has open beside one socket a subscriber."""

SOURCES = 8
"""Addresses that subscribers come from: closed connections keep their ports for a minute."""

WINDOW = 64
"""Subscribes on their way: enough to keep the daemon busy."""

LOOK_EVERY = 1000
DEADLINE_S = 60.0
"""For a loaded machine; opening takes about a millisecond each."""


@pytest.fixture
def launch() -> Launch:
    """Start the daemon as a shell does, so that its memory is all its own."""
    return execute


@pytest.fixture(autouse=True)
def _many_descriptors() -> Iterator[None]:
    before = getrlimit(RLIMIT_NOFILE)
    raise_open_files(SUBSCRIBERS + SPARE_FILES)
    yield
    setrlimit(RLIMIT_NOFILE, before)


class Crowd:
    """Subscribers of one session, on one epoll; a context."""

    def __init__(self, daemon: Daemon, session: str) -> None:
        self._address = ("127.0.0.1", daemon.port)
        self._request = f"GET {target(session)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._unopened: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, all at once."""
        self._epoll.close()
        for sock in self._sockets.values():
            sock.close()

    def grow(self, count: int) -> None:
        """Subscribe so many times more, and wait until each has the opening of its stream."""
        for _ in range(count):
            self._connect()
            self.read_until(lambda: len(self._unopened) < WINDOW)
        self.read_until(lambda: not self._unopened)

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read what comes for anybody until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{len(self._unopened)} are unopened"
            for number, _ in self._epoll.poll(0.1, 1024):
                self._read(number)

    def have(self, wire: bytes) -> bool:
        """Whether these bytes have come for everybody."""
        return all(wire in received for received in self._received.values())

    def streams(self) -> Iterator[list[Event]]:
        """Yield what each has got, as events."""
        for received in self._received.values():
            body, ended = dechunk(received.partition(b"\r\n\r\n")[2])

            assert not ended
            yield list(parse(body.decode().split("\n")))

    def _connect(self) -> None:
        sock = socket.socket()
        # The port is chosen with the connection, so that each source has all of them.
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{2 + len(self._sockets) % SOURCES}", 0))
        sock.settimeout(DEADLINE_S)
        sock.connect(self._address)
        sock.sendall(self._request)
        sock.settimeout(0)
        self._sockets[sock.fileno()] = sock
        self._received[sock.fileno()] = b""
        self._unopened.add(sock.fileno())
        self._epoll.register(sock, select.EPOLLIN)

    def _read(self, number: int) -> None:
        data = self._sockets[number].recv(65536)
        assert data, f"a stream has ended: {self._received[number]!r}"
        received = self._received[number] = self._received[number] + data
        if number in self._unopened and b"\n: stream " in received:
            assert received.startswith(b"HTTP/1.1 200 "), received
            self._unopened.discard(number)


def health(daemon: Daemon) -> dict[str, Any]:
    answer = httpx.get(f"{daemon.url}/health", timeout=DEADLINE_S)
    document: dict[str, Any] = answer.json()
    return document


def assert_at_ease(daemon: Daemon, *, subscribers: int) -> None:
    """Assert that the daemon has so many subscribers, and memory is no concern to it."""
    document = health(daemon)
    memory = document["memory"]

    assert document["subscribers"] == subscribers
    assert document["status"] == "healthy"
    assert memory["breaker"] == "closed"
    assert memory["warning_mb"] == 200
    assert memory["rss_mb"] < memory["warning_mb"]
    assert daemon.rss() < memory["warning_mb"] * MIB


def test_fifteen_thousand_idle_subscribers_are_no_burden(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    with Crowd(daemon, "s") as crowd:
        for opened in range(0, SUBSCRIBERS, LOOK_EVERY):
            assert_at_ease(daemon, subscribers=opened)
            crowd.grow(LOOK_EVERY)
        assert_at_ease(daemon, subscribers=SUBSCRIBERS)
        [event_id] = publish(daemon, "s", "to everybody")
        crowd.read_until(lambda: crowd.have(f"id: {event_id}\n\n\r\n".encode()))
        assert_at_ease(daemon, subscribers=SUBSCRIBERS)
        for events in crowd.streams():
            assert events == [Event(event_id, "to everybody")]
    deadline = time.monotonic() + DEADLINE_S
    while subscribers := health(daemon)["subscribers"]:
        assert time.monotonic() < deadline, f"{subscribers} subscribers"
        time.sleep(0.05)

    assert_at_ease(daemon, subscribers=0)
