"""A daemon that is attacked: how it is configured, who has which token, and connections to it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon
from tests.support.flood import ANSWER_S, MIB
from tests.support.tokens import bearer, claims, jwt_mode, sign

MAX_SESSIONS = 300
PUBLISH_BURST = 2000
HELD_S = 2.0
"""How long an attacker waits for memory to be short: what it holds may have been cut before."""

LOOK_S = 0.05
PIPELINED = 100
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


def sections(
    directory: Path, idle_mb: float, certificate: Certificate | None = None
) -> dict[str, dict[str, Any]]:
    """Return the configuration of a daemon that little is needed to press.

    Args:
        directory: gets the secret of its tokens.
        idle_mb: memory of a daemon that does nothing.
        certificate: makes it speak TLS; without, it speaks HTTP/2 on a plain port.

    """
    server: dict[str, Any] = {"h2c": True}
    if certificate is not None:
        server = {"tls_certificate": certificate.chain, "tls_key": certificate.key}
    return {
        "server": server,
        "auth": jwt_mode(directory),
        "sessions": {
            "heartbeat_interval": 2.0,
            "max_sessions": MAX_SESSIONS,
            "max_history_events": 5000,
        },
        "memory": {
            "warning_mb": idle_mb + 15,
            "critical_mb": idle_mb + 35,
            "recover_below": 0.95,
            "sample_interval": 0.25,
        },
        "limits": {
            "publish_rate": 200.0,
            "publish_burst": PUBLISH_BURST,
            "max_failures_per_minute": 50,
        },
        "log": {"format": "json"},
    }


def token_of(subject: str) -> dict[str, str]:
    """Return the field of a subject that may use sessions whose names begin with its own."""
    mine = (f"{subject}*",)
    return bearer(sign(claims(subscribe=mine, publish=mine, sub=subject)))


@dataclass(slots=True)
class Target:
    """A daemon with the configuration of :func:`sections`.

    Attributes:
        client: for requests whose answers are read; it has no token.

    """

    daemon: Daemon
    certificate: Certificate | None = None
    client: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        secure = self.certificate is not None
        self.client = httpx.AsyncClient(
            base_url=f"http{'s' if secure else ''}://127.0.0.1:{self.daemon.port}",
            verify=self.certificate.client_context() if self.certificate else True,
            timeout=ANSWER_S,
            limits=httpx.Limits(max_connections=None),
        )

    @property
    def rss_mb(self) -> float:
        """Its resident memory."""
        return self.daemon.rss() / MIB

    async def health(self) -> dict[str, Any]:
        """Return what ``GET /health`` says."""
        found: dict[str, Any] = (await self.client.get("/health")).json()
        return found

    async def pressed(self) -> None:
        """Wait until the breaker has left ``closed``; or for so long as an attacker waits."""
        with trio.move_on_after(HELD_S):
            while (await self.health())["memory"]["breaker"] == "closed":  # noqa: ASYNC110
                await trio.sleep(LOOK_S)

    async def connect(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        """Open a connection, which nothing is sent on."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", self.daemon.port))
            return trio.SocketStream(sock)
        except BaseException:
            sock.close()
            raise

    async def encrypted(self, protocol: str) -> trio.abc.Stream:
        """Open a connection; over TLS, if that is what the daemon speaks."""
        stream = await self.connect()
        if self.certificate is None:
            return stream
        context = self.certificate.client_context(protocol)
        secure = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
        await secure.do_handshake()
        return secure

    @asynccontextmanager
    async def held(
        self, count: int, data: bytes = b"", *, receive_buffer: int | None = None
    ) -> AsyncIterator[None]:
        """Hold so many connections while inside, each of which has sent the same.

        Those that the daemon cuts at once are none that it holds: that is its right.
        """
        streams: list[trio.SocketStream] = []
        try:
            for _ in range(count):
                with suppress(OSError, trio.BrokenResourceError):
                    streams.append(await self.connect(receive_buffer=receive_buffer))
                    with trio.move_on_after(HELD_S):  # who is held back does not take all of it
                        await streams[-1].send_all(data)
            yield
        finally:
            for stream in streams:
                stream.socket.close()

    async def thrown(self, data: bytes) -> bytes:
        """Send bytes and that no more come; return the answer up to its end, or to a reset."""
        answer = bytearray()
        with trio.move_on_after(ANSWER_S):
            async with await self.connect() as stream, trio.open_nursery() as nursery:
                nursery.start_soon(_send_last, stream, data)
                with suppress(trio.BrokenResourceError):
                    while piece := await stream.receive_some():
                        answer += piece
                nursery.cancel_scope.cancel()
        return bytes(answer)

    async def storm(self, requests: Sequence[bytes]) -> Counter[int]:
        """Send requests of HTTP/1.1, many on a connection; return how many have which status."""
        statuses: Counter[int] = Counter()
        for start in range(0, len(requests), PIPELINED):
            answers = await self.thrown(b"".join(requests[start : start + PIPELINED]))
            statuses.update(int(status) for status in _STATUS.findall(answers))
        return statuses


async def _send_last(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
        await stream.send_eof()


def request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> bytes:
    """Return a request of HTTP/1.1."""
    fields = {"Host": "localhost", **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "\r\n"]).encode() + (body or b"")
