"""The load generator finds the faults that it claims to: the benchmark's status rests on it."""

import socket
from collections.abc import Iterator

import pytest

from tests.performance.loadgen_subscriber import LoadError, Subscriber, Tally, percentile

HEAD = (
    b"HTTP/1.1 200 \r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\ndate: now\r\n\r\n"
)
FIRST_BYTES = b"retry: 3000\n: stream 7f3c\n"
PAD = 4


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(sequence: int, *, pad: int = PAD) -> bytes:
    """One event as the servers frame it, sent at 1 ns."""
    return f"id: {sequence}\ndata: {sequence:08d} {1:019d} {'x' * pad}\n\n".encode()


class Wire:
    """A subscriber, and the server's end of its connection."""

    def __init__(self) -> None:
        self.server, client = socket.socketpair()
        client.settimeout(0)
        self.tally = Tally(pad=PAD)
        self.subscriber = Subscriber("one", client, self.tally)

    def send(self, data: bytes) -> None:
        """Send as the server, and let the subscriber read it."""
        self.server.sendall(data)
        self.subscriber.feed(now_ns=3)

    def close(self) -> None:
        """Close both ends."""
        self.server.close()
        self.subscriber.sock.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A connection without a byte on it."""
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def subscribed(wire: Wire) -> Wire:
    """A connection with head and first bytes."""
    wire.send(HEAD + chunk(FIRST_BYTES))
    return wire


def test_head_and_first_bytes_make_it_ready(wire: Wire) -> None:
    """A head alone doesn't: the server may send it before it has a subscriber."""
    wire.send(HEAD)
    assert not wire.subscriber.ready

    wire.send(chunk(FIRST_BYTES))
    assert wire.subscriber.ready


def test_bytes_may_come_one_at_a_time(wire: Wire) -> None:
    """And events may be split over chunks, with heartbeats between them."""
    first, second = event(0), event(1)
    body = chunk(FIRST_BYTES + first + second[:20]) + chunk(second[20:] + b":\n") + chunk(event(2))

    for byte in HEAD + body:
        wire.send(bytes([byte]))

    assert wire.tally.deliveries == 3
    assert wire.tally.latencies_ms() == [2e-6] * 3
    assert wire.subscriber.expected == 3
    assert wire.tally.errors == []


def test_joined_events_are_one_read(subscribed: Wire) -> None:
    """So that a server which joins events can be told from one that doesn't."""
    subscribed.send(chunk(event(0)) + chunk(event(1)))
    subscribed.send(chunk(event(2)))

    assert subscribed.tally.deliveries == 3
    assert subscribed.tally.reads == 2


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(event(1), id="lost"),
        pytest.param(event(0) + event(0), id="doubled"),
        pytest.param(event(0) + event(2) + event(1), id="out of order"),
        pytest.param(event(0, pad=PAD + 1), id="longer"),
        pytest.param(event(0).replace(b"x", b"y"), id="altered"),
        pytest.param(b'event: broadcaster.gap\ndata: {"requested": "1"}\n\n', id="gap"),
        pytest.param(b'event: broadcaster.end\ndata: {"reason": "draining"}\n\n', id="end"),
    ],
)
def test_anything_else_is_an_error(subscribed: Wire, body: bytes) -> None:
    """Nothing that a subscriber shouldn't see goes by in silence."""
    subscribed.send(chunk(body))

    assert subscribed.tally.errors


def test_the_same_bytes_are_still_checked_at_each_subscriber() -> None:
    """What they mean is found out once, but not whether they were due."""
    one, other = Wire(), Wire()
    other.tally = other.subscriber.tally = one.tally
    for wire in (one, other):
        wire.send(HEAD + chunk(FIRST_BYTES))
    for each in (0, 1):
        one.send(chunk(event(each)))
    other.send(chunk(event(0)))
    other.send(chunk(event(1)))

    assert one.tally.deliveries == 4
    assert other.subscriber.expected == 2
    assert one.tally.errors == []

    other.send(chunk(event(1)))

    assert one.tally.errors
    for wire in (one, other):
        wire.close()


def test_a_body_without_chunks_is_read_too(wire: Wire) -> None:
    """As nginx sends one."""
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\n" + event(0))

    assert wire.tally.deliveries == 1
    assert wire.tally.errors == []


@pytest.mark.parametrize("last", [b"0\r\n\r\n", b""], ids=["last chunk", "hang-up"])
def test_the_end_of_a_stream_is_an_error(subscribed: Wire, last: bytes) -> None:
    """No stream ends while the benchmark runs."""
    subscribed.server.sendall(last)
    subscribed.server.close()

    with pytest.raises(LoadError, match="ended the stream"):
        subscribed.subscriber.feed(now_ns=3)


def test_a_refusal_is_an_error(wire: Wire) -> None:
    """With the answer in it, for whoever has to find out why."""
    with pytest.raises(LoadError, match="503"):
        wire.send(b"HTTP/1.1 503 \r\ncontent-length: 0\r\n\r\n")


def test_percentile() -> None:
    """Nearest rank, and nothing to fail on."""
    values = [float(value) for value in range(1, 101)]

    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([], 50) == 0
    assert percentile([7.0], 99) == 7
