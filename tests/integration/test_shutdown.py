"""SIGTERM with requests under way: the daemon as a process, and clients of every bad kind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.sse import Event, parse

LONG_S = 300.0
"""A grace that no test waits for: what ends within ``AIR_S`` ends by itself."""

AIR_S = 20.0
"""What a loaded machine may need; an idle one needs a tenth of a second."""

EVENTS = "/v1/sessions/news/events"


class Client:
    """One blocking connection with a small buffer, and a deadline on every step."""

    def __init__(self, port: int, certificate: Certificate | None) -> None:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.settimeout(AIR_S)
        raw.connect(("127.0.0.1", port))
        self.socket = raw
        if certificate is not None:
            context = certificate.client_context("http/1.1")
            self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")

    def send(self, text: str) -> None:
        """Send this, with CRLF for every line break."""
        self.socket.sendall(text.replace("\n", "\r\n").encode())

    def ask(self, method: str, target: str, headers: str = "", body: str = "") -> None:
        """Send a request."""
        length = f"Content-Length: {len(body)}\n" if body else ""
        self.send(f"{method} {target} HTTP/1.1\nHost: localhost\n{headers}{length}\n{body}")

    def hear(self, marker: bytes) -> bytes:
        """Read until ``marker`` was there; return all that came."""
        data = b""
        while marker not in data:
            piece = self.socket.recv(65_536)
            assert piece, f"closed after {data!r}"
            data += piece
        return data

    def rest(self) -> bytes:
        """Read to the end."""
        data = b""
        while piece := self.socket.recv(65_536):
            data += piece
        return data

    def subscribe(self) -> bytes:
        """Subscribe to what comes from now on; return what opens the stream."""
        self.ask("GET", f"{EVENTS}?from=now")
        return self.hear(b": stream")

    def fill(self) -> None:
        """Publish nearly as much as a session retains: more than all buffers take."""
        events = json.dumps([{"data": "x" * 90_000}] * 10)
        self.ask("POST", EVENTS, "Content-Type: application/json\n", events)
        self.hear(b'"accepted":10')


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon, and connections to it that the end of the test closes."""

    daemon: Daemon
    certificate: Certificate | None
    opened: ExitStack

    def connect(self) -> Client:
        """Open a connection."""
        client = Client(self.daemon.port, self.certificate)
        self.opened.callback(client.socket.close)
        return client

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop."""
        self.daemon.process.send_signal(number)

    def wait_for_end(self, *, within: float) -> None:
        """Wait for a clean end."""
        try:
            status = self.daemon.process.wait(within)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it did not stop within {within} s; its log:\n{self.daemon.log()}")

        assert 0 == status, self.daemon.log()


class Serve(Protocol):
    """The fixture ``serve``: starts a daemon with this grace."""

    def __call__(self, *, grace: float, tls: bool = False) -> Running: ...


@pytest.fixture
def serve(start_daemon: StartDaemon, certificate: Certificate) -> Iterator[Serve]:
    """Start daemons, and close in the end what was opened to them."""
    with ExitStack() as opened:

        def start(*, grace: float, tls: bool = False) -> Running:
            files = {"tls_certificate": certificate.chain, "tls_key": certificate.key}
            daemon = start_daemon(server={"shutdown_grace": grace, **(files if tls else {})})
            return Running(daemon, certificate if tls else None, opened)

        yield start


def events_of(answer: bytes) -> tuple[list[str], list[Event]]:
    """Return the lines and the events of a stream, from the head of the response to its end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    lines = _dechunk(body).decode().split("\n")
    return lines, list(parse(lines))


def _dechunk(body: bytes) -> bytes:
    """Undo the chunks of a whole body, which has to end with the last one."""
    data = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            assert b"\r\n" == body, "something follows the last chunk"
            return data
        data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]


in_plaintext_and_tls = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


# --- how long it takes -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_a_daemon_without_clients_stops_at_once(number: signal.Signals, serve: Serve) -> None:
    running = serve(grace=LONG_S)
    running.terminate(number)

    running.wait_for_end(within=AIR_S)


def an_idle_connection(client: Client) -> None:
    client.ask("GET", "/health/live")
    client.hear(b'{"status":"live"}')


def a_client_that_says_nothing(client: Client) -> None:
    pass


def half_a_request_head(client: Client) -> None:
    client.send(f"POST {EVENTS} HTTP/1.1\nHost:")


def half_a_body(client: Client) -> None:
    client.send(f"POST {EVENTS} HTTP/1.1\nHost: localhost\nContent-Type: application/json\n")
    client.send("Content-Length: 1000\nExpect: 100-continue\n\n")
    client.hear(b"HTTP/1.1 100")
    client.send('{"data": ')


def a_long_poll(client: Client) -> None:
    client.ask("GET", f"{EVENTS}?wait=30", "Accept: application/json\n")


def a_stream_that_is_not_read(client: Client) -> None:
    client.ask("GET", EVENTS)


def a_page_that_is_not_read(client: Client) -> None:
    client.ask("GET", EVENTS, "Accept: application/json\n")


@in_plaintext_and_tls
@pytest.mark.parametrize(
    "bad",
    [
        an_idle_connection,
        a_client_that_says_nothing,
        half_a_request_head,
        half_a_body,
        a_long_poll,
        a_stream_that_is_not_read,
        a_page_that_is_not_read,
    ],
    ids=lambda bad: str(bad.__name__),
)
@pytest.mark.slow
def test_a_stop_does_not_wait_for(
    bad: Callable[[Client], None], *, tls: bool, serve: Serve
) -> None:
    running = serve(grace=LONG_S, tls=tls)
    running.connect().fill()
    bad(running.connect())
    running.connect().subscribe()  # the daemon has seen the other by now
    running.terminate()

    running.wait_for_end(within=AIR_S)


def read_slowly(client: Client, until: threading.Event) -> None:
    """Read some of what comes, again and again: whoever does that is waited for."""
    while not until.wait(0.2) and client.socket.recv(16_384):
        pass


@pytest.mark.slow
def test_a_second_signal_ends_the_grace(serve: Serve) -> None:
    running = serve(grace=LONG_S)
    running.connect().fill()
    slow = running.connect()
    a_stream_that_is_not_read(slow)
    reader = running.connect()
    reader.subscribe()
    running.terminate()
    over = threading.Event()
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(read_slowly, slow, over)
        reader.hear(b'"reason":"draining"')
        assert running.daemon.process.poll() is None
        running.terminate()
        over.set()
        reading.result(AIR_S)

    running.wait_for_end(within=AIR_S)
    assert "the grace is over" in running.daemon.log()


# --- what clients are told -------------------------------------------------------------------


@in_plaintext_and_tls
@pytest.mark.slow
def test_every_subscriber_is_told_to_come_back_at_a_time_of_its_own(
    *, tls: bool, serve: Serve
) -> None:
    running = serve(grace=LONG_S, tls=tls)
    subscribers = [running.connect() for _ in range(200)]
    opened = [subscriber.subscribe() for subscriber in subscribers]
    publisher = running.connect()
    publisher.ask("POST", EVENTS, "Content-Type: text/plain\n", "the last event")
    publisher.hear(b'"accepted":1')
    running.terminate()
    streams = [
        events_of(start + subscriber.rest())
        for start, subscriber in zip(opened, subscribers, strict=True)
    ]
    running.wait_for_end(within=AIR_S)

    retries = []
    for lines, events in streams:
        assert ["message", "broadcaster.end"] == [event.type for event in events]
        assert ["the last event", '{"reason":"draining","reconnect":true}'] == [
            event.data for event in events
        ]
        [_, retry] = [int(line[7:]) for line in lines if line.startswith("retry: ")]
        retries.append(retry)
    assert 3000 <= min(retries) <= max(retries) <= 6000
    assert len(set(retries)) > 100


@in_plaintext_and_tls
@pytest.mark.slow
def test_a_publish_in_progress_is_told_how_much_of_it_was_accepted(
    *, tls: bool, serve: Serve
) -> None:
    running = serve(grace=LONG_S, tls=tls)
    subscriber, publisher = running.connect(), running.connect()
    subscriber.subscribe()
    publisher.send(f"POST {EVENTS} HTTP/1.1\nHost: localhost\nContent-Type: application/x-ndjson\n")
    publisher.send("Transfer-Encoding: chunked\n\n")
    for number in range(3):
        line = json.dumps({"data": f"token {number}"}).encode() + b"\n"
        publisher.socket.sendall(b"%x\r\n%b\r\n" % (len(line), line))
        subscriber.hear(b"token %d" % number)
    running.terminate()
    head, _, body = publisher.rest().partition(b"\r\n\r\n")
    running.wait_for_end(within=AIR_S)

    assert head.startswith(b"HTTP/1.1 503"), head
    assert b"\r\nretry-after: " in head.lower()
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert (503, 3) == (problem["status"], problem["accepted"])
    assert problem["last_id"].endswith("-3")


# --- a start that cannot be ------------------------------------------------------------------


def test_a_port_in_use_is_named_and_the_status_is_1(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "BROADCASTERD_AUTH__MODE": "none",
        "BROADCASTERD_SERVER__PORT": str(daemon.port),
    }
    with (tmp_path / "stderr").open("w") as stderr:
        second, stdout = launch(["serve"], environment, stderr)
    with stdout:
        status = second.wait(AIR_S)
    told = (tmp_path / "stderr").read_text()

    assert 1 == status
    for part in ("127.0.0.1", str(daemon.port), "Address already in use"):
        assert part in told
    assert "Traceback" not in told
