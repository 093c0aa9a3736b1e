"""A subscriber of the load generator: reads a stream of events, and checks every byte.

The framing, the lines, the sequence number and the length of each event: one that is missing,
doubled, out of order or altered is an error of the tally.
"""

import math
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

READ_BYTES = 65536
MARK = re.compile(rb"^data: ?(\d{8}) (\d{19}) (x*)$", re.MULTILINE)
MARK_BYTES = 29  # two numbers and two spaces: what an event needs before its padding


class LoadError(Exception):
    """The server refused, hung up or fell silent."""


def percentile(sorted_values: list[float], percent: float) -> float:
    """Answer the nearest-rank percentile of values that are sorted already (0.0 of none)."""
    if not sorted_values:
        return 0.0
    rank = math.ceil(len(sorted_values) * percent / 100)  # counted from 1
    return sorted_values[max(rank, 1) - 1]


@dataclass(frozen=True, slots=True)
class Known:
    """What bytes meant to a subscriber that awaited this event: the same to all others."""

    data: bytes
    expected: int
    then_expected: int
    sent_ns: Sequence[int]


NOTHING_KNOWN = Known(b"", -1, -1, ())


@dataclass(slots=True)
class Tally:
    """What one publish command saw; shared by all subscribers."""

    first: int = 0  # the sequence number of this run's first event, in each of its sessions
    pad: int = 0  # bytes of padding in each event
    deliveries: int = 0
    reads: int = 0  # reads that held events: fewer than the deliveries when the server joins events
    sent_ns: list[int] = field(default_factory=list)  # of each delivery, and when it was read
    read_ns: list[int] = field(default_factory=list)
    last_event: bytes = b""
    known: Known = NOTHING_KNOWN
    errors: list[str] = field(default_factory=list)

    def count(self, sent_ns: Sequence[int], now_ns: int) -> None:
        """Count one read that held events."""
        self.deliveries += len(sent_ns)
        self.reads += 1
        self.sent_ns.extend(sent_ns)
        self.read_ns.extend([now_ns] * len(sent_ns))

    def latencies_ms(self, since_ns: float = 0, until_ns: float = math.inf) -> list[float]:
        """Return the latencies of events that were sent in a span of CLOCK_MONOTONIC, sorted."""
        both = zip(self.sent_ns, self.read_ns, strict=True)
        return sorted((read - sent) / 1e6 for sent, read in both if since_ns <= sent <= until_ns)


class Subscriber:
    """One subscriber's connection: the head first, then its events in order."""

    __slots__ = ("expected", "head", "line", "name", "raw", "ready", "sock", "tally")

    def __init__(self, name: str, sock: socket.socket, tally: Tally) -> None:
        self.name = name
        self.sock = sock
        self.tally = tally
        self.raw = b""  # bytes that don't make a whole head or a whole chunk yet
        self.line = b""  # the beginning of a line whose end is in a later chunk
        self.head = b""
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
        tally, expected = self.tally, self.expected
        # Thousands get the very same bytes: what they are is found out once.
        between_events = self.ready and not self.raw and not self.line
        if between_events and expected == tally.known.expected and data == tally.known.data:
            self.expected = tally.known.then_expected
            tally.count(tally.known.sent_ns, now_ns)
            return
        deliveries, errors = tally.deliveries, len(tally.errors)
        self._take(self.raw + data, now_ns)
        sent_ns = tally.sent_ns[len(tally.sent_ns) - (tally.deliveries - deliveries) :]
        if between_events and sent_ns and not (self.raw or self.line or tally.errors[errors:]):
            tally.known = Known(data, expected, self.expected, sent_ns)

    def _take(self, data: bytes, now_ns: int) -> None:
        self.raw = b""
        if not self.ready:
            data = self._head(data)
            if not data:
                return
            self.ready = True
        body = self._dechunk(data) if b"\r\ntransfer-encoding: chunked" in self.head else data
        if body:
            self._lines(body, now_ns)

    def _head(self, data: bytes) -> bytes:
        if self.head:  # it came in an earlier read
            return data
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self.raw = data
            return b""
        self.head = head.lower()
        if not head.startswith(b"HTTP/1.1 200") or b"text/event-stream" not in self.head:
            raise LoadError(f"{self.name}: {head.decode('latin-1')!r} {rest[:200]!r}")
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
        for sequence, _, pad in marks:
            if int(sequence) != self.expected or len(pad) != tally.pad:
                tally.errors.append(
                    f"{self.name}: event {int(sequence)} (padding {len(pad)}), "
                    f"not {self.expected} (padding {tally.pad})"
                )
            self.expected = int(sequence) + 1
        if marks:
            tally.count([int(sent_ns) for _, sent_ns, _ in marks], now_ns)
            tally.last_event = lines
        if lines.count(b"data:") != len(marks) or b"event:" in lines:
            tally.errors.append(f"{self.name}: not an event of ours: {lines[:200]!r}")
