"""The load generator: many subscribers and one publisher, in a process of their own.

Owns the client side of the benchmark: raw non-blocking sockets on one epoll and nothing but the
standard library, so that what it costs is neither counted as the server's CPU time nor hidden in an
HTTP client. It reads commands from stdin and answers each on stdout, one JSON object a line:

    {"do": "open", "session": "s", "count": 1000, "spread": 1}
        subscribe; answered when all have their first bytes. With a spread of 10, subscribers and
        events go in turn to the sessions s0 to s9; with one of 1, all to the session s
    {"do": "publish", "session": "s", "events": 100, "size": 200, "rate": 20, "spread": 1}
        publish to all who are subscribed (rate in events/s, 0: as fast as answered)
    {"do": "latency", "since_s": 1.5, "until_s": 2.5}
        latencies of those events of the last publish that were sent in a span of CLOCK_MONOTONIC
    {"do": "drain"}
        read whatever comes, until the next line of stdin, which says how many events are due, and
        until these are there; answered with their number
    {"do": "reconnect", "window": 1024}
        hang up on every subscriber, and subscribe all again after the last event
    {"do": "post", "requests": ["POST ..."], "connections": 16, "seconds": 2, "fresh": false}
        post over many connections: see loadgen_poster.py
    {"do": "close"}
        hang up on every subscriber

Every byte of every subscriber is parsed: see loadgen_subscriber.py. What is wrong is reported in
`errors`, never skipped; only `drain` counts without a look at what it counts.
"""

import json
import math
import os
import re
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

from tests.performance.loadgen_poster import Poster
from tests.performance.loadgen_publisher import STALL_S, Publisher
from tests.performance.loadgen_subscriber import (
    MARK_BYTES,
    READ_BYTES,
    LoadError,
    Subscriber,
    Tally,
    percentile,
)

# Subscribes in flight: enough to keep the server busy, few enough that no backlog overflows (a
# dropped SYN is retried after a second, and would be measured as the server's slowness).
WINDOW = 32
POLL_S = 1.0  # how often progress is looked at
TAIL_S = 0.05  # listen a little longer than the last event: a doubled one would come now
SHOWN_ERRORS = 10
EVENT = b"data:"


def name_of(session: str, turn: int, spread: int) -> str:
    """Return the session whose turn it is."""
    return session if spread == 1 else f"{session}{turn % spread}"


class LoadGenerator:
    """All subscribers of one server, on one epoll.

    Args:
        host: where the server is.
        port: where it listens.
        text: whether the body of a POST is an event's text, and not JSON.
        token: is sent with each request.

    """

    def __init__(self, host: str, port: int, *, text: bool, token: str | None) -> None:
        self.host = host
        self.port = port
        # Once, and not for each of ten thousand clients.
        [found, *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.family, self.address = found[0], found[4]
        self.text = text
        self.authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self.epoll = select.epoll()
        self.subscribers: dict[int, Subscriber] = {}
        self.opened: list[str] = []  # the session of each
        self.tally = Tally()
        self.sequence = 0  # of the next event; goes up for as long as the process lives

    def open(
        self, session: str, count: int, spread: int = 1, window: int = WINDOW
    ) -> dict[str, object]:
        """Subscribe `count` times, `window` at once; return when each has its first bytes.

        Nothing may have been published to the session: a replay would count as lost events.
        """
        started = time.monotonic()
        delivered = self.tally.deliveries
        sessions = [name_of(session, turn, spread) for turn in range(count)]
        self._subscribe(sessions, window, "")
        if self.tally.deliveries > delivered:
            raise LoadError(f"{session}: something had been published before")
        self.opened += sessions
        return {"opened": count, "seconds": time.monotonic() - started}

    def close(self) -> dict[str, object]:
        """Hang up on every subscriber."""
        count = len(self.subscribers)
        for subscriber in self.subscribers.values():
            subscriber.sock.close()  # also takes it out of the epoll
        self.subscribers.clear()
        self.opened.clear()
        return {"closed": count}

    def reconnect(self, window: int) -> dict[str, object]:
        """Hang up on all, and have all back, who ask for what came after the last event."""
        last_ids: list[bytes] = re.findall(rb"^id: ?(\S+)$", self.tally.last_event, re.MULTILINE)
        if not last_ids:
            raise LoadError("no event has come yet, so that there is no Last-Event-ID")
        sessions = list(self.opened)
        began = time.monotonic()
        self.close()
        self._subscribe(sessions, window, f"Last-Event-ID: {last_ids[-1].decode()}\r\n")
        self.opened = sessions
        return {"opened": len(sessions), "began_s": began, "ended_s": time.monotonic()}

    def publish(
        self, session: str, events: int, size: int, rate: float, spread: int = 1
    ) -> dict[str, object]:
        """Publish `events` of `size` bytes at `rate` a second, and see all of them arrive.

        The number of events is a multiple of the spread; each session counts its own.
        """
        in_each = events // spread
        tally = self.tally = Tally(first=self.sequence, pad=size - MARK_BYTES)
        for subscriber in self.subscribers.values():
            subscriber.tally = tally
            subscriber.expected = tally.first
        publisher = Publisher(
            self.host, self.port, text=self.text, authorization=self.authorization
        )
        self.epoll.register(publisher.sock.fileno(), select.EPOLLIN)
        due = deque(range(events))
        self.sequence += in_each
        expected = in_each * len(self.subscribers)
        started = progress_at = time.monotonic()
        late_s = 0.0
        seen = -1
        while due or publisher.waiting or tally.deliveries < expected:
            now = time.monotonic()
            if seen != (seen := tally.deliveries + len(due)):
                progress_at = now
            elif now - progress_at > STALL_S:
                break  # what is missing is counted below
            next_at = started + (events - len(due)) / rate if rate else now
            if due and not publisher.waiting and now >= next_at:
                late_s = max(late_s, now - next_at)
                turn = due.popleft()
                publisher.send(
                    name_of(session, turn, spread), tally.first + turn // spread, tally.pad
                )
                continue
            idle_s = next_at - now if due and not publisher.waiting else POLL_S
            self._read(min(idle_s, POLL_S), publisher)
        seconds = time.monotonic() - started
        until = time.monotonic() + TAIL_S
        while (left := until - time.monotonic()) > 0:
            self._read(left)
        publisher.sock.close()
        self._count_losses(tally, in_each)
        return {
            "deliveries": tally.deliveries,
            "reads": tally.reads,
            "seconds": seconds,
            "late_ms": late_s * 1e3,
            **self.latency(),
            "errors": tally.errors[:SHOWN_ERRORS],
        }

    def latency(self, since_s: float = 0, until_s: float = math.inf) -> dict[str, object]:
        """Sum up the latencies of the events that were sent in a span of CLOCK_MONOTONIC."""
        latencies_ms = self.tally.latencies_ms(since_s * 1e9, until_s * 1e9)
        return {
            "p50_ms": percentile(latencies_ms, 50),
            "p99_ms": percentile(latencies_ms, 99),
            "max_ms": latencies_ms[-1] if latencies_ms else 0.0,
        }

    def drain(self) -> dict[str, object]:
        """Count the events that come until the next line of stdin, which says how many are due."""
        events, due = 0, math.inf
        ends = dict.fromkeys(self.subscribers, b"")  # an event's mark may come in two reads
        until = math.inf
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        while (now := time.monotonic()) < until:
            for fd, _ in self.epoll.poll(min(until - now, POLL_S), 512):
                if fd == sys.stdin.fileno():
                    due = int(sys.stdin.readline())
                    self.epoll.unregister(fd)
                    came = True
                else:
                    data = self.subscribers[fd].sock.recv(READ_BYTES)
                    if not data:
                        raise LoadError(f"{self.subscribers[fd].name}: the server ended the stream")
                    came = EVENT in ends[fd] + data  # heartbeats keep nobody waiting
                    events += (ends[fd] + data).count(EVENT)
                    ends[fd] = data[1 - len(EVENT) :]
                if came and due < math.inf:
                    until = time.monotonic() + (TAIL_S if events >= due else STALL_S)
        return {"events": events}

    def post(
        self, requests: list[str], connections: int, seconds: float, *, fresh: bool
    ) -> dict[str, object]:
        """Post the requests over and over; see loadgen_poster.py."""
        encoded = [request.encode() for request in requests]
        poster = Poster((self.host, self.port), encoded, fresh=fresh)
        took_s = poster.run(connections, seconds)
        return {
            "requests": poster.answered,
            "seconds": took_s,
            "failures": poster.failures,
        }

    def _subscribe(self, sessions: list[str], window: int, more: str) -> None:
        self.tally.first = self.sequence
        opening: set[int] = set()
        opened = 0
        progress_at = time.monotonic()
        while opened < len(sessions) or opening:
            while opened < len(sessions) and len(opening) < window:
                # On loopback a connect returns at once, and so does a write of one small request.
                sock = socket.socket(self.family)
                sock.settimeout(STALL_S)
                sock.connect(self.address)
                sock.sendall(
                    f"GET /v1/sessions/{sessions[opened]}/events HTTP/1.1\r\nHost: {self.host}\r\n"
                    f"Accept: text/event-stream\r\n{more}{self.authorization}\r\n".encode()
                )
                sock.settimeout(0)
                self.subscribers[sock.fileno()] = Subscriber(
                    f"subscriber {opened}", sock, self.tally
                )
                self.epoll.register(sock.fileno(), select.EPOLLIN)
                opening.add(sock.fileno())
                opened += 1
            came = self._read(POLL_S)
            # Not "something came": the heartbeats of the others go on.
            ready = {fd for fd in came if fd in opening and self.subscribers[fd].ready}
            opening -= ready
            if ready:
                progress_at = time.monotonic()
            elif time.monotonic() - progress_at > STALL_S:
                raise LoadError(f"no subscriber was answered for {STALL_S:.0f} s")

    def _count_losses(self, tally: Tally, in_each: int) -> None:
        for subscriber in self.subscribers.values():
            if subscriber.expected != tally.first + in_each:
                tally.errors.append(f"{subscriber.name}: the last events never came")
        expected = in_each * len(self.subscribers)
        if tally.deliveries != expected:
            tally.errors.append(f"{tally.deliveries} deliveries, not {expected}")

    def _read(self, timeout_s: float, publisher: Publisher | None = None) -> list[int]:
        """Wait for bytes, read every ready socket once, and return those of subscribers."""
        came = []
        for fd, _ in self.epoll.poll(timeout_s, 512):
            subscriber = self.subscribers.get(fd)
            if subscriber is not None:
                # The clock is read for each: a batch takes milliseconds to go through.
                subscriber.feed(time.monotonic_ns())
                came.append(fd)
            elif publisher is not None:
                publisher.receive()
        return came


def main() -> None:
    """Serve the commands on stdin until it ends."""
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    host, port, body = sys.argv[1:]
    token = os.environ.get("BROADCASTERD_TOKEN")
    load = LoadGenerator(host, int(port), text=body == "text", token=token)
    commands: dict[str, Callable[..., dict[str, object]]] = {
        "open": load.open,
        "publish": load.publish,
        "latency": load.latency,
        "drain": load.drain,
        "reconnect": load.reconnect,
        "post": load.post,
        "close": load.close,
    }
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = commands[command.pop("do")](**command)
        except (LoadError, OSError) as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
