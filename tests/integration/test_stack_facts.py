"""What endless streams need of a server, by letter, and do not get from others as they are.

``test_fact_x_…`` shows what our server promises, over real sockets. ``test_stock_x_…`` shows that
Hypercorn or Quart-Trio does otherwise: where an upgrade makes one of these fail, it has mended
something, and the glue in ``server/http2.py`` or ``server/asgi.py`` can become less.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import Enum

import h11
import pytest
import trio
import trio.testing
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart_trio import QuartTrio
from werkzeug.routing import Map, MapAdapter
from werkzeug.routing import Rule as StockRule

from broadcasterd.broadcast import response_subscriber
from broadcasterd.config import Server as ServerConfig
from broadcasterd.core.reasons import EndReason
from broadcasterd.server import http1, listen
from broadcasterd.server.asgi import Rule
from broadcasterd.server.listen import bind
from broadcasterd.server.serve import HttpServer
from tests.support import inprocess
from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.http1 import Http1
from tests.support.inprocess import (
    Footprint,
    reset,
    serving,
    until,
    until_back_to,
)
from tests.support.paths import Path, serving_on
from tests.support.stock import answering, stock

EVENTS = "/v1/sessions/news/events"
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}

A_MOMENT = 0.5
"""Seconds in which something must *not* happen, or a stock server must fail to act."""

QUICKLY = {"heartbeat_interval": 0.05}

on_http1 = pytest.mark.parametrize(
    "path", [Path.PLAIN, Path.TLS], ids=lambda path: path.name.lower()
)


class Leaving(Enum):
    """How a client leaves in the middle of something."""

    FIN = "politely: it closes"
    HALF = "it says that it will send no more, and would still read"
    RST = "abruptly"

    async def of(self, stream: trio.SocketStream) -> None:
        """Leave."""
        match self:
            case Leaving.FIN:
                await stream.aclose()
            case Leaving.HALF:
                await stream.send_eof()
            case Leaving.RST:
                reset(stream)


each_way_to_leave = pytest.mark.parametrize("leaving", Leaving, ids=lambda way: way.name.lower())


async def _large(_: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Answer with more than all buffers on the way can take."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 2**25, "more_body": True})


# --- A: a client that stops reading ----------------------------------------------------------


@on_http1
async def test_fact_a_a_client_that_stops_reading_does_not_hold_its_task(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(response_subscriber, "LAST_WORDS_TIMEOUT_S", 0.2)
    async with serving_on(path, certificate, sessions={"max_lag_events": 5}) as (daemon, clients):
        before = await Footprint.settled()
        await clients.stall(EVENTS)
        await until(lambda: daemon.hub.subscribers.by_id)
        for number in range(30):
            await daemon.session("news").publish(drafts(str(number) * 20_000))

        await until(lambda: not daemon.server._connections)
        assert not daemon.hub.subscribers.by_id
        await until(lambda: Footprint.now().tasks <= before.tasks + 1)  # the session's own


async def test_fact_a_a_client_that_stops_reading_does_not_hold_up_a_stop(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.TLS, certificate) as (daemon, clients):
        await clients.stall(EVENTS)
        await until(lambda: daemon.hub.subscribers.by_id)
        for number in range(30):
            await daemon.session("news").publish(drafts(str(number) * 20_000))
        await daemon.server.stop_accepting()
        daemon.server.abort()

        await until(lambda: not daemon.server._connections)


async def test_stock_a_a_client_that_stops_reading_outlives_the_grace_of_a_stop() -> None:
    async with stock(answering(_large), graceful_timeout=0.1) as stocked:
        client = await stocked.connect()
        await client.ask("GET", "/")
        await client.head()
        stocked.stop.set()
        with trio.move_on_after(A_MOMENT):
            await stocked.stopped.wait()

        assert not stocked.stopped.is_set()
        reset(_socket_of(client))
        await until(stocked.stopped.is_set)


def _socket_of(client: Http1) -> trio.SocketStream:
    assert isinstance(client.stream, trio.SocketStream)
    return client.stream


# --- B: the server closes what is over -------------------------------------------------------


async def test_fact_b_connection_close_is_honoured() -> None:
    async with serving() as daemon, await daemon.connect() as connection:
        client = Http1(connection)
        await client.ask("GET", "/health/live", {"Connection": "close"})
        answer = await client.answer()
        await client.closed()

        assert 200 == answer.status
        await until(lambda: not daemon.server._connections)


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_fact_b_an_idle_connection_is_closed(
    requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", 0.2)
    async with serving() as daemon, await daemon.connect() as connection:
        client = Http1(connection)
        for _ in range(requests):
            await client.ask("GET", "/health/live")
            assert {"status": "live"} == (await client.answer()).json()
            client.next_request()
        await client.closed()

        await until(lambda: not daemon.server._connections)


async def test_fact_b_a_connection_serves_many_requests() -> None:
    async with serving() as daemon, await daemon.connect() as connection:
        client = Http1(connection)
        for number in range(20):
            body = json.dumps({"data": number}).encode()
            await client.ask("POST", EVENTS, JSON, body)
            answer = await client.answer()
            assert (200, 1) == (answer.status, answer.json()["accepted"])
            client.next_request()

        assert 1 == len(daemon.server._connections)


@on_http1
async def test_fact_b_a_body_without_an_end_does_not_hold_a_stream_that_was_ended(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "LINGER_S", 0.1)
    async with serving_on(path, certificate) as (daemon, clients):
        before = await Footprint.settled()
        connection = await clients.connect()
        client = Http1(connection)
        await client.begin("GET", EVENTS, {"Transfer-Encoding": "chunked"})

        async def go_on() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await client.go_on(b"x" * 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            await until(
                lambda: daemon.hub.subscribers.by_id or daemon.hub.subscribers.ended_by_reason
            )
            daemon.hub.end("news")
            await until(lambda: not daemon.server._connections)
        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


def _quart() -> QuartTrio:
    app = QuartTrio(__name__)

    @app.get("/")
    async def hello() -> str:
        return "hello"

    return app


async def test_stock_b_connection_close_is_not_honoured() -> None:
    async with stock(_quart()) as stocked:
        client = await stocked.connect()
        async with client.stream:
            await client.ask("GET", "/", {"Connection": "close"})
            await client.head()

            with pytest.raises(trio.TooSlowError):
                await client.closed(within=A_MOMENT)


async def test_stock_b_an_idle_connection_is_not_closed() -> None:
    async with stock(_quart(), keep_alive_timeout=0.1) as stocked:
        client = await stocked.connect()
        async with client.stream:
            await client.ask("GET", "/")
            await client.head()

            with pytest.raises(trio.TooSlowError):
                await client.closed(within=A_MOMENT)


# --- C: a stop ends streams ------------------------------------------------------------------


@on_http1
async def test_fact_c_a_stop_ends_streams_with_a_reason_and_their_last_chunk(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        await daemon.server.stop_accepting()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.hub.drain)

            assert {"reason": "draining", "reconnect": True} == await stream.end()
        await until(lambda: not daemon.server._connections)


async def test_stock_c_a_stop_cuts_streams_off() -> None:
    async def slow(_: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await trio.sleep_forever()

    async with stock(answering(slow), graceful_timeout=0.1) as stocked:
        client = await stocked.connect()
        async with client.stream:
            await client.ask("GET", "/")
            await client.head()
            stocked.stop.set()

            with pytest.raises(h11.RemoteProtocolError):
                async for _ in client.body():
                    pass


# --- D: a task that the daemon cannot do without ---------------------------------------------


async def test_fact_d_a_crash_beside_the_server_is_not_survived_in_silence() -> None:
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with serving() as daemon:
            assert daemon.hub._nursery is not None
            daemon.hub._nursery.start_soon(_crash)
            await trio.sleep_forever()


async def _crash() -> None:
    raise RuntimeError("a background task failed")


async def test_stock_d_a_crash_in_the_background_is_survived_in_silence() -> None:
    app = _quart()

    @app.before_serving
    async def start() -> None:
        app.add_background_task(_crash)

    async with stock(app) as stocked:
        client = await stocked.connect()
        async with client.stream:
            await client.ask("GET", "/")

            assert 200 == (await client.head()).status_code


# --- E: no time limit on a stream ------------------------------------------------------------


@on_http1
async def test_fact_e_a_stream_outlives_the_time_limit_of_responses(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate, sessions=QUICKLY) as (daemon, clients):
        daemon.app.config["RESPONSE_TIMEOUT"] = 0.1
        stream = await clients.follow(EVENTS)
        for _ in range(6):  # 0.3 s at the least
            await stream.heartbeat()
        await clients.publish(EVENTS, "a")

        assert ["a"] == await stream.data(1)


async def test_stock_e_a_stream_is_cut_off_by_the_time_limit_of_responses() -> None:
    app = QuartTrio(__name__)
    app.config["RESPONSE_TIMEOUT"] = 0.1

    @app.get("/")
    async def stream() -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            await trio.sleep_forever()

        return Response(body())

    async with stock(app) as stocked:
        client = await stocked.connect()
        async with client.stream:
            await client.ask("GET", "/")
            await client.head()

            with pytest.raises(h11.RemoteProtocolError):
                async for _ in client.body():
                    pass


# --- F, and Hypercorn's issue 210: a client that leaves --------------------------------------


@on_http1
@each_way_to_leave
async def test_fact_f_a_stream_whose_client_leaves_ends(
    path: Path, leaving: Leaving, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        await clients.follow("/v1/sessions/other/events")
        await daemon.session("other").publish(drafts("opens what is opened once"))
        daemon.hub.open("news")
        before = await Footprint.settled()
        connection = await clients.connect()
        await Http1(connection).follow(EVENTS)
        await until(lambda: len(daemon.hub.subscribers) == 2)
        await leaving.of(_transport(connection))
        await until(lambda: len(daemon.hub.subscribers) == 1)

        assert {EndReason.CLIENT_GONE: 1} == daemon.hub.subscribers.ended_by_reason
        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


def _transport(connection: trio.abc.Stream) -> trio.SocketStream:
    stream = connection.transport_stream if isinstance(connection, trio.SSLStream) else connection
    assert isinstance(stream, trio.SocketStream)
    return stream


@on_http1
@each_way_to_leave
@pytest.mark.parametrize("headers", [JSON, NDJSON], ids=["json", "ndjson"])
async def test_issue_210_a_publish_whose_client_leaves_halfway_ends(
    path: Path, leaving: Leaving, headers: dict[str, str], certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        before = await Footprint.settled()
        connection = await clients.connect()
        client = Http1(connection)
        await client.begin("POST", EVENTS, {**headers, "Transfer-Encoding": "chunked"})
        await client.go_on(b'{"data": "whole"}\n{"data": "ha')
        if headers is NDJSON:
            assert ["whole"] == await stream.data(1)
        await leaving.of(_transport(connection))
        await until(lambda: not daemon.server._connections)

        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses
        await clients.publish(EVENTS, "next")
        assert ["next"] == await stream.data(1)


@on_http1
@each_way_to_leave
async def test_issue_210_a_long_poll_whose_client_leaves_ends(
    path: Path, leaving: Leaving, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        daemon.hub.open("news")
        before = await Footprint.settled()
        connection = await clients.connect()
        poll = Http1(connection)
        await poll.ask("GET", f"{EVENTS}?wait=30", {"Accept": "application/json"})
        await until(lambda: daemon.hub.subscribers.by_id)
        await leaving.of(_transport(connection))
        await until(lambda: not daemon.hub.subscribers.by_id)

        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


async def test_stock_issue_210_who_polls_for_a_disconnect_never_sees_it() -> None:
    polled: list[str] = []

    async def impatient(receive: ASGIReceiveCallable, _: ASGISendCallable) -> None:
        await receive()  # the request
        await gone.wait()
        while len(polled) < 5:
            await trio.sleep(0.02)
            with trio.CancelScope() as now:
                now.cancel()
                polled.append((await receive())["type"])
            if now.cancelled_caught:
                polled.append("nothing")
        patient.append((await receive())["type"])

    gone = trio.Event()
    patient: list[str] = []
    async with stock(answering(impatient)) as stocked:
        client = await stocked.connect()
        await client.ask("GET", "/")
        await client.stream.aclose()
        gone.set()
        await until(lambda: patient)

    assert ["nothing"] * 5 == polled
    assert ["http.disconnect"] == patient


# --- G: a request behind a stream ------------------------------------------------------------


@on_http1
@each_way_to_leave
async def test_fact_g_a_pipelined_request_does_not_hide_that_the_client_left(
    path: Path, leaving: Leaving, certificate: Certificate
) -> None:
    async with serving_on(path, certificate, sessions=QUICKLY) as (daemon, clients):
        daemon.hub.open("news")
        before = await Footprint.settled()
        connection = await clients.connect()
        await Http1(connection).follow(EVENTS)
        await connection.send_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await leaving.of(_transport(connection))
        if leaving is Leaving.HALF and path is not Path.PLAIN:
            # It cannot be seen, and it still reads: only its going away ends it.
            await connection.aclose()
        await until(lambda: not daemon.hub.subscribers.by_id)

        await connection.aclose()
        await until_back_to(before)


@on_http1
async def test_fact_g_a_pipelined_request_does_not_hold_a_stream_that_was_ended(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", 0.1)
    async with serving_on(path, certificate) as (daemon, clients):
        connection = await clients.connect()
        stream = await Http1(connection).follow(EVENTS)
        await connection.send_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        daemon.hub.end("news")
        await stream.end()

        await until(lambda: not daemon.server._connections)


# --- H: what an idle subscriber costs --------------------------------------------------------


async def test_fact_h_an_idle_subscriber_is_a_socket_and_at_most_one_task() -> None:
    async with serving() as daemon:
        daemon.hub.open("news")
        before = await Footprint.settled()
        clients = [await daemon.connect() for _ in range(20)]
        for client in clients:
            await Http1(client).follow(EVENTS)
        await until(lambda: not daemon.server._connections)
        after = await Footprint.settled()

        assert 20 == len(daemon.hub.subscribers)
        assert 20 >= after.tasks - before.tasks
        assert 2 * 20 == after.descriptors - before.descriptors  # each has two ends here
        for client in clients:
            await client.aclose()
        await until_back_to(before)


# --- I: the head of a stream -----------------------------------------------------------------


@on_http1
async def test_fact_i_a_stream_opens_before_there_is_any_event(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        client = await clients.http1()
        await client.ask("GET", EVENTS)
        head = await client.head()

        assert (b"content-type", b"text/event-stream; charset=utf-8") in head.headers


# --- J and K: signals and sockets are ours ---------------------------------------------------


async def test_fact_j_the_server_installs_no_signal_handler_and_says_when_it_listens() -> None:
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in signals]
    async with serving() as daemon:
        assert before == [signal.getsignal(number) for number in signals]
        async with await daemon.connect():  # at once, without a second try
            pass


async def test_fact_k_connections_have_what_was_set_on_the_listening_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "USER_TIMEOUT_MS", 12_345)
    async with serving() as daemon, await daemon.connect() as connection:
        await Http1(connection).follow(EVENTS)
        [ours] = [
            sock
            for sock in _open_sockets()
            if _is_between(sock, daemon.port, connection.socket.getsockname()[1])
        ]
        with ours:
            user_timeout = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            send_buffer = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

        assert 12_345 == user_timeout
        assert 2 * listen.SEND_BUFFER_BYTES == send_buffer  # the kernel doubles it


def _open_sockets() -> list[socket.socket]:
    """Return a duplicate of every TCP socket of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are enough)
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 (likewise)
            if target.startswith("socket:"):
                sock = socket.socket(fileno=os.dup(int(name)))
                if sock.family == socket.AF_INET:
                    found.append(sock)
                else:
                    sock.close()
        except OSError:
            continue  # the directory that is being listed
    return found


def _is_between(sock: socket.socket, ours: int, theirs: int) -> bool:
    """Whether a socket has these ports; close it if not."""
    try:
        found = (sock.getsockname()[1], sock.getpeername()[1]) == (ours, theirs)
    except OSError:  # it listens
        found = False
    if not found:
        sock.close()
    return found


async def test_fact_k_the_server_listens_on_every_socket_that_it_is_given() -> None:
    config = ServerConfig(host="127.0.0.1", port=0)
    sockets = [*bind(config), *bind(config)]
    async with serving() as daemon, trio.open_nursery() as nursery:
        second = HttpServer(daemon.app, daemon.daemon.api, sockets)
        urls: list[str] = await nursery.start(second.run)
        assert 2 == len(set(urls))
        for url in urls:
            port = int(url.rpartition(":")[2])
            async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
                client = Http1(connection)
                await client.ask("GET", "/health/live", {"Connection": "close"})
                assert {"status": "live"} == (await client.answer()).json()
        await second.stop_accepting()


# --- L: what Hypercorn would log -------------------------------------------------------------


async def test_fact_l_requests_are_not_logged_by_hypercorn() -> None:
    async with serving() as daemon:
        config = daemon.server._hypercorn

        assert config.log.access_logger is None
        assert config.log.error_logger is not None
        assert "hypercorn.error" == config.log.error_logger.name


def test_stock_l_an_unknown_setting_is_accepted() -> None:
    config = HypercornConfig.from_mapping({"no_such_setting": 1})

    assert 1 == config.no_such_setting  # type: ignore[attr-defined] # that is the defect


# --- M: data of several lines ----------------------------------------------------------------


@on_http1
async def test_fact_m_data_of_several_lines_arrives_as_it_was(
    path: Path, certificate: Certificate
) -> None:
    text = "first\n\n id: not an id\nlast\n"
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.follow(EVENTS)
        await clients.publish(EVENTS, text)

        assert [text] == await stream.data(1)


# --- N: what a start need not compile --------------------------------------------------------


def routes_of(rule: type[StockRule]) -> MapAdapter:
    return Map([rule("/v1/sessions/<session>", endpoint="session")]).bind("localhost")


def test_fact_n_routes_are_found_and_nothing_is_compiled_to_build_urls_of_them() -> None:
    routes = routes_of(Rule)

    assert routes.match("/v1/sessions/a") == ("session", {"session": "a"})
    with pytest.raises(NotImplementedError):
        routes.build("session", {"session": "a"})


def test_stock_n_werkzeug_compiles_what_builds_urls() -> None:
    assert routes_of(StockRule).build("session", {"session": "a"}) == "/v1/sessions/a"
