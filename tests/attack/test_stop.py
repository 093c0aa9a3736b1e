"""A stop with strangers in the way: it takes a moment, whatever they do or leave undone."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import IO

import pytest
import trio
import trio.lowlevel
from typing_extensions import override

from broadcasterd.broadcast.hub import Hub
from broadcasterd.handover.restart import Restart
from broadcasterd.handover.transfer import Alerts
from broadcasterd.host.service import Service
from broadcasterd.stop import stop
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch, Process, StartDaemon, as_toml, execute
from tests.support.fuzz import client_hello
from tests.support.http2 import Http2
from tests.support.http2_frames import PREFACE, head
from tests.support.inprocess import Serving, serving, until
from tests.support.talk import SOON, connected

LONG_GRACE_S = 300.0
"""What ends much sooner did not wait for it."""

END_S = 20.0
"""What a loaded machine may need for a stop; an idle one needs a second."""

Stranger = Callable[[Daemon, Certificate, AsyncExitStack], Awaitable[None]]


async def half_a_handshake(daemon: Daemon, tls: Certificate, held: AsyncExitStack) -> None:
    client = await held.enter_async_context(connected(daemon))
    await client.stream.send_all(client_hello(tls.client_context("h2"))[:100])


async def half_a_head(daemon: Daemon, tls: Certificate, held: AsyncExitStack) -> None:
    stream = await encrypted(daemon, tls, held, "http/1.1")
    await stream.send_all(b"GET / HTTP/1.1\r\nHost:")


async def an_http2_connection_that_reads_nothing(
    daemon: Daemon, tls: Certificate, held: AsyncExitStack
) -> None:
    client = Http2(await encrypted(daemon, tls, held, "h2"), window=0)
    await client.start()
    for _ in range(20):
        stream = await client.ask("GET", "/openapi.json")
    await client.until(lambda: stream in client.status)


async def an_http2_stream_that_is_not_read(
    daemon: Daemon, tls: Certificate, held: AsyncExitStack
) -> None:
    client = Http2(await encrypted(daemon, tls, held, "h2"), window=0)
    await client.start()
    stream = await client.ask("GET", "/v1/sessions/news/events")
    await client.until(lambda: stream in client.status)


async def encrypted(
    daemon: Daemon, tls: Certificate, held: AsyncExitStack, protocol: str
) -> trio.SSLStream[trio.SocketStream]:
    """Connect with TLS."""
    client = await held.enter_async_context(connected(daemon))
    assert isinstance(client.stream, trio.SocketStream)
    stream = trio.SSLStream(
        client.stream, tls.client_context(protocol), server_hostname="127.0.0.1"
    )
    await stream.do_handshake()
    return stream


@pytest.mark.parametrize(
    "stranger",
    [
        half_a_handshake,
        half_a_head,
        an_http2_connection_that_reads_nothing,
        an_http2_stream_that_is_not_read,
    ],
    ids=lambda stranger: str(stranger.__name__),
)
@pytest.mark.slow
async def test_a_stop_does_not_wait_for(
    stranger: Stranger, start_daemon: StartDaemon, certificate: Certificate
) -> None:
    daemon = start_daemon(
        server={
            "shutdown_grace": LONG_GRACE_S,
            "tls_certificate": certificate.chain,
            "tls_key": certificate.key,
        },
        limits={"head_timeout": LONG_GRACE_S},
    )
    async with AsyncExitStack() as held:
        await stranger(daemon, certificate, held)
        daemon.process.send_signal(signal.SIGTERM)

        await ended(daemon.process)
    assert 0 == daemon.process.poll(), daemon.log()


async def ended(process: Process, *, within: float = END_S) -> None:
    """Wait for the end of a process, which no event tells here."""
    with trio.fail_after(within):
        while process.poll() is None:  # noqa: ASYNC110
            await trio.sleep(0.01)


# --- standard error ------------------------------------------------------------------------------


PIPE_BYTES = 4096
"""The least that a pipe may hold."""

RECORDS = 100
"""More than such a pipe holds, and than the daemon keeps for a reader that is slow."""


@pytest.mark.slow
async def test_a_stop_does_not_wait_for_a_standard_error_that_nobody_reads(tmp_path: Path) -> None:
    unread, written = os.pipe()
    fcntl(written, F_SETPIPE_SZ, PIPE_BYTES)

    def launch(
        arguments: Sequence[str], environment: Mapping[str, str], _: IO[str]
    ) -> tuple[Process, IO[str]]:
        with os.fdopen(written, "w") as stderr:
            return execute(arguments, environment, stderr)

    daemon = Daemon.start(tmp_path, launch)
    try:
        for _ in range(RECORDS):
            async with connected(daemon) as client:
                await client.follow("/v1/sessions/news/events")
        daemon.process.send_signal(signal.SIGTERM)

        await ended(daemon.process)
        assert 0 == daemon.process.poll()
    finally:
        daemon.kill()
        os.close(unread)


# --- signals, before it is ready -----------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=str)
@pytest.mark.slow
async def test_a_signal_is_handled_as_soon_as_the_port_answers(
    number: signal.Signals, launch: Launch, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "broadcasterd.toml"
    config.write_text(as_toml({"server": {"port": port}, "auth": {"mode": "none"}}))
    with (tmp_path / "stderr").open("w") as stderr:
        process, stdout = launch(["serve", "--config", str(config)], os.environ, stderr)
    try:
        await answers(port)
        process.send_signal(number)
        if number is signal.SIGHUP:
            await logged(tmp_path / "stderr", "configuration reloaded")
            process.send_signal(signal.SIGTERM)

        await ended(process)
        assert 0 == process.poll(), (tmp_path / "stderr").read_text()
    finally:
        process.kill()
        process.wait()
        stdout.close()


async def answers(port: int) -> None:
    """Wait until somebody listens at a port: no event tells that."""
    with trio.fail_after(END_S):
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            await trio.lowlevel.checkpoint()


async def logged(path: Path, text: str) -> None:
    """Wait until a text stands in a file."""
    with trio.fail_after(END_S):
        while text not in path.read_text():  # noqa: ASYNC110, ASYNC240 (a moment)
            await trio.sleep(0.01)


# --- restarts ------------------------------------------------------------------------------------


class Silent(Service):
    """A service that nobody watches."""

    def __init__(self) -> None:
        pass

    @override
    async def stopping(self) -> None:
        """Tell nobody."""


class NoMoreSignals(AsyncIterator[int]):
    """Of a process that nobody is impatient with."""

    @override
    async def __anext__(self) -> int:
        await trio.sleep_forever()


async def test_streams_are_handed_over_before_the_last_request_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed_over, request_is_over = trio.Event(), trio.Event()

    class Noting(Restart):
        def __init__(self) -> None:
            pass

        @override
        def keeps_streams(self, hub: Hub) -> bool:
            return False

        @override
        async def hand_over(
            self, hub: Hub, idle: Sequence[socket.socket] = (), alerts: Alerts = ()
        ) -> None:
            handed_over.set()

    async with serving() as serves, trio.open_nursery() as nursery:
        monkeypatch.setattr(serves.daemon, "wait_served", request_is_over.wait)
        nursery.start_soon(stop, serves.daemon, Silent(), NoMoreSignals(), Noting())
        with trio.fail_after(SOON):
            await handed_over.wait()

        assert not request_is_over.is_set()
        request_is_over.set()


async def test_a_stream_that_was_taken_up_holds_a_place() -> None:
    async with serving(limits={"max_connections": 2, "max_connections_per_address": 1}) as serves:
        limits = serves.server.connection_limits
        ends = [await connection() for _ in range(2)]
        kept = [serves.server.adopt(ours) for _, ours in ends]

        assert 2 == limits.taken
        assert await refused(serves)
        for sock in kept:
            sock.close()
        assert 0 == limits.taken
        for theirs, _ in ends:
            theirs.close()


async def connection() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


async def refused(serves: Serving) -> bool:
    """Whether one more connection finds no place."""
    before = sum(serves.server.connection_limits.refused.values())
    with trio.socket.socket() as sock, suppress(OSError):  # it is reset, sooner or later
        await sock.connect(("127.0.0.1", serves.port))
    with suppress(trio.TooSlowError):
        await until(lambda: sum(serves.server.connection_limits.refused.values()) > before)
        return True
    return False


# --- connections that are about to end -----------------------------------------------------------


async def test_a_stop_may_meet_a_connection_of_http_2_at_any_moment_of_its_end() -> None:
    async with serving(server={"h2c": True}) as serves:
        moments = 0
        while True:
            client = await serves.connect()
            await client.send_all(PREFACE + head(1, path="/v1/sessions/news/events"))
            await until(lambda: serves.hub.subscribers.by_id)
            [connection] = serves.server._connections
            await client.aclose()
            for _ in range(moments):
                await trio.lowlevel.checkpoint()
            if not serves.server._connections:
                break
            connection.end_if_idle()
            moments += 1
            await until(lambda: not serves.server._connections)
    assert moments
