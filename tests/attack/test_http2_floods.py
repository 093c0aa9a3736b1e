"""HTTP/2 as an attack: frames that cost nothing to send, and mistakes on one stream of many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    RstStreamFrame,
)

from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, StartDaemon
from tests.support.fuzz import throw
from tests.support.http1 import Http1
from tests.support.http2 import Http2
from tests.support.http2_frames import FLOODS, PREFACE, head
from tests.support.inprocess import Serving, serving, until
from tests.support.talk import NDJSON, SOON, TEXT, connected, target
from tests.support.tokens import bearer, claims, jwt_mode, sign

ATTACKERS = 4
FRAMES = 10_000
H2C = {"h2c": True}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.slow
async def test_a_flood_of_frames_ends_its_connection_and_nobody_elses(
    flood: Callable[[], Iterator[bytes]],
) -> None:
    data = b"".join(itertools.islice(flood(), FRAMES))
    async with serving(server=H2C) as daemon:
        goodbyes: list[int] = []

        async def attack() -> None:
            goodbyes.append(await goodbye(daemon, data))

        async with await daemon.connect() as innocent, trio.open_nursery() as nursery:
            for _ in range(ATTACKERS):
                nursery.start_soon(attack)
            client = Http1(innocent)
            stream = await client.follow(target("news"))
            await daemon.session("news").publish(drafts("all is well"))
            assert ["all is well"] == await stream.data(1)

        assert [ErrorCodes.ENHANCE_YOUR_CALM] * ATTACKERS == goodbyes
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses
        await until(lambda: not daemon.server._connections)


async def goodbye(daemon: Serving, data: bytes) -> int:
    """Send bytes and read to the end; return why the server went away."""
    received = bytearray()
    async with await daemon.connect() as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(PREFACE + data)

        nursery.start_soon(send)
        with suppress(trio.BrokenResourceError), trio.fail_after(SOON):
            while piece := await stream.receive_some():
                received += piece
        nursery.cancel_scope.cancel()
    return next((f.error_code for f in frames_of(received) if isinstance(f, GoAwayFrame)), -1)


def frames_of(data: bytearray) -> Iterator[Frame]:
    """Yield the whole frames in what was received."""
    view = memoryview(bytes(data))
    while len(view) >= 9:
        frame, size = Frame.parse_frame_header(view[:9])
        if len(view) < 9 + size:
            return
        frame.parse_body(view[9 : 9 + size])
        yield frame
        view = view[9 + size :]


# --- one stream of many --------------------------------------------------------------------------


MISTAKES = {
    "a refused request that is given up at once": head(3, {"x-filler": "x" * 10_000}, end=False)
    + RstStreamFrame(3, error_code=8).serialize(),
    "more than its content-length": head(3, {"content-length": "1"}, end=False)
    + DataFrame(3, b"too much", flags=["END_STREAM"]).serialize(),
    "less than its content-length": head(3, {"content-length": "9"}, end=False)
    + DataFrame(3, b"little", flags=["END_STREAM"]).serialize(),
    "no body, and a content-length": head(3, {"content-length": "9"}),
    "a content-length that is no number": head(3, {"content-length": "x"}),
    "a field in capitals": head(3, {"X-Odd": "x"}),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
async def test_a_mistake_costs_the_stream_that_made_it_alone(mistake: bytes) -> None:
    async with serving(server=H2C, limits={"max_head_bytes": 4096}) as daemon:
        received = bytearray()
        async with await daemon.connect() as stream:
            await stream.send_all(PREFACE + head(1) + mistake + head(5))
            with trio.fail_after(SOON):
                while not {1, 5} <= {
                    frame.stream_id for frame in frames_of(received) if "END_STREAM" in frame.flags
                }:
                    piece = await stream.receive_some()
                    assert piece, "the connection ended"
                    received += piece
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


@pytest.mark.slow
async def test_a_publisher_who_is_held_back_holds_up_no_other_stream(
    start_daemon: StartDaemon, certificate: Certificate, tmp_path: Path
) -> None:
    limits = {"publish_rate": 1, "publish_burst": 1}
    daemon = start_daemon(server=H2C, auth=jwt_mode(tmp_path), limits=limits)
    held = bearer(sign(claims(publish=("*",), sub="held")))
    other = bearer(sign(claims(publish=("*",), sub="other")))
    async with connected(daemon) as connection:
        client = Http2(connection.stream)
        await client.start()
        slow = await client.ask("POST", target("a"), {**low(NDJSON), **low(held)}, end=False)
        lines = b'{"data": 1}\n' * 5000  # at one a second: nearly a stream's whole window
        await client.go_on(slow, lines)
        for _ in range(2):  # both need room in the connection's window, which all share
            quick = await client.ask(
                "POST", target("b"), {**low(TEXT), **low(other)}, body=b"x" * 40_000
            )
            status, _body = await client.answer(quick)

            assert status in {200, 429}
        await client.reset(slow)


def low(fields: dict[str, str]) -> dict[str, str]:
    """Return header fields as HTTP/2 writes them."""
    return {name.lower(): value for name, value in fields.items()}


async def test_without_tls_http2_is_spoken_only_where_the_settings_say_so(daemon: Daemon) -> None:
    reply = await throw(daemon.port, PREFACE + head(1))

    assert [505] == reply.statuses
