"""What a second process is worth: deliveries/s of one node, and of two, on one Redis.

``python -m tests.performance.two_nodes`` runs both in turn, and prints what each came to.

The load is no limit, though it shares the cores. Subscribers are sockets that the kernel empties:
every two seconds, one system call each has it forget all that came (``MSG_TRUNC``, tcp(7)), which
no program then reads. One subscriber of each session at each node is read, for it tells when the
next event may come: each session has one event under way, so that no write has two of them. In the
end the daemons' own counts are compared with what was published. What the load and Redis took of
the CPU is printed beside what the nodes took: the nodes had the rest.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psutil

from tests.performance.processes import LOOPBACK, ROOT, Broken
from tests.performance.server_process import Server, free_port
from tests.performance.servers import UNLIMITED
from tests.support.daemon import as_toml
from tests.support.redis import Redis, redis

DATA = "x" * 200
BODY = json.dumps({"data": DATA}).encode()
MARK = f"data: {DATA}".encode()
"""An event in a stream."""

RECEIVE_BYTES = 1 << 20
"""What the kernel may keep for a subscriber: more than comes until it is emptied again."""

EMPTY_S = 2.0
SELECT_S = 0.5
WARM_UP_S = 1.0
ANSWER_S = 60.0
FORGET = socket.MSG_TRUNC | socket.MSG_DONTWAIT
FEW_FILES = 200

_receive = ctypes.CDLL(None, use_errno=True).recv


@dataclass(slots=True)
class Session:
    """A session, and its event that is under way.

    Attributes:
        publisher: a connection to the node that is asked.
        followed: the streams that are read, one at each node.
        forgotten: the streams that the kernel empties.
        rounds: events that have come to every node, and were answered.

    """

    name: str
    publisher: socket.socket
    followed: list[socket.socket] = field(default_factory=list)
    forgotten: list[socket.socket] = field(default_factory=list)
    awaited: set[socket.socket] = field(default_factory=set)
    rounds: int = 0

    @property
    def subscribers(self) -> int:
        """How many there are."""
        return len(self.followed) + len(self.forgotten)

    def publish(self) -> None:
        """Send the next event."""
        head = f"POST /v1/sessions/{self.name}/events HTTP/1.1\r\nHost: {LOOPBACK}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        self.awaited = {self.publisher, *self.followed}
        self.publisher.sendall(head.encode() + kind.encode() + BODY)

    def take(self, sock: socket.socket) -> None:
        """Take what came to a socket.

        Raises:
            Broken: the node refuses, or hung up.

        """
        found = sock.recv(65536)
        if not found or (sock is self.publisher and not found.startswith(b"HTTP/1.1 200")):
            raise Broken(f"{self.name}: {found!r}")
        if sock is self.publisher or MARK in found:
            self.awaited.discard(sock)


class Load:
    """All subscribers and publishers, in one thread.

    Args:
        ports: those of the nodes.
        sessions: how many there are.
        subscribers: how many each session has, over all nodes.

    """

    def __init__(self, ports: Sequence[int], sessions: int, subscribers: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._emptied = 0.0
        self.sessions = [
            Session(f"s{number}", self._connect(ports[number % len(ports)]))
            for number in range(sessions)
        ]
        for session in self.sessions:
            self._selector.register(session.publisher, selectors.EVENT_READ, session)
            for number in range(subscribers):
                sock = self._subscribe(session.name, ports[number % len(ports)])
                if number < subscribers - len(ports):
                    session.forgotten.append(sock)
                else:  # the last one of each node is told last
                    session.followed.append(sock)
                    self._selector.register(sock, selectors.EVENT_READ, session)

    @property
    def deliveries(self) -> int:
        """Events that came, each as often as its session has subscribers."""
        return sum(each.rounds * each.subscribers for each in self.sessions)

    def begin(self) -> None:
        """Publish the first event of each session."""
        for session in self.sessions:
            session.publish()

    def run(self, seconds: float, *, goes_on: bool = True) -> None:
        """Publish an event as soon as the one before has come; or wait for those under way."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(each.awaited for each in self.sessions):
            for key, _ in self._selector.select(SELECT_S):
                session: Session = key.data
                if session.awaited:
                    session.take(key.fileobj)  # type: ignore[arg-type] # a socket
                    if not session.awaited:
                        session.rounds += 1
                        if goes_on:
                            session.publish()
            if time.monotonic() > self._emptied + EMPTY_S:
                self._empty()

    def close(self) -> None:
        """Hang up."""
        for session in self.sessions:
            for sock in (session.publisher, *session.followed, *session.forgotten):
                sock.close()
        self._selector.close()

    def _empty(self) -> None:
        for session in self.sessions:
            for sock in session.forgotten:
                while _receive(sock.fileno(), None, RECEIVE_BYTES, FORGET) == RECEIVE_BYTES:
                    pass
        self._emptied = time.monotonic()

    def _connect(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        sock.connect((LOOPBACK, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _subscribe(self, session: str, port: int) -> socket.socket:
        sock = self._connect(port)
        request = f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n"
        sock.sendall(request.encode())
        opened = b""
        while b": stream " not in opened:
            opened += (more := sock.recv(65536))
            if not more:
                raise Broken(f"{session}: {opened!r}")
        return sock


@contextmanager
def nodes(count: int, url: str) -> Iterator[list[Server]]:
    """Run so many nodes while inside."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="nodes-")))
        started = []
        for number in range(count):
            port = free_port()
            config = directory / f"{number}.toml"
            sections = {
                **UNLIMITED,
                "server": {"host": LOOPBACK, "port": port},
                "auth": {"mode": "none"},
                "engine": {"kind": "redis", "url": url, "timeout": 30},
            }
            config.write_text(as_toml(sections))
            command = [sys.executable, "-m", "broadcasterd", "serve", "--config", str(config)]
            environment = {"PYTHONPATH": str(ROOT / "daemon")}
            node = Server(f"node {number}", command, port, environment)
            started.append(stack.enter_context(node))
        yield started


def measure(count: int, *, sessions: int, subscribers: int, seconds: float) -> dict[str, float]:
    """Return what so many nodes come to.

    Raises:
        Broken: a node did not do what it was asked.

    """
    with redis() as server, nodes(count, server.url) as servers, ExitStack() as stack:
        load = Load([each.port for each in servers], sessions, subscribers)
        stack.callback(load.close)
        load.begin()
        load.run(WARM_UP_S)
        before, began = load.deliveries, time.monotonic()
        nodes_s = sum(each.cpu_s() for each in servers)
        load_s, redis_s = time.process_time(), _cpu_s(server)
        load.run(seconds)
        load_s, redis_s = time.process_time() - load_s, _cpu_s(server) - redis_s
        nodes_s = sum(each.cpu_s() for each in servers) - nodes_s
        deliveries, took_s = load.deliveries - before, time.monotonic() - began
        load.run(ANSWER_S, goes_on=False)
        counted = sum(_deliveries(each) for each in servers)
        if counted != load.deliveries:
            raise Broken(f"{load.deliveries} deliveries were due, and {counted} done")
    return {
        "nodes": count,
        "deliveries_per_s": round(deliveries / took_s),
        "us_per_delivery": round(nodes_s / deliveries * 1e6, 2),
        "cores_of_nodes": round(nodes_s / took_s, 2),
        "cores_of_redis": round(redis_s / took_s, 2),
        "cores_of_load": round(load_s / took_s, 2),
    }


def _deliveries(node: Server) -> int:
    with urlopen(f"http://{LOOPBACK}:{node.port}/stats", timeout=ANSWER_S) as answer:
        found: int = json.load(answer)["counters"]["deliveries"]
        return found


def _cpu_s(server: Redis) -> float:
    assert server.process is not None
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


def main() -> None:
    """Measure one and two, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--subscribers", type=int, default=300, help="of each session")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = given.sessions * (given.subscribers + 1) + FEW_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(given.rounds):
        for count, rounds in found.items():
            size = {"sessions": given.sessions, "subscribers": given.subscribers}
            rounds.append(measure(count, seconds=given.seconds, **size))
            _say(rounds[-1])
    one, two = (
        {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for rounds in found.values()
    )
    _say(
        {
            "load_average": round(os.getloadavg()[0], 1),
            "by_the_clock": round(two["deliveries_per_s"] / one["deliveries_per_s"], 2),
            "by_cpu_time": round(2 * one["us_per_delivery"] / two["us_per_delivery"], 2),
        }
    )


def _say(figures: dict[str, float]) -> None:
    sys.stdout.write(f"{json.dumps(figures)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
