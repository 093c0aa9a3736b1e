"""HTTP/1.1 as clients of all kinds speak it: what a connection does, plain and over TLS."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
import trio
import trio.testing

from broadcasterd.broadcast.hub import Hub
from broadcasterd.handover.transfer import Connections
from broadcasterd.server import http1
from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.http1 import Http1
from tests.support.inprocess import SOON, Footprint, serving, until, until_back_to
from tests.support.paths import Path, serving_on
from tests.support.sse import parse

EVENTS = "/v1/sessions/news/events"
TEXT = {"Content-Type": "text/plain"}

FOR_EVER_S = 1000.0
"""More than any test may take."""

on_http1 = pytest.mark.parametrize(
    "path", [Path.PLAIN, Path.TLS], ids=lambda path: path.name.lower()
)


def publish(data: str, fields: str = "", *, version: str = "1.1") -> bytes:
    """Return a request to publish a text."""
    return (
        f"POST {EVENTS} HTTP/{version}\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(data)}\r\n{fields}\r\n{data}"
    ).encode()


def get(target: str, fields: str = "", *, version: str = "1.1") -> bytes:
    return f"GET {target} HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n".encode()


LIVE = get("/health/live")


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all that the server sends until it closes the connection."""
    received = b""
    with trio.fail_after(SOON), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
    return received


async def answers(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Return what the server sends until so many whole answers have come."""
    received = b""
    with trio.fail_after(SOON):
        while len(statuses(received)) < count or not received.endswith(b"}"):
            data = await stream.receive_some()
            assert data, received
            received += data
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


async def half_close(stream: trio.abc.Stream) -> None:
    """Say that no more will come, and still read."""
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(transport, trio.SocketStream)
    await transport.send_eof()


# --- clients that leave, or say that they will send no more ----------------------------------


@on_http1
@pytest.mark.parametrize(
    "request_", [publish("a"), LIVE, get(EVENTS, "Accept: application/json\r\n")]
)
async def test_who_says_that_it_sends_no_more_is_answered(
    path: Path, request_: bytes, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.connect()
        await stream.send_all(request_)
        await half_close(stream)

        assert [200] == statuses(await all_of(stream))


@on_http1
async def test_a_request_that_is_whole_is_carried_out_after_its_client_left(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        listener = await clients.follow(EVENTS)
        for number in range(20):
            stream = await clients.connect()
            await stream.send_all(publish(str(number)))
            await stream.aclose()

            assert [str(number)] == await listener.data(1)


@on_http1
async def test_a_session_is_closed_by_who_has_left(path: Path, certificate: Certificate) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        daemon.hub.open("news")
        stream = await clients.connect()
        await stream.send_all(b"DELETE /v1/sessions/news HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream.aclose()

        await until(lambda: "news" not in daemon.hub.sessions)


@on_http1
async def test_who_waits_for_a_page_and_sends_no_more_is_answered_at_once(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        daemon.hub.open("news")
        stream = await clients.connect()
        await stream.send_all(get(f"{EVENTS}?wait=30", "Accept: application/json\r\n"))
        await until(lambda: daemon.hub.subscribers)
        await half_close(stream)

        received = await all_of(stream)
        assert [200] == statuses(received)
        assert b'"events":[]' in received


async def test_a_request_behind_a_page_that_is_waited_for_is_answered_after_it(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.PLAIN, certificate) as (daemon, clients):
        daemon.hub.open("news")
        stream = await clients.connect()
        await stream.send_all(get(f"{EVENTS}?wait=30", "Accept: application/json\r\n"))
        await until(lambda: daemon.hub.subscribers)
        await stream.send_all(LIVE)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await daemon.session("news").publish(drafts("a"))

        page, live = (await answers(stream, 2)).split(b"HTTP/1.1 ")[1:]
        assert b'"data":"a"' in page
        assert b'"live"' in live


async def test_a_flood_behind_a_page_that_is_waited_for_is_not_kept(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "MAX_AHEAD_BYTES", 1000)
    async with serving_on(Path.PLAIN, certificate) as (daemon, clients):
        daemon.hub.open("news")
        stream = await clients.connect()
        await stream.send_all(get(f"{EVENTS}?wait=30", "Accept: application/json\r\n"))
        await until(lambda: daemon.hub.subscribers)
        with trio.move_on_after(0.5) as full:
            while True:
                await stream.send_all(b"x" * 10_000)

        assert full.cancelled_caught, "all of it was taken"
        [connection] = daemon.server._connections
        assert isinstance(connection, http1.Http1)
        assert len(connection.reader.rest) < 10_000


# --- several requests ------------------------------------------------------------------------


@on_http1
async def test_pipelined_requests_are_answered_in_order(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.connect()
        await stream.send_all((publish("a") + b"\r\n" + LIVE) * 50)

        received = await answers(stream, 100)
        kinds = re.findall(rb'"(accepted|live)"', received)
        assert [b"accepted", b"live"] * 50 == kinds


async def test_a_body_that_nobody_reads_is_passed_over() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(get("/health/live", "Content-Length: 5\r\n") + b"hello" + LIVE)

        assert [200, 200] == statuses(await answers(stream, 2))


@pytest.mark.parametrize("target", ["/health/live", EVENTS])
async def test_http_1_0_has_one_request_each(target: str) -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await daemon.hub.open("news").publish(drafts("a"))
        accept = "Accept: application/json\r\nConnection: keep-alive\r\n"
        await stream.send_all(get(target, accept, version="1.0") * 2)

        received = await all_of(stream)
        assert [200] == statuses(received)
        assert b"\r\nconnection: close\r\n" in received


async def test_a_stream_in_http_1_0_has_no_chunks_and_ends_with_its_connection() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await daemon.hub.open("news").publish(drafts("a"))
        before = await Footprint.settled()
        await stream.send_all(get(EVENTS, version="1.0"))
        await until(lambda: daemon.hub.subscribers)
        daemon.hub.end("news")
        head, _, body = (await all_of(stream)).partition(b"\r\n\r\n")

        assert b"transfer-encoding" not in head
        assert body.startswith(b"retry: ")
        assert b"\ndata: a\n" in body
        assert b"session_closed" in body
        await until(lambda: Footprint.now().tasks < before.tasks)


async def test_a_client_of_http_1_0_that_leaves_ends_its_stream() -> None:
    async with serving() as daemon:
        daemon.hub.open("news")
        before = await Footprint.settled()
        async with await daemon.connect() as stream:
            await stream.send_all(get(EVENTS, version="1.0"))
            await until(lambda: daemon.hub.subscribers)

        await until(lambda: not daemon.hub.subscribers)
        await until_back_to(before)


# --- bodies that are answered before their end -----------------------------------------------


@on_http1
async def test_who_goes_on_to_send_reads_why_it_was_refused(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.connect()
        head = publish("", "Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        await stream.send_all(head.replace(b"text/plain", b"a/b"))
        for _ in range(20):
            await stream.send_all(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        received = await answers(stream, 1)

        assert [415] == statuses(received)
        assert b"\r\nconnection: close\r\n" in received
        await stream.aclose()
        await until(lambda: not daemon.server._connections)


async def test_who_waits_for_a_word_is_refused_before_it_sends() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        head = publish("", "Expect: 100-continue\r\n").replace(b": 0\r\n", b": 5\r\n")
        await stream.send_all(head.replace(b"text/plain", b"a/b"))

        assert [415] == statuses(await all_of(stream))


async def test_who_waits_for_a_word_gets_it_and_then_the_answer() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        head = publish("", "Expect: 100-continue\r\n").replace(b": 0\r\n", b": 5\r\n")
        await stream.send_all(head)
        with trio.fail_after(SOON):
            assert b"HTTP/1.1 100 Continue\r\n\r\n" == await stream.receive_some()
        await stream.send_all(b"hello")

        assert [200] == statuses(await answers(stream, 1))


async def test_who_sends_the_body_at_once_waits_for_no_word() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(publish("hello", "Expect: 100-continue\r\n"))

        assert [200] == statuses(await answers(stream, 1))


async def test_a_body_that_is_malformed_is_refused_and_the_events_before_stand() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        line = b'{"data": 1}\n'
        fields = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
        head = f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode()
        await stream.send_all(head + b"%x\r\n%b\r\n" % (len(line), line))
        await until(lambda: "news" in daemon.hub.sessions and daemon.session("news").log.last)
        await stream.send_all(b"nonsense\r\n")
        received = await all_of(stream)

        assert [400] == statuses(received)
        assert b'"accepted":1' in received


# --- time ------------------------------------------------------------------------------------


@on_http1
async def test_how_long_a_connection_is_kept_can_be_set(
    path: Path, certificate: Certificate
) -> None:
    sections = {"keep_alive_timeout": 0.3}
    async with serving_on(path, certificate, server=sections) as (daemon, clients):
        stream = await clients.connect()
        for _ in range(3):
            await stream.send_all(LIVE)
            await answers(stream, 1)

        assert b"" == await all_of(stream)
        await until(lambda: not daemon.server._connections)


async def test_a_stop_closes_what_is_idle_and_lets_the_rest_go_on(certificate: Certificate) -> None:
    async with serving_on(Path.PLAIN, certificate) as (daemon, clients):
        idle = await clients.connect()
        await idle.send_all(LIVE)
        await answers(idle, 1)
        busy = await clients.http1()
        await busy.begin("POST", EVENTS, {**TEXT, "Content-Length": "5"})
        await until(lambda: len(daemon.server._connections) == 2)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await daemon.server.stop_accepting()
        assert b"" == await all_of(idle)
        await busy.stream.send_all(b"hello")
        received = await all_of(busy.stream)

        assert [200] == statuses(received)
        assert b"\r\nconnection: close\r\n" in received
        await until(lambda: not daemon.server._connections)


@pytest.mark.parametrize("sends_on", [False, True], ids=["silent", "sends on"])
@on_http1
async def test_a_stop_waits_for_no_publisher_whose_machine_has_the_answer(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, *, sends_on: bool
) -> None:
    monkeypatch.setattr(http1, "DRAIN_S", FOR_EVER_S)
    monkeypatch.setattr(http1, "LINGER_S", FOR_EVER_S)
    line = b'{"data": "x"}\n'
    chunk = b"%x\r\n%b\r\n" % (len(line), line)
    fields = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
    async with serving_on(path, certificate) as (daemon, clients):
        publisher = await clients.http1()
        await publisher.begin("POST", EVENTS, fields)
        await publisher.stream.send_all(chunk)
        await until(lambda: daemon.hub.sessions and daemon.session("news").log.last)

        has_stopped = was_reset = False

        async def send_on() -> None:
            nonlocal was_reset
            try:
                while not has_stopped:  # a send over TLS that is cancelled breaks the stream
                    await publisher.stream.send_all(chunk)
                    await trio.sleep(http1.GLANCE_S / 10)
            except trio.BrokenResourceError:
                was_reset = True

        async with trio.open_nursery() as nursery:
            if sends_on:
                nursery.start_soon(send_on)
            with trio.fail_after(SOON):
                await daemon.daemon.drain()  # the client has neither read nor closed anything
            has_stopped = True
        if was_reset and path is Path.TLS:
            return  # and so does one that fails: what its machine has is not read any more
        received = await all_of(publisher.stream)

    assert [503] == statuses(received)
    assert b'"accepted":' in received


@on_http1
async def test_who_asks_when_the_doors_are_closed_gets_a_last_answer(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.connect()
        await stream.send_all(LIVE)
        await answers(stream, 1)
        daemon.server.close_doors()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(LIVE)
        received = await all_of(stream)

        assert [200] == statuses(received)
        assert b"\r\nconnection: close\r\n" in received
        await until(lambda: not daemon.server._connections)


async def test_a_request_that_has_come_when_the_connection_is_closed_is_answered() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(LIVE)
        await answers(stream, 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(LIVE)  # nobody has run since
        await daemon.server.stop_accepting()

        assert [200] == statuses(await all_of(stream))


async def test_idle_connections_go_on_in_the_next_process_and_no_request_on_them_is_lost() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(LIVE)
        await answers(stream, 1)
        silent = await daemon.connect()
        await until(lambda: len(daemon.server._connections) == 2)
        daemon.server.close_doors(keep_idle=True)
        await until(lambda: not daemon.server._connections)
        await stream.send_all(LIVE[:-2])

        async def restore(_hub: Hub, connections: Connections) -> tuple[()]:
            await trio.lowlevel.checkpoint()
            for sock in daemon.server.take_idle():
                connections.resume(sock)
            return ()

        async with serving(restore) as following, silent:
            assert 2 == following.server.connection_limits.taken
            await stream.send_all(LIVE[-2:])
            await silent.send_all(LIVE)
            for each in (stream, silent):
                received = await answers(each, 1)

                assert [200] == statuses(received)
                assert b"connection: close" not in received


async def test_a_connection_over_tls_is_not_kept_for_the_next_process(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.TLS, certificate) as (daemon, clients):
        stream = await clients.connect()
        await stream.send_all(LIVE)
        await answers(stream, 1)
        daemon.server.close_doors(keep_idle=True)
        await daemon.server.stop_accepting()

        assert b"" == await all_of(stream)
        assert [] == daemon.server.take_idle()


async def test_a_reader_that_takes_nothing_of_an_answer_is_given_up(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "WRITE_TIMEOUT_S", 0.2)
    async with serving_on(Path.PLAIN, certificate) as (daemon, clients):
        await daemon.hub.open("news").publish(drafts("x" * 900_000))
        stream = await clients.connect(receive_buffer=4096)
        await stream.send_all(get(EVENTS, "Accept: application/json\r\n"))

        await until(lambda: daemon.server._connections)
        await until(lambda: not daemon.server._connections)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


# --- streams ---------------------------------------------------------------------------------


@on_http1
async def test_a_stream_of_http_1_0_has_no_task_and_ends_with_the_connection(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.connect()
        await stream.send_all(get(EVENTS, version="1.0"))
        await until(lambda: daemon.hub.subscribers.by_id)
        await until(lambda: not daemon.server._connections)
        await daemon.session("news").publish(drafts("a", "b"))
        daemon.hub.end("news")
        head, _, body = (await all_of(stream)).partition(b"\r\n\r\n")
        events = [event.data for event in parse(body.decode().split("\n"))]

        assert b"transfer-encoding" not in head
        assert b"\r\nconnection: close" in head
        assert ["a", "b"] == events[:2]
        assert '{"reason":"session_closed","reconnect":false}' == events[2]


@on_http1
async def test_a_stream_takes_the_connection_and_its_task_ends(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        daemon.hub.open("news")
        before = await Footprint.settled()
        streams = [await clients.follow(EVENTS) for _ in range(5)]
        await until(lambda: not daemon.server._connections)

        assert before.tasks == Footprint.now().tasks
        await daemon.session("news").publish(drafts("a" * 100_000))
        for stream in streams:
            assert ["a" * 100_000] == await stream.data(1)


async def test_the_head_of_a_stream_comes_with_its_first_bytes() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(get(EVENTS))
        head, _, body = (await stream.receive_some()).partition(b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; ")
        assert b"\r\nretry: " in body


# --- paths that are written oddly ------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/v1/sessions/%6eews/events",
        "http://[::1]/v1/sessions/news/events",
        f"{EVENTS}?event=b",
        EVENTS,
    ],
)
async def test_a_path_means_the_same_however_it_is_written(target: str) -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        client = Http1(stream)
        await client.ask("POST", target, TEXT, b"a")
        found = await client.answer()

        assert (200, 1) == (found.status, found.json()["accepted"])
        assert ["news"] == list(daemon.hub.sessions)
