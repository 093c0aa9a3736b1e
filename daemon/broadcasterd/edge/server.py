"""The server: listens, and has Hypercorn serve each connection, within limits of our own.

Hypercorn parses requests and writes responses (HTTP/1.1 and, over TLS, HTTP/2). This module
hands it each connection as a stream of our own, which a handler can *detach*: from then on the
socket is ours and Hypercorn keeps an empty shell. Its Trio worker has habits that a server of
endless streams cannot live with; each is met here, and held by a test of its letter in
``tests/integration/test_stack_facts.py``.

All that leans on Hypercorn is here and in ``connection.py``, ``tasks.py`` and ``http2.py``; it is
pinned to 0.18, for ``TCPServer``'s internals are not its public interface.
"""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

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

from broadcasterd.config import ConfigError
from broadcasterd.config import Server as ServerConfig
from broadcasterd.edge.connection import Connection, ConnectionListener
from broadcasterd.edge.http2 import Protocol
from broadcasterd.edge.tasks import Tasks

log = structlog.stdlib.get_logger(__name__)

SEND_BUFFER_BYTES = 64 * 1024
"""The kernel doubles it, and lets an unbounded one grow to 4 MiB for a reader that is slow:
memory that no count of ours would see."""

USER_TIMEOUT_MS = 60_000
"""A peer that acknowledges nothing for a minute is gone (RFC 5482): no FIN ever tells that."""

WRITE_TIMEOUT_S = 20.0
"""How long one write of an ordinary response may wait for its reader (fact A)."""

KEEP_ALIVE_TIMEOUT_S = 15.0
"""How long a connection may wait between requests, and for the head of its first."""

LINGER_S = 2.0
"""How long a client may go on to send a body that was refused: closing at once would reset
the connection, and with it the answer that says why."""

HANDSHAKE_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
"""TLS says goodbye before it closes; a client that does not read must not hold that up."""

H2_STREAMS = 256
"""Streams of one HTTP/2 connection: a browser opens one per EventSource, all on the same."""


class ConnectionServer(TCPServer):
    """Hypercorn's handling of one connection, without what endless streams cannot bear."""

    def __init__(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        context: WorkerContext,
        stream: Connection | trio.SSLStream[Connection],
    ) -> None:
        super().__init__(app, config, context, LifespanState(), stream)  # type: ignore[arg-type]
        self._tls = isinstance(stream, trio.SSLStream)
        self._connection = _connection_of(stream)
        self._reading = trio.CancelScope()
        self._lingering = False
        self._read_ended = False

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
                self.protocol = Protocol(
                    self.app,
                    self.config,
                    self.context,
                    self._task_group,
                    ConnectionState({"connection": taken_from}),
                    self._tls,
                    client,
                    server,
                    self.protocol_send,
                    alpn_protocol,
                )
                await self.protocol.initiate()
                await self.idle_task.restart(self._task_group, self._idle_timeout)
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

    async def _handshake(self) -> str:
        if not self._tls:
            return "http/1.1"
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await self.stream.do_handshake()
        return self.stream.selected_alpn_protocol() or "http/1.1"

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol wrote; close the connection where it says so.

        It says everything once. So all of this is done, also for a handler that is cancelled.
        """
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated) and event.idle and self._read_ended:
            pass  # no request can come: an idle timer would only keep the socket
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

    async def _read_data(self) -> None:
        with self._reading:
            while True:
                try:
                    data = await self.stream.receive_some(MAX_RECV)
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
                if not self._lingering:
                    await self.protocol.handle(RawData(bytes(data)))
                if not data:
                    break
        self._read_ended = True
        await self.idle_task.stop()
        await self.protocol.handle(Closed())

    def _client_goes_on(self) -> bool:
        """Whether the answer was given before the request had been read to its end."""
        protocol = self.protocol.protocol
        return (
            isinstance(protocol, H11Protocol)
            and not self._read_ended
            and not self._lingering
            and not self._connection.detached
            and protocol.connection.their_state in {h11.SEND_BODY, h11.ERROR}
        )

    async def _linger(self) -> None:
        self._lingering = True
        self._reading.deadline = trio.current_time() + LINGER_S
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self.send_lock:  # after what is being written: it may be the answer
                await self._connection.send_eof()
        await self.protocol.handle(Closed())

    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self.stream.aclose()


class Server:
    """Listens, and serves each connection in a task of its own, contained.

    Args:
        app: the ASGI application.
        config: the ``[server]`` settings.
        sockets: bound and listening; closed by :meth:`run`.

    """

    def __init__(
        self, app: ASGIFramework, config: ServerConfig, sockets: Sequence[socket.socket]
    ) -> None:
        self._app = ASGIWrapper(self._contain)
        self._framework = app
        self._config = _hypercorn_config(config)
        self._context = WorkerContext(None)
        self._tls = self._config.create_ssl_context()  # None: plain HTTP
        self._sockets = sockets
        self._accepting = trio.CancelScope()
        self._connections: set[ConnectionServer] = set()
        self.failed_connections = 0
        self.failed_responses = 0

    @property
    def urls(self) -> list[str]:
        """The addresses that it listens at."""
        scheme = "https" if self._tls else "http"
        return [f"{scheme}://{_address(sock)}" for sock in self._sockets]

    async def run(
        self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until :meth:`stop_accepting` was called and the last connection has ended."""
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        for sock in self._sockets:
            plain = ConnectionListener(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
            listeners.append(
                trio.SSLListener(plain, self._tls, https_compatible=True) if self._tls else plain
            )
        async with trio.open_nursery() as connections:
            task_status.started(self.urls)
            with self._accepting:
                await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)

    def reconfigure(self, config: ServerConfig) -> None:
        """Present the certificate that is in the files now, from the next handshake on.

        Raises:
            ConfigError: it cannot be read, or does not go with its key; the old one stays.

        """
        if self._tls is None or config.tls_certificate is None:
            return
        try:
            _hypercorn_config(config).create_ssl_context()  # to see whether it is good
            self._tls.load_cert_chain(config.tls_certificate, config.tls_key)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(
                f'server.tls_certificate = "{config.tls_certificate}": {why}'
            ) from error

    async def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; requests under way go on."""
        self._accepting.cancel()
        await self._context.terminated.set()

    def abort(self) -> None:
        """Reset every connection that is still open."""
        for connection in tuple(self._connections):
            connection.abort()

    async def _serve(self, stream: Connection | trio.SSLStream[Connection]) -> None:
        connection = ConnectionServer(self._app, self._config, self._context, stream)
        self._connections.add(connection)
        try:
            await connection.run()
        except Exception:
            self.failed_connections += 1
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)

    async def _contain(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
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


def bind(config: ServerConfig) -> list[socket.socket]:
    """Return listening sockets for every address of ``server.host``.

    What is set here is inherited by the connections that they accept.

    Raises:
        OSError: the address cannot be bound; the text names it.

    """
    sockets = []
    addresses = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bound_what_the_kernel_keeps(sock)
        try:
            sock.bind(address)
        except OSError as error:
            for opened in sockets:
                opened.close()
            where = f"server.host {config.host!r}, server.port {config.port}"
            raise OSError(error.errno, f"cannot listen at {where}: {error.strerror}") from error
        sock.listen(config.backlog)
        sock.settimeout(0)
    return sockets


def adopt(fd: int) -> socket.socket | None:
    """Return the listening TCP socket that this descriptor is, set up as :func:`bind` does.

    ``None``, and nothing done, where it is anything else.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    if (
        sock.family not in {socket.AF_INET, socket.AF_INET6}
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.detach()
        return None
    _bound_what_the_kernel_keeps(sock)
    sock.settimeout(0)
    return sock


def _bound_what_the_kernel_keeps(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _connection_of(stream: Connection | trio.SSLStream[Connection]) -> Connection:
    return stream if isinstance(stream, Connection) else stream.transport_stream


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _hypercorn_config(config: ServerConfig) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.accesslog = None  # it copies the environment for every request (fact L)
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    hypercorn.include_server_header = False
    hypercorn.keep_alive_timeout = KEEP_ALIVE_TIMEOUT_S
    hypercorn.h2_max_concurrent_streams = H2_STREAMS
    # On HTTP/2 the thousandth request would end all others, without a word.
    hypercorn.keep_alive_max_requests = sys.maxsize
    hypercorn.max_app_queue_size = 2  # pieces of a body: backpressure is to reach the client
    if config.tls_certificate and config.tls_key:
        hypercorn.certfile = str(config.tls_certificate)
        hypercorn.keyfile = str(config.tls_key)
    return hypercorn
