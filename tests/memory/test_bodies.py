"""Bodies: the memory of events before they are a publication."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress

import trio

from tests.support.daemon import StartDaemon
from tests.support.flood import (
    CYCLE_S,
    Memory,
    Request,
    client_of,
    flood,
    pressed,
    read_answer,
)
from tests.support.http1 import Answer

OVER_CRITICAL = 1.1
BODY_BYTES = 1_000_000
PIECE_BYTES, PIECE_S = BODY_BYTES // 20, 0.1

ENOUGH = 60
"""Large bodies: two for each of the sessions."""


def to_a_few(body: bytes, kind: str = "application/json") -> itertools.cycle[Request]:
    """Yield publications of one body to thirty sessions in turn."""
    return itertools.cycle([(f"s{number}", body, kind) for number in range(30)])


async def test_large_bodies_stay_within_the_bound(
    start_daemon: StartDaemon, idle_mb: float
) -> None:
    daemon = start_daemon(memory=pressed(idle_mb))
    memory = Memory(daemon)
    body = json.dumps([{"data": "x" * 2000}] * 480).encode()
    seen = await flood(
        daemon, to_a_few(body), publishers=8, seconds=0, refusals=ENOUGH, enough=480 * ENOUGH
    )

    assert set(seen.answers) <= {200, 503}
    assert seen.without_retry_after == 0
    assert memory.peak_mb <= (idle_mb + 60) * OVER_CRITICAL


async def test_bodies_of_a_hundred_thousand_tiny_events_stay_within_the_bound(
    start_daemon: StartDaemon, idle_mb: float
) -> None:
    daemon = start_daemon(memory=pressed(idle_mb))
    memory = Memory(daemon)
    body = b"[" + b",".join([b'{"data":1}'] * (BODY_BYTES // 11)) + b"]"
    seen = await flood(daemon, to_a_few(body), publishers=8, seconds=0.7)

    assert set(seen.answers) <= {200, 413, 422, 503}
    assert memory.peak_mb <= (idle_mb + 60) * OVER_CRITICAL


async def test_bodies_that_come_slowly_are_given_up_when_memory_is_short(
    start_daemon: StartDaemon, idle_mb: float
) -> None:
    daemon = start_daemon(memory=pressed(idle_mb))
    memory = Memory(daemon)
    replies: list[Answer] = []
    head = (
        "POST /v1/sessions/s/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    )

    async def dribble(stream: trio.SocketStream) -> None:
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(BODY_BYTES // PIECE_BYTES - 1):  # it is never whole
                    await stream.send_all(b" " * PIECE_BYTES)
                    await trio.sleep(PIECE_S)

            async def send_until_refused() -> None:
                with suppress(trio.BrokenResourceError):
                    await send()

            nursery.start_soon(send_until_refused)
            with suppress(EOFError, trio.BrokenResourceError):  # a reset may overtake the answer
                replies.append(await read_answer(stream))
            nursery.cancel_scope.cancel()

    async with client_of(daemon) as client, trio.open_nursery() as nursery:
        for _ in range(150):
            stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
            await stream.send_all(head.encode())
            nursery.start_soon(dribble, stream)
        await client.until_breaker("open", within=CYCLE_S)
        closed = await client.until_breaker("closed", within=CYCLE_S)
        peak_mb = memory.peak_mb
        nursery.cancel_scope.cancel()

    assert peak_mb <= (idle_mb + 60) * OVER_CRITICAL
    assert closed["memory"]["accounted_mb"] < 5
    assert replies
    assert {reply.status for reply in replies} == {503}
    assert all(reply.headers["retry-after"].isdecimal() for reply in replies)
