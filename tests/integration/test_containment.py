"""A failure stays alone: it ends one connection, request, stream or session, and nothing else.

Each test injects an exception that nobody foresaw. It is logged and counted, and everybody else
goes on: other streams of the same session, other sessions, connections that are still to come.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import h11
import pytest
import structlog
import trio

from broadcasterd.api import sessions
from broadcasterd.broadcast.response_subscriber import ResponseSubscriber
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.socket_subscriber import SocketSubscriber
from broadcasterd.broadcast.subscriber import Subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.server.requests import RequestReader
from tests.support import inprocess
from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.following import Following
from tests.support.http1 import Http1
from tests.support.inprocess import Footprint, Serving, until, until_back_to
from tests.support.paths import Clients, Path, serving_on

EVENTS = "/v1/sessions/news/events"
OTHER = "/v1/sessions/other/events"

INJECTED = "injected: a text that no stranger may read"

on_each_path = pytest.mark.parametrize("path", Path, ids=lambda path: path.name.lower())
on_each_path_as_it_is = pytest.mark.parametrize(
    ("path", "kind"),
    [
        (Path.PLAIN, SocketSubscriber),
        (Path.TLS, SocketSubscriber),
        (Path.HTTP2, ResponseSubscriber),
    ],
    ids=["plain", "tls", "http2"],
)


class InjectedError(Exception):
    """Nobody foresaw it."""

    def __init__(self) -> None:
        super().__init__(INJECTED)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close connections soon that are idle after a failure: none may be left behind."""
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", 0.3)


Logged = list[structlog.typing.EventDict]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """Collect the log records of the test."""
    with structlog.testing.capture_logs() as records:
        yield records


def failures(logged: Logged) -> list[str]:
    """Return what was logged as an error."""
    return [record["event"] for record in logged if record["log_level"] in {"error", "critical"}]


@asynccontextmanager
async def bystanders(daemon: Serving, clients: Clients) -> AsyncIterator[None]:
    """Follow two sessions while something fails, and see afterwards that nothing is missing."""
    same, other = await clients.follow(EVENTS), await clients.follow(OTHER)
    yield
    await daemon.hub.open("other").publish(drafts("to the other session"))
    assert ["to the other session"] == await other.data(1)
    await daemon.hub.open("news").publish(drafts("to the same session"))
    await _until_data(same, "to the same session")
    newcomer = await clients.follow(f"{OTHER}?from=now")
    await daemon.session("other").publish(drafts("to whoever comes now"))
    assert ["to whoever comes now"] == await newcomer.data(1)


async def _until_data(stream: Following, data: str) -> None:
    while (event := await stream.event()) is not None:
        if event.data == data:
            return
    pytest.fail(f"the stream ended without {data!r}")


class Victim:
    """Makes a method fail, once, for the stream that was opened last."""

    def __init__(self, daemon: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream: Subscriber = list(daemon.hub.subscribers.by_id.values())[-1]
        self._monkeypatch = monkeypatch

    def fails_in(self, kind: type[Subscriber], name: str) -> None:
        """Let ``kind.name`` raise when it is called on the victim."""
        original: Callable[..., object] = getattr(kind, name)

        def failing(subscriber: Subscriber, *arguments: object, **named: object) -> object:
            if subscriber is self.stream:
                raise InjectedError
            return original(subscriber, *arguments, **named)

        self._monkeypatch.setattr(kind, name, failing)


# --- a connection ----------------------------------------------------------------------------


async def test_a_connection_that_fails_fails_alone(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    original = RequestReader.feed

    def feed(reader: RequestReader, data: bytes) -> None:
        if b"fail" in data:
            raise InjectedError
        original(reader, data)

    monkeypatch.setattr(RequestReader, "feed", feed)
    async with (
        serving_on(Path.PLAIN, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        before = await Footprint.settled()
        async with await daemon.connect() as connection:
            client = Http1(connection)
            await client.ask("GET", "/fail")
            await client.closed()
        await until_back_to(before)

    assert 1 == daemon.server.failed_connections
    assert ["a connection failed"] == failures(logged)


# --- a request -------------------------------------------------------------------------------


@on_each_path
async def test_a_request_that_fails_is_answered_500_and_tells_nothing(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def describe(_: Session) -> dict[str, object]:
        raise InjectedError

    monkeypatch.setattr(sessions, "describe", describe)
    async with (
        serving_on(path, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        status, problem = await clients.fetch("GET", "/v1/sessions/news")

        assert 500 == status
        assert INJECTED not in json.dumps(problem)
    assert ["a request failed"] == failures(logged)


@on_each_path_as_it_is
async def test_a_response_that_fails_halfway_fails_alone(
    path: Path,
    kind: type[Subscriber],
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    async with (
        serving_on(path, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        before = await Footprint.settled()
        attach = Session.attach

        def fail(session: Session, subscriber: Subscriber) -> None:
            if len(daemon.hub.subscribers) >= 2:
                raise InjectedError
            attach(session, subscriber)

        with monkeypatch.context() as patched:
            patched.setattr(Session, "attach", fail)
            if path is Path.HTTP2:
                client = await clients.http2()
                stream = await client.ask("GET", EVENTS)
                await client.until(lambda: stream in client.errors)
            else:
                connection = await clients.connect()
                async with connection:
                    broken = Http1(connection)
                    await broken.ask("GET", EVENTS)
                    with pytest.raises((h11.RemoteProtocolError, trio.BrokenResourceError)):
                        await (await broken.follow_begun()).rest()
        assert 2 == len(daemon.hub.subscribers)
        await until_back_to(before)

    assert 1 == daemon.server.failed_responses
    assert ["a response failed"] == failures(logged)


# --- a stream --------------------------------------------------------------------------------


@on_each_path_as_it_is
@pytest.mark.parametrize("where", ["deliver", "heartbeat"])
async def test_a_stream_that_fails_when_the_session_writes_to_it_fails_alone(
    *,
    path: Path,
    kind: type[Subscriber],
    where: str,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    async with (
        serving_on(path, certificate, sessions={"heartbeat_interval": 0.05}) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        before = await Footprint.settled()
        stalled = await clients.stall(EVENTS)
        await until(lambda: len(daemon.hub.subscribers) == 3)
        Victim(daemon, monkeypatch).fails_in(kind, where)
        await daemon.session("news").publish(drafts("a"))
        await until(lambda: len(daemon.hub.subscribers) == 2)

        assert {EndReason.CRASHED: 1} == daemon.hub.subscribers.ended_by_reason
        await stalled.until_gone()
        assert ["a stream failed"] == failures(logged)
        await until(lambda: Footprint.now().tasks <= before.tasks)


@pytest.mark.parametrize("path", [Path.PLAIN, Path.TLS], ids=["plain", "tls"])
@pytest.mark.parametrize("where", ["on_readable", "on_writable"])
async def test_a_stream_that_fails_when_its_socket_is_ready_fails_alone(
    path: Path,
    where: str,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    async with (
        serving_on(path, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        before = await Footprint.settled()
        connection = await clients.connect(receive_buffer=4096)
        victim = Http1(connection)
        await victim.ask("GET", EVENTS)
        await until(lambda: len(daemon.hub.subscribers) == 3)
        Victim(daemon, monkeypatch).fails_in(SocketSubscriber, where)
        if where == "on_readable":
            await connection.send_all(b"x")
        else:
            await daemon.session("news").publish(drafts("x" * 600_000))
        await victim.over()
        await until(lambda: len(daemon.hub.subscribers) == 2)

        assert {EndReason.CRASHED: 1} == daemon.hub.subscribers.ended_by_reason
        assert ["a stream failed"] == failures(logged)
        await connection.aclose()
        await until_back_to(before)


async def test_a_stream_that_fails_when_it_is_asked_for_more_fails_alone(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    async with (
        serving_on(Path.HTTP2, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        stalled = await clients.stall(EVENTS)
        await until(lambda: len(daemon.hub.subscribers) == 3)
        Victim(daemon, monkeypatch).fails_in(ResponseSubscriber, "_take")
        await daemon.session("news").publish(drafts("a"))
        await stalled.until_gone()
        await until(lambda: len(daemon.hub.subscribers) == 2)

    assert 1 == daemon.server.failed_responses
    assert ["a response failed"] == failures(logged)


@on_each_path_as_it_is
async def test_a_stream_that_fails_when_it_opens_leaves_nothing_behind(
    path: Path,
    kind: type[Subscriber],
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    logged: Logged,
) -> None:
    async with (
        serving_on(path, certificate) as (daemon, clients),
        bystanders(daemon, clients),
    ):
        before = await Footprint.settled()

        def fail(_: Subscriber) -> None:
            raise InjectedError

        with monkeypatch.context() as patched:
            patched.setattr(kind, "open", fail)
            if path is Path.HTTP2:
                client = await clients.http2()
                stream = await client.ask("GET", EVENTS)
                await client.until(lambda: stream in client.errors or stream in client.ended)
            else:
                connection = await clients.connect()
                async with connection:
                    broken = Http1(connection)
                    await broken.ask("GET", EVENTS)
                    await broken.over()
        await until(lambda: len(daemon.hub.subscribers) == 2)
        await until_back_to(before)

    assert 1 == len(failures(logged))


# --- a session -------------------------------------------------------------------------------


@on_each_path
async def test_a_session_that_fails_fails_alone_and_can_be_used_again(
    path: Path, certificate: Certificate, logged: Logged
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        other = await clients.follow(OTHER)
        answer = await clients.publish(EVENTS, "a")
        stream = await clients.follow(EVENTS)
        assert ["a"] == await stream.data(1)
        _let_fail(daemon.session("news"))
        status, _ = await clients.fetch(
            "POST", EVENTS, {"Content-Type": "text/plain"}, b"the last straw"
        )

        assert 400 <= status < 600, "the publisher was told that it was accepted"
        await until(lambda: len(daemon.hub.subscribers) == 1)
        assert {EndReason.CRASHED: 1} == daemon.hub.subscribers.ended_by_reason
        assert ["a session failed"] == failures(logged)

        await clients.publish(OTHER, "b")
        assert ["b"] == await other.data(1)

        # Whoever comes back finds another log under the same name, and is told so.
        again = await clients.publish(EVENTS, "c")
        assert again["first_id"] != answer["first_id"]
        resumed = await clients.follow(EVENTS, {"Last-Event-ID": stream.cursor})
        gap = await resumed.event()
        assert gap is not None
        assert "broadcaster.gap" == gap.type
        assert {"asked": stream.cursor, "oldest": again["first_id"]} == json.loads(gap.data)
        assert ["c"] == await resumed.data(1)


def _let_fail(session: Session) -> None:
    def expire(_: float) -> int:
        raise InjectedError

    session.log.expire = expire  # type: ignore[assignment] # that is the injection


async def test_publishers_who_wait_for_a_session_that_fails_are_all_answered(
    certificate: Certificate, logged: Logged
) -> None:
    outcomes: list[int] = []

    async with serving_on(Path.PLAIN, certificate) as (daemon, clients):

        async def publish() -> None:
            status, _ = await clients.fetch("POST", EVENTS, {"Content-Type": "text/plain"}, b"x")
            outcomes.append(status)

        await clients.publish(EVENTS, "a")
        before = await Footprint.settled()
        _let_fail(daemon.session("news"))
        async with trio.open_nursery() as nursery:
            for _ in range(40):  # more than its inbox takes
                nursery.start_soon(publish)

        assert 40 == len(outcomes)
        assert any(status != 200 for status in outcomes)
        await until(lambda: Footprint.now().tasks <= before.tasks)
    assert {"a session failed"} == set(failures(logged))
