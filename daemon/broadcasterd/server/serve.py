"""The server: listens, and has Hypercorn serve each connection, within limits of our own.

Hypercorn parses requests and writes responses (HTTP/1.1 and, over TLS, HTTP/2). This module
hands it each connection as a stream of our own, which a handler can *detach*: from then on the
socket is ours and Hypercorn keeps an empty shell. Its Trio worker has habits that a server of
endless streams cannot live with; each is met here, and held by a test of its letter in
``tests/integration/test_stack_facts.py``.

All that leans on Hypercorn is here and in ``connection.py``, ``tasks.py``, ``http1.py`` and
``http2.py``; it is pinned to 0.18, for ``TCPServer``'s internals are not its public interface.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from math import inf

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import parse_socket_addr
from typing_extensions import override

from broadcasterd.access.client_address import Networks, client_address, parse_networks
from broadcasterd.api.request import join_fields
from broadcasterd.config import ConfigError, Limits, Server, Settings
from broadcasterd.server.connection import Connection, ConnectionListener
from broadcasterd.server.connection_limits import ConnectionLimits
from broadcasterd.server.http2 import Protocol
from broadcasterd.server.listen import address_of
from broadcasterd.server.tasks import Tasks

log = structlog.stdlib.get_logger(__name__)

WRITE_TIMEOUT_S = 20.0
"""How long one write of an ordinary response may wait for its reader (fact A)."""

KEEP_ALIVE_TIMEOUT_S = 15.0
"""How long a connection may wait for the first byte of the next request, or of its first."""

LINGER_S = 2.0
"""How long a client may go on to send a body that was refused: closing at once would reset
the connection, and with it the answer that says why."""

HANDSHAKE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""TLS says goodbye before it closes; a client that does not read must not hold that up."""

H2_STREAMS = 256
"""Streams of one HTTP/2 connection: a browser opens one per EventSource, all on the same."""


class Phase(Enum):
    """What a connection is doing; it may do most of that only for so long."""

    IDLE = "no request is under way"
    HEAD = "a part of the next request's head is there"
    SERVING = "a request is under way, and has limits of its own"
    LINGERING = "the last answer was given, and the client may still send"


class ConnectionServer(TCPServer):
    """Hypercorn's handling of one connection, without what endless streams cannot bear."""

    def __init__(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        context: WorkerContext,
        stream: Connection | trio.SSLStream[Connection],
        head_timeout: float,
    ) -> None:
        super().__init__(app, config, context, LifespanState(), stream)  # type: ignore[arg-type]
        self.protocol: Protocol
        self._tls = isinstance(stream, trio.SSLStream)
        self._connection = _connection_of(stream)
        self._head_timeout = head_timeout
        self._reading = trio.CancelScope()
        self._phase = Phase.IDLE
        self._read_ended = False

    @override
    async def run(self) -> None:
        """Serve the connection's requests until either side closes it."""
        try:
            sock = self._connection.socket
            client = parse_socket_addr(sock.family, sock.getpeername())
            server = parse_socket_addr(sock.family, sock.getsockname())
            alpn_protocol = await self._handshake()
            # Over TLS there is no socket to take over: records have to be encrypted.
            taken_from = None if self._tls else self._connection
            async with Tasks() as self._task_group:
                given = (
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState({"connection": taken_from}),
                    self._tls,
                    client,
                    server,
                    self.protocol_send,
                )
                self.protocol = Protocol(given, http2=alpn_protocol == "h2")
                await self.protocol.initiate()
                await self._read_data()
                if self._connection.detached and (shell := self._task_group._nursery):  # noqa: SLF001
                    shell.cancel_scope.cancel()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass  # the client is gone, before or in the middle of something
        finally:
            await self._close()

    def abort(self) -> None:
        """Reset the connection, and tell what it was serving."""
        self._connection.abort()
        self._reading.cancel()

    def end_if_idle(self) -> None:
        """Close the connection, unless a request is under way."""
        if self._phase in {Phase.IDLE, Phase.HEAD}:
            self._reading.cancel()

    def _enter(self, phase: Phase) -> None:
        """Go on to another phase, which has its time from now on.

        A deadline of the one scope that there is anyway: upstream, each request starts a task to
        wait for the next.
        """
        if self._phase is not Phase.LINGERING:
            self._phase = phase
            self._reading.deadline = trio.current_time() + self._time_for(phase)

    def _time_for(self, phase: Phase) -> float:
        match phase:
            case Phase.IDLE:
                return 0.0 if self.context.terminated.is_set() else KEEP_ALIVE_TIMEOUT_S
            case Phase.HEAD:
                return self._head_timeout
            case Phase.SERVING:
                return inf
            case Phase.LINGERING:
                return LINGER_S

    async def _handshake(self) -> str:
        if not self._tls:
            return "http/1.1"
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await self.stream.do_handshake()
        return self.stream.selected_alpn_protocol() or "http/1.1"

    @override
    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol wrote; close the connection where it says so.

        It says everything once. So all of this is done, also for a handler that is cancelled.
        """
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._enter(Phase.IDLE if event.idle else Phase.SERVING)
        else:
            with trio.move_on_after(2 * CLOSE_TIMEOUT_S, shield=True):
                if isinstance(event, Closed) and self._client_goes_on():
                    await self._linger()
                    return
                await super().protocol_send(event)
            if isinstance(event, Closed):
                self._reading.cancel()

    async def _send(self, data: bytes) -> None:
        # To the protocol it is written already: what is missing, or there in part, would spoil
        # the connection for all that follows. So a write, and the wait for its turn, outlives a
        # handler that is cancelled. It does not outlive its deadline (fact A).
        sent = False
        with (
            suppress(trio.BrokenResourceError, trio.ClosedResourceError),
            trio.move_on_after(WRITE_TIMEOUT_S, shield=True),
        ):
            async with self.send_lock:
                await self.stream.send_all(data)
                sent = True
        if not sent:
            self.abort()  # the reader may wait for the end of this very response (fact G)

    @override
    async def _read_data(self) -> None:
        with self._reading:
            self._enter(Phase.IDLE)
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
                if self._phase is not Phase.LINGERING:
                    await self.protocol.handle(RawData(bytes(data)))
                if self._phase is Phase.IDLE and self.protocol.protocol.has_begun_a_head:
                    self._enter(Phase.HEAD)  # however it goes on, byte by byte or not at all
                if not data:
                    break
        self._read_ended = True
        if self._reading.cancelled_caught and self._phase in {Phase.IDLE, Phase.HEAD}:
            await self.protocol.protocol.give_up()
        await self.protocol.handle(Closed())

    def _client_goes_on(self) -> bool:
        """Whether the answer was given before the request had been read to its end."""
        protocol = self.protocol.protocol
        return (
            isinstance(protocol, H11Protocol)
            and not self._read_ended
            and self._phase is not Phase.LINGERING
            and not self._connection.detached
            and protocol.connection.their_state in {h11.SEND_BODY, h11.ERROR}
        )

    async def _linger(self) -> None:
        self._enter(Phase.LINGERING)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self.send_lock:  # after what is being written: it may be the answer
                await self._connection.send_eof()
        await self.protocol.handle(Closed())

    @override
    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self.stream.aclose()


class HttpServer:
    """Listens, and serves each connection in a task of its own, contained.

    Args:
        app: the ASGI application.
        settings: those in force.
        sockets: bound and listening; closed by :meth:`run`.

    """

    def __init__(
        self,
        app: ASGIFramework,
        settings: Settings,
        sockets: Sequence[socket.socket],
    ) -> None:
        self._app = ASGIWrapper(self._contain)
        self._framework = app
        self._settings = settings
        self._trusted = parse_networks(settings.limits.trusted_proxies)
        self._config = _hypercorn_config(settings.server, settings.limits)
        self._context = WorkerContext(None)
        self._tls = self._config.create_ssl_context()  # None: plain HTTP
        self._sockets = sockets
        self._accepting = trio.CancelScope()
        self._connections: set[ConnectionServer] = set()
        self.connection_limits = ConnectionLimits(settings)
        self.failed_connections = 0
        self.failed_responses = 0

    @property
    def urls(self) -> list[str]:
        """The addresses that it listens at."""
        scheme = "https" if self._tls else "http"
        return [f"{scheme}://{address_of(sock)}" for sock in self._sockets]

    async def run(
        self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until :meth:`stop_accepting` was called and the last connection has ended."""
        self.connection_limits.fit_descriptors()
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        for sock in self._sockets:
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            plain = ConnectionListener(listening, self.connection_limits)
            listeners.append(
                trio.SSLListener(plain, self._tls, https_compatible=True) if self._tls else plain
            )
        async with trio.open_nursery() as connections:
            task_status.started(self.urls)
            with self._accepting:
                await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)

    def load_certificate(self, config: Server) -> None:
        """Show another certificate to those who connect from now on.

        Raises:
            ConfigError: it cannot be read, or does not go with its key; the old one stays.

        """
        if self._tls is not None and config.tls_certificate is not None:
            try:
                # To see whether it is good.
                _hypercorn_config(config, self._settings.limits).create_ssl_context()
                self._tls.load_cert_chain(config.tls_certificate, config.tls_key)
            except OSError as error:
                why = error.strerror or error
                raise ConfigError(
                    f'server.tls_certificate = "{config.tls_certificate}": {why}'
                ) from error

    def reconfigure(self) -> None:
        """Go on with the settings now in force from the next connection on."""
        self._config = _hypercorn_config(self._settings.server, self._settings.limits)
        self._trusted = parse_networks(self._settings.limits.trusted_proxies)
        self.connection_limits.reconfigure()
        self.connection_limits.fit_descriptors()

    async def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; requests under way go on."""
        self._accepting.cancel()
        await self._context.terminated.set()
        for connection in tuple(self._connections):
            connection.end_if_idle()

    def abort(self) -> None:
        """Reset every connection that is still open."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _serve(self, stream: Connection | trio.SSLStream[Connection]) -> None:
        connection = ConnectionServer(
            self._app, self._config, self._context, stream, self._settings.limits.head_timeout
        )
        self._connections.add(connection)
        try:
            await connection.run()
        except Exception:
            self.failed_connections += 1
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)
            _connection_of(stream).leave()

    async def _contain(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if self._trusted:
            _see_through_proxies(scope, self._trusted)
        try:
            await self._framework(scope, receive, send)
        except Exception as error:  # noqa: BLE001 (one response's failure is its own)
            self._note_failure(error)
        except BaseExceptionGroup as group:  # it failed while it was being cancelled
            cancelled, others = group.split(trio.Cancelled)
            if others is not None:
                self._note_failure(others)
            if cancelled is not None:
                raise cancelled from None

    def _note_failure(self, error: BaseException) -> None:
        self.failed_responses += 1
        log.error("a response failed", exc_info=error)


def _see_through_proxies(scope: Scope, trusted: Networks) -> None:
    """Make the client of a request the one whom trusted proxies speak for."""
    if scope["type"] == "lifespan" or scope["client"] is None:
        return
    told = join_fields(
        field for field in scope["headers"] if field[0] in {b"forwarded", b"x-forwarded-for"}
    )
    peer, port = scope["client"][:2]
    scope["client"] = (client_address(peer, told, trusted), port)


def _connection_of(stream: Connection | trio.SSLStream[Connection]) -> Connection:
    return stream if isinstance(stream, Connection) else stream.transport_stream


def _hypercorn_config(config: Server, limits: Limits) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.accesslog = None  # it copies the environment for every request (fact L)
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    hypercorn.include_server_header = False
    hypercorn.h2_max_concurrent_streams = H2_STREAMS
    hypercorn.h11_max_incomplete_size = limits.max_head_bytes
    hypercorn.h2_max_header_list_size = limits.max_head_bytes
    hypercorn.keep_alive_max_requests = limits.max_requests_per_connection
    hypercorn.max_app_queue_size = 2  # pieces of a body: backpressure is to reach the client
    if config.tls_certificate and config.tls_key:
        hypercorn.certfile = str(config.tls_certificate)
        hypercorn.keyfile = str(config.tls_key)
    return hypercorn
