"""The server: listens, and serves each connection in a task of its own, contained.

HTTP/1.1 is ours (``http1.py``). HTTP/2 is Hypercorn's (``http2.py``): over TLS where a client asks
for it, and without where it begins with HTTP/2's preface.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable, Sequence
from functools import partial

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from broadcasterd.api.answer import Stream
from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.problems import FAILED, problem_answer
from broadcasterd.api.request import join_fields
from broadcasterd.api.routes import Api
from broadcasterd.broadcast.slices import for_each
from broadcasterd.config import ConfigError, Limits, Server
from broadcasterd.errors import BadRequest, Problem
from broadcasterd.server.bridge import Address, Bridge, scope_of
from broadcasterd.server.certificate import check_certificate, name_of_certificate
from broadcasterd.server.connection_limits import ConnectionLimits
from broadcasterd.server.direct import (
    AnyAnswer,
    Found,
    answer_at_once,
    begin,
    find,
    respond,
)
from broadcasterd.server.forwarding import Forwarding
from broadcasterd.server.framing import KnownFields
from broadcasterd.server.http1 import DRAIN_S, Exchange, Http1, Serve
from broadcasterd.server.http2 import Http2Connection
from broadcasterd.server.listen import ListeningSocket, address_of
from broadcasterd.server.requests import PREFACE
from broadcasterd.server.sockets import ConnectionSocket, Handshakes, PlainSocket, TlsSocket, reset

log = structlog.stdlib.get_logger(__name__)

ACCEPTED_IN_A_ROW = 10
"""Connections accepted between two turns of everybody else: each takes some 100 µs."""

ACCEPT_PAUSE_S = 0.1
"""After a failure to accept: what is lacking (descriptors, memory) is not back at once."""

UNUSED_INTERVAL_S = 0.5
"""Between two looks for connections that nobody has used for ``server.keep_alive_timeout``."""

H2_STREAMS = 256
"""Streams of one HTTP/2 connection: a browser opens one per EventSource, all on the same."""


class HttpServer:
    """Listens, and serves each connection.

    Args:
        app: the ASGI application, for what is not served without it.
        api: what the handlers of routes work on.
        sockets: bound and listening; closed by :meth:`run`.

    Attributes:
        certificate: which one is shown to those who connect, in words; ``None`` without TLS.

    """

    def __init__(self, app: ASGIFramework, api: Api, sockets: Sequence[ListeningSocket]) -> None:
        self._app = app
        self._api = api
        self._settings = api.settings
        self._sockets = sockets
        self._hypercorn = _hypercorn_config(self._settings.server, self._settings.limits)
        self._context = WorkerContext(None)
        self._tls = _tls_context(self._hypercorn)
        self.certificate = name_of_certificate(self._settings.server)
        self._holdings = api.hub.holdings
        self._handshakes = Handshakes(self._holdings)
        self._accepting = trio.CancelScope()
        self._forwarding = Forwarding(self._settings)
        self._connections: set[Http1 | Http2Connection] = set()
        self._is_draining = self._keeps_idle = False
        self._idle: list[ConnectionSocket] = []  # for the next process
        self._resumed: list[PlainSocket] = []  # of the process before
        self.connection_limits = ConnectionLimits(
            self._settings, self._holdings, is_crowded=lambda: api.hub.crowd_bytes >= 0
        )
        self._known = KnownFields()
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
        async with trio.open_nursery() as connections:
            task_status.started(self.urls)
            with self._accepting:
                async with trio.open_nursery() as listening:
                    listening.start_soon(self._end_unused)
                    for sock in self._resumed:
                        connections.start_soon(self._contain, sock, _peer_of(sock), None)
                    self._resumed.clear()
                    for listener in self._sockets:
                        listening.start_soon(self._accept, listener, connections)

    def load_certificate(self, config: Server) -> None:
        """Show another certificate to those who connect from now on.

        Raises:
            ConfigError: it cannot be read, or does not go with its key; the old one stays.

        """
        if self._tls is not None and config.tls_certificate is not None:
            check_certificate(config)
            try:
                name = name_of_certificate(config)
                self._tls.load_cert_chain(config.tls_certificate, config.tls_key)
            except OSError as error:
                raise ConfigError(
                    f'server.tls_certificate = "{config.tls_certificate}": changed while it was'
                    f" read, or its key did: {error.strerror or error}"
                ) from error
            self.certificate = name

    def reconfigure(self) -> None:
        """Go on with the settings now in force."""
        self._hypercorn = _hypercorn_config(self._settings.server, self._settings.limits)
        self._forwarding.reconfigure()
        self.connection_limits.reconfigure()
        self.connection_limits.fit_descriptors()

    def adopt(self, sock: socket.socket) -> PlainSocket:
        """Return a stream's connection, accepted by another process, which has its place here."""
        return self._adopt(sock, is_stream=True)

    def resume(self, sock: socket.socket) -> None:
        """Serve what comes next on a connection that another process accepted, once this runs."""
        self._resumed.append(self._adopt(sock, is_stream=False))

    def _adopt(self, sock: socket.socket, *, is_stream: bool) -> PlainSocket:
        adopted = PlainSocket(fileno=sock.detach())
        adopted.settimeout(0)
        address, _ = _peer_of(adopted)
        adopted.place = self.connection_limits.keep(address, is_stream=is_stream)
        return adopted

    def take_idle(self) -> list[ConnectionSocket]:
        """Return the connections that are kept for the next process; they are the caller's."""
        idle, self._idle = self._idle, []
        return idle

    def close_doors(self, *, keep_idle: bool = False) -> None:
        """Close the listening sockets; whoever asks on a connection gets a last answer.

        With ``keep_idle``, connections on which no request is under way are kept for the next
        process, where that can be: see :meth:`take_idle`.
        """
        self._accepting.cancel()
        self._is_draining, self._keeps_idle = True, keep_idle
        for connection in tuple(self._connections):
            self._announce_end(connection)

    def _announce_end(self, connection: Http1 | Http2Connection) -> None:
        if isinstance(connection, Http1):
            connection.answer_the_last(self._idle.append if self._keeps_idle else None)

    async def stop_accepting(self) -> None:
        """Close the listening sockets and idle connections; requests under way go on."""
        self._accepting.cancel()
        self._handshakes.give_up_after(DRAIN_S)
        await self._context.terminated.set()
        for connection in tuple(self._connections):
            connection.end_if_idle()

    def abort(self) -> None:
        """Reset every connection that is still open."""
        for connection in tuple(self._connections):
            connection.abort()
        for sock in self.take_idle():
            sock.close()

    # Connections

    async def _accept(self, listening: ListeningSocket, connections: trio.Nursery) -> None:
        pause, in_a_row = 0.0, 0
        with listening:
            while True:
                try:
                    sock, address = listening.accept()
                except BlockingIOError:
                    pause, in_a_row = 0.0, 0
                    await trio.lowlevel.wait_readable(listening)
                except OSError as error:
                    # accept(2) also tells of a network's or a client's trouble: no reason to stop.
                    # But until nobody waits, one at a time: others need descriptors, too.
                    pause = ACCEPT_PAUSE_S
                    self.connection_limits.accept_failed(error)
                    await trio.sleep(pause)
                else:
                    if not in_a_row % ACCEPTED_IN_A_ROW:
                        self._api.hub.poller.tell()  # whoever left before they came has left
                    if (place := self.connection_limits.take(address[0])) is None:
                        reset(sock)
                    else:
                        sock.place = place
                        self._take(sock, address[:2], connections)
                    in_a_row += 1
                    if pause or in_a_row % ACCEPTED_IN_A_ROW == 0:
                        await trio.sleep(pause)

    async def _end_unused(self) -> None:
        while True:
            await trio.sleep(UNUSED_INTERVAL_S)
            now = trio.current_time()
            ours = [each for each in self._connections if isinstance(each, Http1)]
            await for_each(ours, lambda connection: connection.end_if_unused(now))  # noqa: B023

    def _take(self, sock: PlainSocket, client: Address, connections: trio.Nursery) -> None:
        """Serve a connection in a task of its own, unless it is a stream already."""
        connection = None
        if self._tls is None:
            connection = self._http1(sock, client)
            try:
                if connection.serve_at_once(partial(self._begin, sock, client)):
                    return
            except Exception:
                self.failed_connections += 1
                log.exception("a connection failed")
                sock.close()
                return
        connections.start_soon(self._contain, sock, client, connection)

    def _http1(self, sock: ConnectionSocket, client: Address) -> Http1:
        return self._served(sock, partial(self._respond, sock, client))

    def _served(self, sock: ConnectionSocket, serve: Serve) -> Http1:
        return Http1(sock, self._settings, self._api.hub.poller, self._known, serve)

    def _begin(self, sock: PlainSocket, client: Address, exchange: Exchange) -> Serve | None:
        """Make a stream of the connection of a first request, or return what sends the response."""
        if (found := find(exchange.head)) is None:
            return partial(self._respond, sock, client)
        peer = self._forwarding.client_of(client[0], exchange.head.headers)
        answer = answer_at_once(self._api, found, exchange, peer)
        if isinstance(answer, Stream):
            try:
                begin(self._api, answer, exchange, peer)
            except Exception as error:  # noqa: BLE001 (one response's failure is its own)
                self._note_failure(error)
                answer = problem_answer(Problem(500, FAILED))
        if exchange.connection.detached:
            return None
        return lambda exchange: self._respond_directly(found, exchange, peer, answer)

    async def _contain(self, sock: PlainSocket, client: Address, begun: Http1 | None) -> None:
        try:
            await self._serve(sock, client, begun)
        except (OSError, trio.TooSlowError):
            pass  # the client is gone, or never came to terms with us
        except Exception:
            self.failed_connections += 1
            log.exception("a connection failed")

    async def _serve(self, plain: PlainSocket, client: Address, begun: Http1 | None) -> None:
        sock: ConnectionSocket = plain
        if self._tls is not None:
            sock = await self._handshakes.secured(plain, self._tls)
            if isinstance(sock, PlainSocket):
                await self._run(self._served(sock, _ask_for_tls))
                return
            if sock.selected_alpn_protocol() == "h2":
                await self._serve_http2(sock, client)
                return
        connection = begun or self._http1(sock, client)
        if await self._run(connection):
            await self._serve_http2(sock, client, PREFACE + connection.reader.rest)

    async def _serve_http2(
        self, sock: ConnectionSocket, client: Address, begun: bytes = b""
    ) -> None:
        await self._run(
            Http2Connection(
                ASGIWrapper(self._respond_on_http2),
                self._hypercorn,
                self._context,
                sock,
                client=client,
                settings=self._settings,
                holdings=self._holdings,
                begun=begun,
            )
        )

    async def _run(self, connection: Http1 | Http2Connection) -> bool:
        if self._is_draining:
            self._announce_end(connection)
        if self._context.terminated.is_set():
            connection.end_if_idle()
        self._connections.add(connection)
        self._holdings.add(connection)
        try:
            return await connection.run()
        finally:
            self._connections.discard(connection)
            self._holdings.discard(connection)

    # Requests

    def _respond(
        self, sock: ConnectionSocket, client: Address, exchange: Exchange
    ) -> Awaitable[None]:
        peer = self._forwarding.client_of(client[0], exchange.head.headers)
        if (found := find(exchange.head)) is not None:
            return self._respond_directly(found, exchange, peer)
        return self._respond_by_framework(sock, (peer, client[1]), exchange)

    async def _respond_directly(
        self, found: Found, exchange: Exchange, peer: str, answer: AnyAnswer | None = None
    ) -> None:
        try:
            await respond(self._api, found, exchange, peer, answer)
        except (ClientDisconnected, trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception as error:
            self._note_failure(error)
            if not exchange.connection.detached:
                raise Problem(500, FAILED) from error

    async def _respond_by_framework(
        self, sock: ConnectionSocket, client: Address, exchange: Exchange
    ) -> None:
        scope = scope_of(
            exchange.head,
            scheme="https" if isinstance(sock, TlsSocket) else "http",
            client=client,
            server=sock.getsockname()[:2],
        )
        await Bridge(exchange).run(self._contained, scope)

    async def _respond_on_http2(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        _see_through_proxies(scope, self._forwarding)
        await self._contained(scope, receive, send)

    async def _contained(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        try:
            await self._app(scope, receive, send)
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


async def _ask_for_tls(_exchange: Exchange) -> None:
    raise BadRequest("this port speaks https, and the request is plain http")


def _peer_of(sock: socket.socket) -> Address:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:  # it is gone
        return "", 0
    return host, port


def _see_through_proxies(scope: Scope, forwarding: Forwarding) -> None:
    """Make the client of a request the one whom trusted proxies speak for."""
    if scope["type"] != "http" or scope["client"] is None:
        return
    told = join_fields(
        field for field in scope["headers"] if field[0] in {b"forwarded", b"x-forwarded-for"}
    )
    peer, port = scope["client"][:2]
    scope["client"] = (forwarding.client_of(peer, told), port)


def _hypercorn_config(config: Server, limits: Limits) -> HypercornConfig:
    hypercorn = HypercornConfig()
    hypercorn.accesslog = None  # it copies the environment for every request
    hypercorn.errorlog = logging.getLogger("hypercorn.error")
    hypercorn.include_server_header = False
    hypercorn.h2_max_concurrent_streams = H2_STREAMS
    hypercorn.h2_max_header_list_size = limits.max_head_bytes
    hypercorn.keep_alive_max_requests = limits.max_requests_per_connection
    hypercorn.max_app_queue_size = 2  # pieces of a body: backpressure is to reach the client
    if config.tls_certificate and config.tls_key:
        hypercorn.certfile = str(config.tls_certificate)
        hypercorn.keyfile = str(config.tls_key)
    return hypercorn


def _tls_context(config: HypercornConfig) -> ssl.SSLContext | None:
    """Return what connections are secured with; ``None`` without a certificate."""
    context = config.create_ssl_context()
    if context is not None:
        context.options |= ssl.OP_NO_RENEGOTIATION  # a write never has to wait for a read
        # Who sends no more may say so in TCP alone, and still reads.
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        context.sslsocket_class = TlsSocket
    return context
