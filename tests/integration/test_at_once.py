"""A request that is here when its connection is accepted: a stream needs no task, all else has one.

Such a client connects and sends before the daemon runs again: no turn of Trio's is in between.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import structlog
import trio

from broadcasterd.server.http1 import Http1 as Connection
from broadcasterd.server.sockets import reset
from tests.support.http1 import Http1
from tests.support.inprocess import SOON, Serving, serving, until
from tests.support.tokens import claims, jwt_mode, sign

EVENTS = "GET /v1/sessions/news/events"
TOKEN = sign(claims(subscribe=("*",), publish=("*",)))
LISTEN = f"{EVENTS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()

REQUESTS = {
    "a stream": (EVENTS, "1.1", ()),
    "a stream on HTTP/1.0": (EVENTS, "1.0", ()),
    "a stream from the start": (f"{EVENTS}?from=start", "1.1", ()),
    "a stream of the old path": ("GET /agent_network_sse/news", "1.1", ()),
    "a stream for a page of another origin": (EVENTS, "1.1", ("Origin: https://app.example",)),
    "a stream that resumes": (EVENTS, "1.1", ("Last-Event-ID: nonsense-7",)),
    "a page of events": (EVENTS, "1.1", ("Accept: application/json",)),
    "a session that is over": ("GET /v1/sessions/over/events", "1.1", ()),
    "a start that is none": (f"{EVENTS}?from=nowhere", "1.1", ()),
    "a query that is none": (f"{EVENTS}?%zz=%", "1.1", ()),
    "a name that is none": ("GET /v1/sessions/.../events", "1.1", ()),
    "another token": (EVENTS, "1.1", ("Authorization: Bearer another",)),
    "another path": ("GET /health/live", "1.1", ()),
    "another method": ("HEAD /v1/sessions/news/events", "1.1", ()),
    "a length that is none": (EVENTS, "1.1", ("Content-Length: x",)),
    "a body": (EVENTS, "1.1", ("Content-Length: 2", "", "ab")),
}


def bytes_of(line: str, version: str, fields: tuple[str, ...]) -> bytes:
    """Return a request; a token is added where it has none."""
    head = [f"{line} HTTP/{version}", "Host: a"]
    if not any(field.startswith("Authorization") for field in fields):
        head.append(f"Authorization: Bearer {TOKEN}")
    ends = () if "" in fields else ("", "")
    return "\r\n".join([*head, *fields, *ends]).encode()


def connect(daemon: Serving, first: bytes = b"") -> trio.SocketStream:
    """Connect, and send something, before the daemon accepts."""
    sock = socket.create_connection(("127.0.0.1", daemon.port))
    sock.sendall(first)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


@pytest.fixture
def auth(tmp_path: Path) -> dict[str, object]:
    return jwt_mode(tmp_path)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Return the connections that were served by a task."""
    seen: list[Connection] = []
    original = Connection.run

    async def run(connection: Connection) -> bool:
        seen.append(connection)
        return await original(connection)

    monkeypatch.setattr(Connection, "run", run)
    return seen


async def test_a_stream_that_is_asked_for_at_once_has_no_task(
    auth: dict[str, object], tasks: list[Connection]
) -> None:
    async with serving(auth=auth) as daemon, connect(daemon, LISTEN) as stream:
        client = Http1(stream)
        client.has_asked()
        following = await client.follow_begun()
        await following.opening()

        assert [] == tasks
        assert 1 == len(daemon.hub.subscribers)
    assert [] == tasks


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_answer_is_the_same_whether_it_is_here_or_comes(
    name: str, auth: dict[str, object]
) -> None:
    asked = bytes_of(*REQUESTS[name])
    async with serving(auth=auth, server={"cors_origins": ["https://app.example"]}) as daemon:
        daemon.hub.open("over")
        daemon.hub.end("over")
        daemon.hub.open("news")
        async with connect(daemon, asked) as stream:
            at_once = await read(stream)
        async with connect(daemon) as stream:
            await until(lambda: daemon.server._connections)
            await stream.send_all(asked)
            later = await read(stream)

    assert at_once.startswith(b"HTTP/1.1 ")
    assert at_once == later


async def read(stream: trio.SocketStream) -> bytes:
    """Return what comes until nothing more does, without what differs each time."""
    seen = b""
    with trio.move_on_after(SOON) as waiting:
        while data := await stream.receive_some():
            seen += data
            waiting.deadline = trio.current_time() + 0.1
    seen = re.sub(rb"date: [^\r]+", b"", seen, flags=re.IGNORECASE)
    return re.sub(rb'("stream":|: stream )\S+', b"", seen)


async def test_what_has_come_in_part_or_is_no_stream_is_served_by_a_task(
    auth: dict[str, object], tasks: list[Connection]
) -> None:
    async with serving(auth=auth) as daemon:
        async with connect(daemon, LISTEN[:30]) as stream:
            await until(lambda: len(tasks) == 1)
            await stream.send_all(LISTEN[30:])
            client = Http1(stream)
            client.has_asked()
            await (await client.follow_begun()).opening()
        async with connect(daemon, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + LISTEN) as stream:
            client = Http1(stream)
            client.has_asked()
            await client.answer()
            client.next_request()
            client.has_asked()
            await (await client.follow_begun()).opening()

    assert 2 == len(tasks)


async def test_after_an_answer_the_connection_goes_on(
    auth: dict[str, object], tasks: list[Connection]
) -> None:
    async with (
        serving(auth=auth) as daemon,
        connect(daemon, LISTEN.replace(b"Bearer ", b"Bearer no")) as stream,
    ):
        client = Http1(stream)
        client.has_asked()

        assert 401 == (await client.answer()).status
        client.next_request()
        await stream.send_all(LISTEN)
        client.has_asked()
        await (await client.follow_begun()).opening()
    assert 1 == len(tasks)


async def test_a_client_that_has_left_already_leaves_nothing(auth: dict[str, object]) -> None:
    async with serving(auth=auth) as daemon:
        connect(daemon, LISTEN).socket.close()
        with socket.create_connection(("127.0.0.1", daemon.port)) as sock:
            sock.sendall(LISTEN)
            reset(sock)
        async with connect(daemon, LISTEN) as stream:
            client = Http1(stream)
            client.has_asked()
            await (await client.follow_begun()).opening()
            await until(lambda: len(daemon.hub.subscribers) == 1)

            assert 1 == daemon.server.connection_limits.taken
            assert 0 == daemon.server.failed_connections


async def test_a_client_that_left_before_another_came_takes_no_place_from_it(
    auth: dict[str, object],
) -> None:
    async with serving(auth=auth, limits={"max_subscribers_per_address": 1}) as daemon:
        before = None
        for number in range(10):
            if before is not None:
                before.socket.close()  # no turn of the daemon's is between this and the next
            before = stream = connect(daemon, LISTEN)
            client = Http1(stream)
            client.has_asked()
            await (await client.follow_begun()).opening()

            assert number + 1 == daemon.hub.counts.streams_opened
        stream.socket.close()


@pytest.mark.parametrize(
    ("function", "answer", "record"),
    [
        ("serve.answer_at_once", b"", "a connection failed"),
        ("serve.begin", b"HTTP/1.1 500", "a response failed"),
    ],
)
async def test_a_failure_is_that_of_one_connection(
    function: str,
    answer: bytes,
    record: str,
    auth: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    with structlog.testing.capture_logs() as logged:
        async with serving(auth=auth) as daemon:
            with monkeypatch.context() as patched:
                patched.setattr(f"broadcasterd.server.{function}", fail)
                async with connect(daemon, LISTEN) as stream:
                    assert (await read(stream))[:12] == answer
            async with connect(daemon, LISTEN) as stream:
                client = Http1(stream)
                client.has_asked()
                await (await client.follow_begun()).opening()

                assert 1 == daemon.server.connection_limits.taken
    assert [record] == [each["event"] for each in logged if each["log_level"] == "error"]
