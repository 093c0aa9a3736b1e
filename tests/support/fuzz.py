"""Raw bytes at a socket, sent as they are; and a check that a daemon bears any of them."""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from tests.support.daemon import CANARY, Daemon
from tests.support.http1 import Http1
from tests.support.inprocess import reset
from tests.support.talk import SOON, TEXT, eventually, target

AT_ONCE = 32
"""Connections at a time: a group takes seconds, and none fills the machine."""

QUIET_S = 0.2
"""A server that is silent for so long is taken to wait for more. No assertion hangs on it."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n")


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes that came back, and whether the server was the first to close."""

    raw: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each response, in order."""
        return [int(status) for status in _STATUS_LINE.findall(self.raw)]


async def throw(port: int, data: bytes, *, quiet: float = QUIET_S, answers: int = 0) -> Reply:
    """Send bytes on a connection of their own, and see that it ends.

    The client reads until the server closes. If the server is silent for ``quiet`` seconds, the
    client says that nothing more will come, and the server has to close. It may do so before it
    came to all bytes: a test that counts on answers says how many to wait for before that.
    """
    received = bytearray()
    try:
        with trio.fail_after(SOON):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send, stream, data)
                    closed = await _read(stream, received, quiet, answers)
                    nursery.cancel_scope.cancel()
                if not closed:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_eof()
                    await _read(stream, received, SOON)
    except trio.TooSlowError as error:
        error.add_note(f"it does not end: {data[:500]!r}, {bytes(received[:500])!r}")
        raise
    return Reply(bytes(received), closed)


async def leave(port: int, data: bytes, *, abruptly: bool) -> None:
    """Send bytes on a connection of their own, and leave without a look at the answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await _send(stream, data)
    if abruptly:
        reset(stream)
    else:
        await stream.aclose()


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def _read(
    stream: trio.SocketStream, received: bytearray, quiet: float, answers: int = 0
) -> bool:
    """Read until the end, or until nothing comes any more; return whether the end came."""
    try:
        while True:
            piece = None
            missing = len(_STATUS_LINE.findall(received)) < answers
            with trio.move_on_after(SOON if missing else quiet):
                piece = await stream.receive_some()
            if not piece:
                return piece is not None
            received += piece
    except trio.BrokenResourceError:
        return True  # with a reset: not all that was sent had been read


async def all_of(jobs: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Do every job, some of them at once."""
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)


TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b" ",
    b":",
    b";",
    b",",
    b'"',
    b"%",
    b"0",
    b"-",
    b"\r\n\r\n",
)
"""Bytes that a parser may trip over."""


def mutated(data: bytes, seed: int) -> bytes:
    """Return the bytes with a few of them changed, as the seed says."""
    chance = random.Random(seed)  # noqa: S311 (not a secret)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.randint(0, 8))
        match chance.randrange(4):
            case 0:
                changed[start:end] = chance.randbytes(end - start)
            case 1:
                del changed[start:end]
            case 2:
                changed[start:start] = chance.choice(TOKENS)
            case 3:
                changed[start:start] = changed[start:end] * chance.randint(1, 20)
    return bytes(changed)


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the first bytes of a TLS client."""
    said = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


@asynccontextmanager
async def unharmed(daemon: Daemon, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Check that the block inside leaves nothing behind, and that others are served after it.

    Args:
        daemon: the one it happens to.
        context: lets a client talk to it, if it speaks TLS.

    """
    await _is_served(daemon, context)
    before = daemon.descriptors()

    yield

    await _is_served(daemon, context)

    async def nothing_is_left() -> bool:
        return daemon.descriptors() <= before

    await eventually(nothing_is_left)
    assert "Traceback" not in daemon.log(), daemon.log()
    assert "[error" not in daemon.log(), daemon.log()


async def _is_served(daemon: Daemon, context: ssl.SSLContext | None) -> None:
    with trio.fail_after(SOON):
        plain = await trio.open_tcp_stream("127.0.0.1", daemon.port)
        stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1") if context else plain
        async with stream:
            client = Http1(stream)
            await client.ask("POST", target("others"), TEXT, CANARY.encode())

            assert 200 == (await client.answer()).status
