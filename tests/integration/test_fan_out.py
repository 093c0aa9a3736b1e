"""One session and a crowd: everybody gets everything, and leaves nothing behind."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Self

import httpx
import pytest

from tests.support.broadcast import dechunk
from tests.support.daemon import Daemon, StartDaemon
from tests.support.flood import ASKING_MB, Health
from tests.support.sse import Event, parse
from tests.support.talk import JSON, SOON, publish, target

SUBSCRIBERS = 2000
EVENTS = 20
DEADLINE_S = 30.0
"""For a loaded machine; what it bounds takes a few seconds."""

KEPT_BYTES = 6 * 1024 * 1024
"""What a second crowd may leave behind: a fraction of what 2,000 forgotten streams would be."""

CLIENT = """
import socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(sys.argv[2].encode() + b"\\r\\n\\r\\n")
    while data := connection.recv(65536):
        print(len(data), flush=True)
"""


@pytest.fixture(autouse=True, scope="module")
def _many_descriptors() -> Iterator[None]:
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if hard < 2 * SUBSCRIBERS:
        pytest.skip(f"only {hard} open files are allowed")
    setrlimit(RLIMIT_NOFILE, (min(hard, 65536), hard))
    yield
    setrlimit(RLIMIT_NOFILE, (soft, hard))


def request(session: str) -> bytes:
    return f"GET {target(session)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Crowd:
    """Many subscribers of one session, who all have to get the same bytes; a context.

    Attributes:
        stream: what came after the opening of each stream, as far as anyone has read.

    """

    def __init__(self, daemon: Daemon, session: str, count: int) -> None:
        self._daemon = daemon
        self._session = session
        self._count = count
        self.stream = bytearray()
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._unopened: dict[int, bytes] = {}
        self._read: dict[int, int] = {}  # bytes of the stream that each has

    def __enter__(self) -> Self:
        for _ in range(self._count):
            sock = socket.create_connection(("127.0.0.1", self._daemon.port), SOON)
            self._sockets[sock.fileno()] = sock
            sock.sendall(request(self._session))
            sock.setblocking(False)  # noqa: FBT003 (that is how it is called)
            self._unopened[sock.fileno()] = b""
            self._epoll.register(sock, select.EPOLLIN)
            self.read(0)
        self.read_until(lambda: not self._unopened)
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, all at once."""
        self._epoll.close()
        for sock in self._sockets.values():
            sock.close()

    def read(self, wait: float) -> None:
        """Read what is there for anybody."""
        for fd, _ in self._epoll.poll(wait, len(self._sockets)):
            data = self._sockets[fd].recv(1 << 20)
            assert data, "a stream has ended"
            if fd in self._unopened:
                self._open(fd, data)
            else:
                self._compare(fd, data)

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read until the condition holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"{len(self.stream)} bytes: {self.progress()}"
            self.read(0.1)

    def is_level(self) -> bool:
        """Whether everybody has what anybody has."""
        return set(self._read.values()) == {len(self.stream)}

    def progress(self) -> str:
        """Say how far they are."""
        behind = sum(read < len(self.stream) for read in self._read.values())
        return f"{len(self._unopened)} unopened, {behind} behind"

    def events(self) -> list[Event]:
        """Return the events that came."""
        return list(parse(dechunk(bytes(self.stream))[0].decode().split("\n")))

    def _open(self, fd: int, data: bytes) -> None:
        received = self._unopened[fd] + data
        head, end_of_head, body = received.partition(b"\r\n\r\n")
        size, end_of_size, rest = body.partition(b"\r\n")
        if end_of_head and end_of_size and len(rest) >= int(size, 16) + 2:
            assert head.startswith(b"HTTP/1.1 200 ")
            del self._unopened[fd]
            self._read[fd] = 0
            self._compare(fd, rest[int(size, 16) + 2 :])
        else:
            self._unopened[fd] = received

    def _compare(self, fd: int, data: bytes) -> None:
        begin = self._read[fd]
        known = self.stream[begin : begin + len(data)]
        assert data.startswith(known), "two subscribers got different bytes"
        self.stream += data[len(known) :]
        self._read[fd] = begin + len(data)


def serve_a_crowd(daemon: Daemon, session: str, *, events: int) -> None:
    """Let a crowd come, publish to it, check what everybody got, and let it go."""
    expected: list[Event] = []
    with Crowd(daemon, session, SUBSCRIBERS) as crowd, httpx.Client() as publisher:
        for number in range(0, events, 2):
            data = [f"{number} {'x' * 50}", f"{number + 1} {'y' * 50}"]
            body = json.dumps([{"data": text} for text in data])
            answer = publisher.post(daemon.session(session), content=body, headers=JSON).json()
            ids = [answer["first_id"], answer["last_id"]]
            expected += [Event(event_id, text) for event_id, text in zip(ids, data, strict=True)]
            crowd.read(0)
        crowd.read_until(lambda: crowd.stream.count(b"\nid: ") == events and crowd.is_level())

        assert crowd.events() == expected


def wait_for_health(daemon: Daemon, condition: Callable[[Health], object]) -> None:
    """Poll the health until it is as it should be."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition(health := httpx.get(f"{daemon.url}/health").json()):
        assert time.monotonic() < deadline, health
        time.sleep(0.02)


def wait_for_subscribers(daemon: Daemon, count: int) -> None:
    """Wait until there are so many."""
    wait_for_health(daemon, lambda health: health["subscribers"] == count)


def is_empty(health: Health) -> bool:
    """Whether nothing is left but the connection that asks.

    One that has hung up may be there a moment longer than its answer.
    """
    return (health["sessions"], health["memory"]["accounted_mb"]) == (0, ASKING_MB)


@pytest.mark.slow
def test_a_crowd_gets_every_event_in_order_and_leaves_nothing_behind(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"heartbeat_interval": 600})
    after: list[int] = []
    for session in ("first", "second"):  # the first also pays for what is then kept
        serve_a_crowd(daemon, session, events=EVENTS)
        wait_for_subscribers(daemon, 0)
        httpx.delete(f"{daemon.url}/v1/sessions/{session}")
        wait_for_health(daemon, is_empty)
        after.append(daemon.rss())

    assert after[1] - after[0] < KEPT_BYTES
    assert daemon.whole_log().count("reason=client_gone") == 2 * SUBSCRIBERS


@pytest.mark.slow
def test_a_reader_that_stops_is_ended_and_the_others_get_everything(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_lag_events": 50, "heartbeat_interval": 600})
    with Crowd(daemon, "s", 50) as crowd, socket.socket() as stopped:
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stopped.settimeout(SOON)
        stopped.connect(("127.0.0.1", daemon.port))
        stopped.sendall(request("s"))
        wait_for_subscribers(daemon, 51)
        published = 0
        while httpx.get(f"{daemon.url}/health").json()["subscribers"] == 51:
            published += len(publish(daemon, "s", *["x" * 5000] * 10))
            crowd.read(0)
            assert published < 2000, "it is never ended"
        published += len(publish(daemon, "s", *["x" * 5000] * 10))
        crowd.read_until(lambda: crowd.stream.count(b"\nid: ") == published and crowd.is_level())
        received = b""
        while data := stopped.recv(65536):
            received += data
    body, ended = dechunk(received.partition(b"\r\n\r\n")[2])
    *events, last = parse(body.decode().split("\n"))

    assert ended
    assert (last.type, json.loads(last.data)) == (
        "broadcaster.end",
        {"reason": "slow_consumer", "reconnect": True},
    )
    assert events == crowd.events()[: len(events)]
    assert last.id == events[-1].id  # the end moved no cursor: it can be resumed from
    assert daemon.whole_log().count("reason=slow_consumer") == 1


def test_a_client_that_is_killed_is_noticed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"heartbeat_interval": 600})
    head = request("s").decode().removesuffix("\r\n\r\n")
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(daemon.port), head], stdout=subprocess.PIPE
    ) as client:
        wait_for_subscribers(daemon, 1)
        publish(daemon, "s", "x" * 1000)
        assert client.stdout is not None
        received = 0
        while received < 1000:
            received += int(client.stdout.readline())
        client.send_signal(signal.SIGKILL)
    wait_for_subscribers(daemon, 0)
    publish(daemon, "s", "nobody listens")

    assert daemon.whole_log().count("reason=client_gone") == 1
