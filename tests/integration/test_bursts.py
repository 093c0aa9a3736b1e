"""Many events at once: who had all that came before is not behind, whatever carries the stream."""

from __future__ import annotations

import pytest
import trio

from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.inprocess import serving
from tests.support.paths import Path, serving_on

BURST = 2000
"""Events of one request: four times what is retained, and what a reader may be behind."""

on_each_path = pytest.mark.parametrize("path", Path, ids=lambda path: path.name.lower())


@on_each_path
async def test_an_array_ends_nobody_who_was_up_to_date(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        followers = [await clients.follow("/v1/sessions/s/events") for _ in range(3)]
        await clients.publish("/v1/sessions/s/events", *range(BURST))

        for follower in followers:
            assert [str(number) for number in range(BURST)] == await follower.data(BURST)
        assert not daemon.hub.subscribers.ended_by_reason


async def test_nor_one_of_http_1_0() -> None:
    async with serving() as daemon:
        connection = await daemon.connect()
        await connection.send_all(b"GET /v1/sessions/s/events HTTP/1.0\r\n\r\n")
        text = b""
        with trio.fail_after(10):
            while b"\r\n\r\n" not in text or b": stream" not in text:
                text += await connection.receive_some()
            session = daemon.session("s")
            await session.publish(drafts(*map(str, range(BURST))))
            while f"data: {BURST - 1}\n".encode() not in text:
                text += await connection.receive_some()
        assert text.count(b"\ndata: ") == BURST
        assert not daemon.hub.subscribers.ended_by_reason
        await connection.aclose()
