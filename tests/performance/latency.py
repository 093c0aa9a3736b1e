"""How long a POST takes that is alone: until its answer, and until a subscriber has its event."""

import re
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from tests.performance.posts import Listening
from tests.performance.processes import LOOPBACK, Broken

TIMEOUT_S = 10.0
PAUSE_S = 0.002
"""Between two of them: one that comes at once finds everything awake."""

ANSWER = re.compile(rb"\}\s*\Z")
EVENT = re.compile(rb"\nid: [^\n]+\n\n\r\n\Z")
"""How they end."""


def alone(server: Listening, session: str, request: str, count: int) -> tuple[float, float]:
    """Return the medians, in ms, of so many POSTs, one after the other.

    Args:
        server: ours, whose answers are JSON.
        session: that gets them; one subscriber listens to it.
        request: the POST, as it goes over the wire.
        count: how many.

    """
    answers, deliveries = [], []
    with _connected(server) as publisher, _connected(server) as subscriber:
        head = f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: {LOOPBACK}\r\n"
        subscriber.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
        if not _until(subscriber, b"\r\n\r\n").startswith(b"HTTP/1.1 200"):
            raise Broken("no stream")
        for _ in range(count):
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            publisher.sendall(request.encode())
            took = dict(_times({publisher: ANSWER, subscriber: EVENT}, began))
            answers.append(took[publisher])
            deliveries.append(took[subscriber])
    return median(answers) * 1e3, median(deliveries) * 1e3


@contextmanager
def _connected(server: Listening) -> Iterator[socket.socket]:
    with socket.create_connection((LOOPBACK, server.port), timeout=TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def _times(
    ends: Mapping[socket.socket, re.Pattern[bytes]], began: float
) -> Iterator[tuple[socket.socket, float]]:
    """Yield each connection, with the seconds until what came ends as it is to."""
    read = dict.fromkeys(ends, b"")
    while read:
        ready, _, _ = select.select([*read], [], [], TIMEOUT_S)
        now = time.perf_counter()
        if not ready:
            raise Broken("a POST alone has no answer, or no subscriber")
        for connection in ready:
            read[connection] += _some(connection)
            if ends[connection].search(read[connection]):
                del read[connection]
                yield connection, now - began


def _until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while end not in read:
        read += _some(connection)
    return read


def _some(connection: socket.socket) -> bytes:
    if not (data := connection.recv(65536)):
        raise Broken("the server closed a connection")
    return data
