"""Heads that are slow, large or many, on each way that a connection can go: TLS, HTTP/2, neither.

``test_limits.py`` tests the meaning of the settings; here, that no protocol goes round them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import h2.config
import h2.connection
import h2.errors
import pytest
import trio
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from broadcasterd.server import sockets
from broadcasterd.server.headers import SECURITY_HEADERS
from tests.support import inprocess
from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.http1 import Http1
from tests.support.inprocess import SOON, Footprint, serving, until, until_back_to
from tests.support.paths import Clients, Path, serving_on

EVENTS = "/v1/sessions/news/events"
JSON = {"content-type": "application/json"}
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

SHORT = 0.3

on_each_protocol = pytest.mark.parametrize(
    "path", [Path.PLAIN, Path.TLS, Path.HTTP2], ids=lambda path: path.name.lower()
)


async def send_slowly(stream: trio.abc.SendStream, text: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in text:
            await stream.send_all(bytes([byte]))
            await trio.sleep(SHORT / 10)


async def closed(stream: trio.abc.ReceiveStream) -> bytes:
    """Wait until the server closes the connection; return what it sent before."""
    received = b""
    with trio.fail_after(SOON), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
    return received


def request_block(**extra: str) -> bytes:
    fields = {
        ":method": "GET",
        ":scheme": "https",
        ":authority": "localhost",
        ":path": "/health/live",
    }
    return Encoder().encode(list({**fields, **extra}.items()))


def headers_frame(stream: int, block: bytes, *flags: str) -> bytes:
    return HeadersFrame(stream, block, flags=["END_STREAM", *flags]).serialize()


def slow_head(path: Path) -> bytes:
    """Return the start of a connection whose first head takes 20 times what it may."""
    if path is not Path.HTTP2:
        return b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Filler: " + b"x" * 200
    continued = [ContinuationFrame(1, b"x" * 30).serialize() for _ in range(10)]
    head = headers_frame(1, request_block()[:10]) + b"".join(continued)
    return PREFACE + SettingsFrame().serialize() + head


# --- slow ------------------------------------------------------------------------------------


@pytest.mark.slow
@on_each_protocol
async def test_a_head_that_comes_byte_by_byte_is_cut_off(
    path: Path, certificate: Certificate
) -> None:
    limits = {"head_timeout": SHORT}
    async with serving_on(path, certificate, limits=limits) as (daemon, clients):
        before = await Footprint.settled()
        connection = await clients.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, connection, slow_head(path))
            received = await closed(connection)
            nursery.cancel_scope.cancel()
        await until(lambda: not daemon.server._connections)

        if path is not Path.HTTP2:
            assert received.startswith(b"HTTP/1.1 408 ")
        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.connection_limits.taken


@pytest.mark.slow
@on_each_protocol
async def test_a_second_head_that_comes_byte_by_byte_is_cut_off(
    path: Path, certificate: Certificate
) -> None:
    limits = {"head_timeout": SHORT}
    async with serving_on(path, certificate, limits=limits) as (daemon, clients):
        if path is Path.HTTP2:
            client = await clients.http2()
            connection = client.transport
            assert 200 == (await client.answer(await client.ask("GET", "/health/live")))[0]
            second = (
                headers_frame(3, request_block()[:10])
                + ContinuationFrame(3, b"x" * 400).serialize()
            )
        else:
            connection = await clients.connect()
            await Http1(connection).ask("GET", "/health/live")
            assert 200 == (await Http1(connection).answer()).status
            second = slow_head(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, connection, second)
            await closed(connection)
            nursery.cancel_scope.cancel()
        await until(lambda: not daemon.server._connections)


@on_each_protocol
async def test_a_connection_that_says_nothing_is_closed(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", SHORT)
    async with serving_on(path, certificate) as (daemon, clients):
        received = await closed(await clients.connect())

        if path is not Path.HTTP2:
            assert b"" == received, "nothing was asked: an answer would be taken for the next one"
        await until(lambda: not daemon.server._connections)


async def test_a_preface_of_http2_that_no_request_follows_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", SHORT)
    h2c = {"h2c": True}
    async with serving(server=h2c) as daemon, await daemon.connect() as connection:
        await connection.send_all(PREFACE + SettingsFrame().serialize())

        assert any(isinstance(frame, GoAwayFrame) for frame in _frames(await closed(connection)))
        await until(lambda: not daemon.server._connections)


async def test_pings_do_not_keep_a_connection_open_without_requests(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", SHORT)
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        connection = await clients.connect()
        pings = PingFrame(0, b"12345678").serialize() * 30
        async with trio.open_nursery() as nursery:
            start = PREFACE + SettingsFrame().serialize()
            nursery.start_soon(send_slowly, connection, start + pings)
            await closed(connection)
            nursery.cancel_scope.cancel()
        await until(lambda: not daemon.server._connections)


@pytest.mark.parametrize("path", [Path.TLS, Path.HTTP2], ids=["tls", "http2"])
async def test_a_handshake_that_comes_byte_by_byte_is_cut_off(
    path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_TIMEOUT_S", SHORT)
    async with serving_on(path, certificate) as (daemon, _):
        before = await Footprint.settled()
        connection = await daemon.connect()
        async with trio.open_nursery() as nursery:
            hello = bytes.fromhex("16030102000100 01fc0303") + b"x" * 500
            nursery.start_soon(send_slowly, connection, hello)
            await closed(connection)
            nursery.cancel_scope.cancel()
        await connection.aclose()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.connection_limits.taken


# --- large -----------------------------------------------------------------------------------


async def test_on_http2_a_head_that_is_too_large_is_refused_alone(
    certificate: Certificate,
) -> None:
    limits = {"max_head_bytes": 4096}
    async with serving_on(Path.HTTP2, certificate, limits=limits) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        client = await clients.http2()
        fits = await client.ask("GET", "/health/live", {"x-filler": "x" * 3800})
        assert 200 == (await client.answer(fits))[0]
        large = await client.ask("GET", "/health/live", {"x-filler": "x" * 4096})
        assert (431, b"") == await client.answer(large)
        with_a_body = await client.ask("POST", EVENTS, {"x-filler": "x" * 4096}, end=False)
        await client.until(lambda: with_a_body in client.errors)
        assert 431 == client.status[with_a_body]
        assert h2.errors.ErrorCodes.NO_ERROR == client.errors[with_a_body]

        await daemon.session("news").publish(drafts("the others go on"))
        assert ["the others go on"] == await stream.data(1)


async def test_on_http2_a_head_that_has_no_end_is_not_kept(certificate: Certificate) -> None:
    limits = {"max_head_bytes": 4096, "head_timeout": 60}
    async with serving_on(Path.HTTP2, certificate, limits=limits) as (daemon, clients):
        connection = await clients.connect()
        piece = ContinuationFrame(1, b"x" * 4000).serialize()
        start = PREFACE + SettingsFrame().serialize() + headers_frame(1, request_block())
        with suppress(trio.BrokenResourceError):
            await connection.send_all(start)
            for _ in range(10):
                await connection.send_all(piece)
        for away in _frames(await closed(connection)):  # if no reset came first
            if isinstance(away, GoAwayFrame):
                assert h2.errors.ErrorCodes.ENHANCE_YOUR_CALM == away.error_code
        await until(lambda: not daemon.server._connections)
        assert 0 == daemon.server.failed_connections


async def test_on_http2_requests_that_the_application_cannot_have_are_refused_alone(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        connection = await clients.connect()
        tunnel = Encoder().encode([(":method", "CONNECT"), (":authority", "a:1")])
        odd = request_block(**{":path": "/caf\N{LATIN SMALL LETTER E WITH ACUTE}"})
        await connection.send_all(
            PREFACE
            + SettingsFrame().serialize()
            + headers_frame(1, tunnel, "END_HEADERS")
            + headers_frame(3, odd, "END_HEADERS")
            + headers_frame(5, request_block(), "END_HEADERS")
        )

        status: dict[int, bytes] = {}
        decoder = Decoder()
        async with aclosing(_frames_of(connection)) as frames:
            async for frame in frames:
                if isinstance(frame, HeadersFrame):
                    fields = dict(decoder.decode(frame.data, raw=True))
                    status[frame.stream_id] = fields[b":status"]
                    assert set(SECURITY_HEADERS) <= set(fields.items())
                if len(status) == 3:
                    break
        assert {1: b"501", 3: b"400", 5: b"200"} == status
        assert 0 == daemon.server.failed_connections


# --- many ------------------------------------------------------------------------------------


async def test_on_http2_the_last_request_ends_no_other(certificate: Certificate) -> None:
    limits = {"max_requests_per_connection": 2}
    async with serving_on(Path.HTTP2, certificate, limits=limits) as (daemon, clients):
        client = await clients.http2()
        stream = await client.ask("GET", EVENTS)
        last = await client.ask("GET", "/health/live")
        late = await client.ask("GET", "/health/live")
        assert (1, 3, 5) == (stream, last, late)

        seen: list[Frame] = []
        async with aclosing(_frames_of(client.transport)) as frames:

            async def take_until(condition: Callable[[], bool]) -> None:
                while not condition():
                    seen.append(await anext(frames))

            def heard(stream_id: int) -> bytes:
                data = [
                    f.data for f in seen if isinstance(f, DataFrame) if f.stream_id == stream_id
                ]
                return b"".join(data)

            def said(kind: type[Frame]) -> list[Frame]:
                return [frame for frame in seen if isinstance(frame, kind)]

            await take_until(lambda: bool(said(GoAwayFrame) and said(RstStreamFrame) and heard(1)))
            [away], [refused] = said(GoAwayFrame), said(RstStreamFrame)
            assert isinstance(away, GoAwayFrame)
            assert isinstance(refused, RstStreamFrame)
            assert (last, h2.errors.ErrorCodes.NO_ERROR) == (away.last_stream_id, away.error_code)
            refusal = (refused.stream_id, refused.error_code)
            assert (late, h2.errors.ErrorCodes.REFUSED_STREAM) == refusal

            await take_until(lambda: b"live" in heard(3))
            await daemon.session("news").publish(drafts("and goes on"))
            await take_until(lambda: b"and goes on" in heard(1))
            daemon.hub.end("news")
            await take_until(lambda: b"session_closed" in heard(1))
            # With the last stream the connection is over.
            with pytest.raises(StopAsyncIteration):
                await take_until(lambda: False)
        await until(lambda: not daemon.server._connections)


# --- bodies ----------------------------------------------------------------------------------


@on_each_protocol
async def test_a_body_that_comes_byte_by_byte_is_answered_and_ends_no_other(
    path: Path, certificate: Certificate
) -> None:
    limits = {"body_timeout": SHORT}
    async with serving_on(path, certificate, limits=limits) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        status, detail = await _publish_slowly(path, clients)
        assert 408 == status
        assert "limits.body_timeout" in detail

        await clients.publish(EVENTS, "a")
        assert ["a"] == await stream.data(1)
        assert 1 == daemon.session("news").statistics().log.events


async def _publish_slowly(path: Path, clients: Clients) -> tuple[int, str]:
    body = b'{"data": "' + b"x" * 100 + b'"}'
    if path is not Path.HTTP2:
        client = await clients.http1()
        await client.begin("POST", EVENTS, {**JSON, "content-length": str(len(body))})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly, client.stream, body)
            answer = await client.answer()
            nursery.cancel_scope.cancel()
        return answer.status, str(answer.json()["detail"])
    http2 = await clients.http2()
    stream = await http2.ask("POST", EVENTS, JSON, end=False)
    while stream not in http2.status:
        await http2.go_on(stream, b" ")
        with trio.move_on_after(SHORT / 10):
            await http2.until(lambda: stream in http2.status)
    status, body = await http2.answer(stream)
    return status, str(json.loads(body)["detail"])


# --- frames ----------------------------------------------------------------------------------


def _frames(data: bytes) -> list[Frame]:
    """Take what a server sent apart."""
    frames = []
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


async def _frames_of(stream: trio.abc.ReceiveStream) -> AsyncGenerator[Frame, None]:
    """Yield the frames that a server sends, up to its close."""
    rest = b""
    while True:
        while len(rest) >= 9 and len(rest) >= 9 + int.from_bytes(rest[:3]):
            end = 9 + int.from_bytes(rest[:3])
            [frame] = _frames(rest[:end])
            rest = rest[end:]
            yield frame
        try:
            with trio.fail_after(SOON):
                data = await stream.receive_some()
        except trio.BrokenResourceError:
            return
        if not data:
            return
        rest += data
