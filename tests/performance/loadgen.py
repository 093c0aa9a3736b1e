"""The load generator: many subscribers and one publisher, in a process of their own.

Owns the client side of the benchmark: raw non-blocking sockets on one epoll and nothing but the
standard library, so that what it costs is neither counted as the server's CPU time nor hidden in an
HTTP client. It reads commands from stdin and answers each on stdout, one JSON object a line:

    {"do": "open", "session": "s", "count": 1000}
        subscribe; answered when all have their first bytes
    {"do": "publish", "session": "s", "events": 100, "size": 200, "rate": 20}
        publish to all who are subscribed (rate in events/s, 0: as fast as answered)
    {"do": "close"}
        hang up on every subscriber

Every byte of every subscriber is parsed: the chunked framing, the lines, the sequence number and
the length of each event. An event that is missing, doubled, out of order or altered is reported in
`errors`, never skipped.
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
from dataclasses import dataclass, field
from resource import RLIMIT_NOFILE, getrlimit, setrlimit

# Subscribes in flight: enough to keep the server busy, few enough that no backlog overflows (a
# dropped SYN is retried after a second, and would be measured as the server's slowness).
WINDOW = 32
STALL_S = 30.0  # no progress for so long means that something is lost
POLL_S = 1.0  # how often progress is looked at
TAIL_S = 0.05  # listen a little longer than the last event: a doubled one would come now
READ_BYTES = 65536
MARK = re.compile(rb"^data: ?(\d{8}) (\d{19}) (x*)$", re.MULTILINE)
MARK_BYTES = 29  # two numbers and two spaces: what an event needs before its padding
SHOWN_ERRORS = 10


class LoadError(Exception):
    """The server refused, hung up or fell silent."""


def percentile(sorted_values: list[float], percent: float) -> float:
    """Answer the nearest-rank percentile of values that are sorted already (0.0 of none)."""
    if not sorted_values:
        return 0.0
    rank = math.ceil(len(sorted_values) * percent / 100)  # counted from 1
    return sorted_values[max(rank, 1) - 1]


@dataclass(slots=True)
class Tally:
    """What one publish command saw; shared by all subscribers."""

    first: int = 0  # the sequence number of this run's first event
    pad: int = 0  # bytes of padding in each event
    deliveries: int = 0
    reads: int = 0  # reads that held events: fewer than the deliveries when the server joins events
    latencies_ns: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Subscriber:
    """One subscriber's connection: the head first, then its events in order."""

    __slots__ = ("chunked", "expected", "line", "name", "raw", "ready", "sock", "tally")

    def __init__(self, name: str, sock: socket.socket, tally: Tally) -> None:
        self.name = name
        self.sock = sock
        self.tally = tally
        self.raw = b""  # bytes that don't make a whole head or a whole chunk yet
        self.line = b""  # the beginning of a line whose end is in a later chunk
        self.chunked = False
        self.ready = False  # has the head and the first bytes of the body
        self.expected = tally.first

    def feed(self, now_ns: int) -> None:
        """Read once what the socket holds, and take it apart."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise LoadError(f"{self.name}: {error}") from error
        if not data:
            raise LoadError(f"{self.name}: the server ended the stream")
        if self.raw:
            data = self.raw + data
        self.raw = b""
        if not self.ready:
            data = self._head(data)
            if not data:
                return
            self.ready = True
        body = self._dechunk(data) if self.chunked else data
        if body:
            self._lines(body, now_ns)

    def _head(self, data: bytes) -> bytes:
        if self.chunked:  # the head came in an earlier read
            return data
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self.raw = data
            return b""
        lowered = head.lower()
        if not head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in lowered:
            raise LoadError(f"{self.name}: {head.decode('latin-1')!r} {rest[:200]!r}")
        if b"transfer-encoding: chunked" not in lowered:
            raise LoadError(f"{self.name}: the body isn't chunked: {head.decode('latin-1')!r}")
        self.chunked = True
        return rest

    def _dechunk(self, data: bytes) -> bytes:
        bodies: list[bytes] = []
        position = 0
        while (eol := data.find(b"\r\n", position)) >= 0:
            size = int(data[position:eol], 16)
            end = eol + 2 + size
            if len(data) < end + 2:
                break
            if size == 0:
                raise LoadError(f"{self.name}: the server ended the stream with a last chunk")
            bodies.append(data[eol + 2 : end])
            position = end + 2
        self.raw = data[position:]
        return bodies[0] if len(bodies) == 1 else b"".join(bodies)

    def _lines(self, body: bytes, now_ns: int) -> None:
        if self.line:
            body = self.line + body
        cut = body.rfind(b"\n") + 1
        self.line = body[cut:]
        lines = body[:cut]
        tally = self.tally
        marks = MARK.findall(lines)
        for sequence, sent_ns, pad in marks:
            if int(sequence) != self.expected or len(pad) != tally.pad:
                tally.errors.append(
                    f"{self.name}: event {int(sequence)} (padding {len(pad)}), "
                    f"not {self.expected} (padding {tally.pad})"
                )
            self.expected = int(sequence) + 1
            tally.latencies_ns.append(now_ns - int(sent_ns))
        if marks:
            tally.deliveries += len(marks)
            tally.reads += 1
        if lines.count(b"data:") != len(marks) or b"event:" in lines:
            tally.errors.append(f"{self.name}: not an event of ours: {lines[:200]!r}")


class Publisher:
    """One keep-alive connection that posts events, one at a time."""

    def __init__(self, host: str, port: int, authorization: str = "") -> None:
        self.sock = socket.create_connection((host, port), timeout=STALL_S)
        self.sock.settimeout(0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = host
        self.authorization = authorization
        self.buffer = b""
        self.waiting = False  # an answer is due

    def send(self, session: str, sequence: int, pad: int) -> None:
        """Post one event; its text says which it is and when it left (CLOCK_MONOTONIC, ns)."""
        text = f"{sequence:08d} {time.monotonic_ns():019d} {'x' * pad}"
        body = json.dumps({"data": text})
        head = (
            f"POST /v1/sessions/{session}/events HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{self.authorization}\r\n"
        )
        # A request fits an empty send buffer, and there is at most one on its way.
        self.sock.sendall((head + body).encode())
        self.waiting = True

    def receive(self) -> None:
        """Read towards the answer; `waiting` turns false when it is whole."""
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise LoadError("publisher: the server hung up")
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise LoadError(f"publisher: {head.decode('latin-1')!r} {rest[:200]!r}")
        if len(rest) >= int(length[1]):
            self.buffer = b""
            self.waiting = False


class LoadGenerator:
    """All subscribers of one server, on one epoll; a token is sent with each request."""

    def __init__(self, host: str, port: int, token: str | None = None) -> None:
        self.host = host
        self.port = port
        self.authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self.epoll = select.epoll()
        self.subscribers: dict[int, Subscriber] = {}
        self.tally = Tally()
        self.sequence = 0  # of the next event; goes up for as long as the process lives

    def open(self, session: str, count: int) -> dict[str, object]:
        """Subscribe `count` times, at most WINDOW at once; return when each has its first bytes.

        The session must be one to which nothing was published: a replay would count as lost events.
        """
        started = time.monotonic()
        self.tally.first = self.sequence
        request = (
            f"GET /v1/sessions/{session}/events HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Accept: text/event-stream\r\n{self.authorization}\r\n"
        ).encode()
        opening: set[int] = set()
        opened = 0
        progress_at = started
        while opened < count or opening:
            while opened < count and len(opening) < WINDOW:
                # On loopback a connect returns at once, and so does a write of one small request.
                sock = socket.create_connection((self.host, self.port), timeout=STALL_S)
                sock.sendall(request)
                sock.settimeout(0)
                self.subscribers[sock.fileno()] = Subscriber(
                    f"subscriber {opened}", sock, self.tally
                )
                self.epoll.register(sock.fileno(), select.EPOLLIN)
                opening.add(sock.fileno())
                opened += 1
            self._read(POLL_S)
            waiting = {fd for fd in opening if not self.subscribers[fd].ready}
            # Not "something came": the heartbeats of the others go on.
            if len(waiting) < len(opening):
                progress_at = time.monotonic()
            elif time.monotonic() - progress_at > STALL_S:
                raise LoadError(f"no subscriber was answered for {STALL_S:.0f} s")
            opening = waiting
        return {"opened": opened, "seconds": time.monotonic() - started}

    def close(self) -> dict[str, object]:
        """Hang up on every subscriber."""
        count = len(self.subscribers)
        for subscriber in self.subscribers.values():
            subscriber.sock.close()  # also takes it out of the epoll
        self.subscribers.clear()
        return {"closed": count}

    def publish(self, session: str, events: int, size: int, rate: float) -> dict[str, object]:
        """Publish `events` of `size` bytes at `rate` a second, and see all of them arrive."""
        tally = self.tally = Tally(first=self.sequence, pad=size - MARK_BYTES)
        for subscriber in self.subscribers.values():
            subscriber.tally = tally
            subscriber.expected = tally.first
        publisher = Publisher(self.host, self.port, self.authorization)
        self.epoll.register(publisher.sock.fileno(), select.EPOLLIN)
        due = deque(range(tally.first, tally.first + events))
        self.sequence += events
        expected = events * len(self.subscribers)
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
                publisher.send(session, due.popleft(), tally.pad)
                continue
            idle_s = next_at - now if due and not publisher.waiting else POLL_S
            self._read(min(idle_s, POLL_S), publisher)
        seconds = time.monotonic() - started
        until = time.monotonic() + TAIL_S
        while (left := until - time.monotonic()) > 0:
            self._read(left)
        publisher.sock.close()
        self._count_losses(tally, events)
        latencies_ms = sorted(latency / 1e6 for latency in tally.latencies_ns)
        return {
            "deliveries": tally.deliveries,
            "reads": tally.reads,
            "seconds": seconds,
            "late_ms": late_s * 1e3,
            "p50_ms": percentile(latencies_ms, 50),
            "p99_ms": percentile(latencies_ms, 99),
            "max_ms": latencies_ms[-1] if latencies_ms else 0.0,
            "errors": tally.errors[:SHOWN_ERRORS],
        }

    def _count_losses(self, tally: Tally, events: int) -> None:
        for subscriber in self.subscribers.values():
            if subscriber.expected != tally.first + events:
                tally.errors.append(f"{subscriber.name}: the last events never came")
        expected = events * len(self.subscribers)
        if tally.deliveries != expected:
            tally.errors.append(f"{tally.deliveries} deliveries, not {expected}")

    def _read(self, timeout_s: float, publisher: Publisher | None = None) -> None:
        """Wait for bytes, and read every ready socket once."""
        for fd, _ in self.epoll.poll(timeout_s, 512):
            subscriber = self.subscribers.get(fd)
            if subscriber is not None:
                # The clock is read for each: a batch takes milliseconds to go through.
                subscriber.feed(time.monotonic_ns())
            elif publisher is not None:
                publisher.receive()


def main() -> None:
    """Serve the commands on stdin until it ends."""
    hard = getrlimit(RLIMIT_NOFILE)[1]
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    load = LoadGenerator(sys.argv[1], int(sys.argv[2]), os.environ.get("BROADCASTERD_TOKEN"))
    commands: dict[str, Callable[..., dict[str, object]]] = {
        "open": load.open,
        "publish": load.publish,
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
