"""Connections that are told to let go of memory: what ends, and what goes on beside it."""

from __future__ import annotations

import trio

from broadcasterd.memory.holdings import (
    CONNECTION_BYTES,
    FRAMEWORK_BYTES,
    HTTP2_BYTES,
    HTTP2_REQUEST_BYTES,
    UNUSED_S,
)
from tests.support.broadcast import draft, drafts
from tests.support.http1 import Http1
from tests.support.http2 import Http2
from tests.support.inprocess import Serving, serving, until
from tests.support.talk import CHUNKED, NDJSON, target

ALL = 10**9


def let_go(daemon: Serving, *, after: float = UNUSED_S) -> int:
    """Tell all who hold memory for nothing to let go of it, as if so many seconds had passed."""
    now = trio.current_time() + after
    besides = daemon.hub.subscribers.behind()
    return daemon.hub.holdings.let_go(ALL, now=now, besides=besides).told


async def test_a_connection_is_counted_until_it_is_closed() -> None:
    async with serving() as daemon:
        held = daemon.hub.holdings
        async with await daemon.connect():
            await until(lambda: held.bytes == CONNECTION_BYTES)
        await until(lambda: held.bytes == 0)
        assert 0 == len(held)


async def test_a_connection_that_nobody_uses_is_closed_and_a_stream_goes_on() -> None:
    async with serving() as daemon, await daemon.connect() as idle, await daemon.connect() as used:
        stream = await Http1(used).follow(target("news"))
        client = Http1(idle)
        await client.ask("GET", "/health/live")
        await client.answer()
        await until(lambda: daemon.hub.holdings.bytes == CONNECTION_BYTES)

        assert 0 == let_go(daemon, after=UNUSED_S / 2)
        assert 1 == let_go(daemon)
        await client.closed()
        await daemon.session("news").publish([draft("on it goes")])
        assert ["on it goes"] == await stream.data(1)


async def test_half_a_head_is_counted_and_its_connection_reset() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000)
        await until(lambda: daemon.hub.holdings.bytes > CONNECTION_BYTES + 1000)
        assert 1 == let_go(daemon)
        await Http1(stream).closed()
        await until(lambda: daemon.hub.holdings.bytes == 0)


async def test_an_answer_that_is_not_read_is_counted_and_cut() -> None:
    async with serving() as daemon, await daemon.connect(receive_buffer=4096) as stream:
        await daemon.hub.open("s").publish(drafts(*["x" * 50_000] * 15))
        fields = {"Accept": "application/json"}
        await Http1(stream).ask("GET", target("s", "limit=1000"), fields)
        await until(lambda: daemon.hub.holdings.bytes > CONNECTION_BYTES + 50_000)
        assert 0 == let_go(daemon, after=UNUSED_S / 2)
        assert 1 == let_go(daemon)
        await until(lambda: daemon.hub.holdings.bytes == 0)


async def test_on_http2_an_answer_that_is_not_read_is_cut_alone() -> None:
    async with serving(server={"h2c": True}) as daemon, await daemon.connect() as connection:
        client = Http2(connection, window=1000)
        await client.start()
        stream = await client.follow(target("news"))
        unread = await client.ask("GET", "/openapi.json")
        client.stalled.add(unread)
        await client.until(lambda: unread in client.status)
        held = daemon.hub.holdings
        await until(lambda: held.bytes > CONNECTION_BYTES + HTTP2_BYTES + 2 * HTTP2_REQUEST_BYTES)

        assert 1 == let_go(daemon)
        await client.until(lambda: unread in client.errors)
        await daemon.session("news").publish([draft("on it goes")])
        assert ["on it goes"] == await stream.data(1)
        one = CONNECTION_BYTES + HTTP2_BYTES + HTTP2_REQUEST_BYTES
        await until(lambda: held.bytes == one)


async def test_on_http2_a_connection_that_nobody_uses_is_told_so_and_closed() -> None:
    async with serving(server={"h2c": True}) as daemon, await daemon.connect() as connection:
        client = Http2(connection)
        await client.start()
        await client.answer(await client.ask("GET", "/health/live"))
        await until(lambda: daemon.hub.holdings.bytes == CONNECTION_BYTES + HTTP2_BYTES)
        await until(lambda: let_go(daemon) == 1)  # when the end of its request is known, too
        await client.until(lambda: client.terminated)
        await until(lambda: daemon.hub.holdings.bytes == 0)


async def test_a_request_of_the_framework_is_counted_while_it_lasts() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        await stream.send_all(b"GET /v1/sessions/%73/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: daemon.hub.holdings.bytes == CONNECTION_BYTES + FRAMEWORK_BYTES)
        assert 0 == let_go(daemon), "it is a stream, and up to date"


async def test_half_a_line_is_let_go_of_when_the_breaker_opens() -> None:
    async with serving() as daemon, await daemon.connect() as stream:
        client = Http1(stream)
        await client.begin("POST", target("s"), {**NDJSON, **CHUNKED})
        await client.go_on(b'{"data": 1}\n' + b"x" * 1000)
        await until(lambda: daemon.hub.counts.events == 1 and daemon.hub.bodies.bytes >= 1000)
        daemon.hub.interrupts.short_of_memory()
        answer = await client.answer()

        assert (503, 1) == (answer.status, answer.json()["accepted"])
        assert 0 == daemon.hub.bodies.bytes
