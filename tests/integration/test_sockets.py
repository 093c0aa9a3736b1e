"""The sockets of connections: what is sent in pieces over TLS arrives as it was."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from broadcasterd.server import sockets
from broadcasterd.server.listen import ListeningSocket
from broadcasterd.server.sockets import Handshakes, PlainSocket, SocketStream, TlsSocket
from tests.support.certificate import Certificate
from tests.support.inprocess import SOON, until
from tests.support.paths import Path, serving_on


class Place:
    """Counts how often it was given back."""

    given_back = 0
    bytes = 0

    def take(self, size: int) -> None:
        self.bytes += size

    def give_back(self) -> None:
        self.given_back += 1


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def pair(place: Place) -> Iterator[tuple[PlainSocket, socket.socket]]:
    """Return a connection as the server has it, with little room, and its client's end."""
    with ListeningSocket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        ours, _ = listening.accept()
        ours.place = place  # type: ignore[assignment] # it is asked for nothing else
        yield ours, client
        ours.close()
        client.close()


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain, certificate.key)
    context.sslsocket_class = TlsSocket
    return context


@asynccontextmanager
async def secured(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate
) -> AsyncIterator[tuple[TlsSocket, trio.SSLStream[trio.SocketStream]]]:
    """Do the handshake; both ends are closed in the end."""
    ours, theirs = pair
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    client = trio.SSLStream(
        stream, certificate.client_context(), server_hostname="127.0.0.1", https_compatible=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        tls = await Handshakes().secured(ours, server_context(certificate))
    assert isinstance(tls, TlsSocket)
    async with client:
        yield tls, client
        tls.close()


def text(size: int) -> bytes:
    """Return bytes in which no piece is like another."""
    return b"".join(b"%08d" % number for number in range(size // 8))


async def test_a_tls_socket_sends_what_there_is_room_for(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate
) -> None:
    whole = text(800_000)
    async with secured(pair, certificate) as (tls, client):
        received = bytearray()

        async def read() -> None:
            while len(received) < len(whole):
                received.extend(await client.receive_some(1000))

        async with trio.open_nursery() as nursery:
            rest, blocked = memoryview(whole), 0
            while rest:
                try:
                    rest = rest[tls.send(rest[:70_000]) :]
                except BlockingIOError:
                    blocked += 1
                    if blocked == 1:
                        nursery.start_soon(read)
                    await trio.lowlevel.wait_writable(tls)

        assert blocked
        assert whole == received


async def test_a_record_that_was_written_in_part_goes_on_whatever_comes_next(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate
) -> None:
    async with secured(pair, certificate) as (tls, client):
        sent = text(8_000_000)
        told = 0
        with suppress(BlockingIOError):
            while True:
                told += tls.send(sent[told : told + 50_000])
        assert told < len(sent)
        # Other bytes than before follow, after those that were not told to be sent.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(SocketStream(tls).send_all, sent[told : told + 1] + b"the end")
            received = bytearray()
            while not received.endswith(b"the end"):
                received.extend(await client.receive_some())

        assert sent[: told + 1] + b"the end" == received


async def test_a_tls_socket_receives_what_has_come_and_then_the_end(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate
) -> None:
    async with secured(pair, certificate) as (tls, client):
        with pytest.raises(BlockingIOError):
            tls.recv()
        await client.send_all(b"hello")
        stream = SocketStream(tls)
        assert b"hello" == await stream.receive_some()
        await client.aclose()
        assert b"" == await stream.receive_some()


async def test_a_place_ends_with_its_socket(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate, place: Place
) -> None:
    async with secured(pair, certificate) as (tls, _):
        assert 0 == place.given_back
        tls.close()
        assert 1 == place.given_back


async def test_who_speaks_no_tls_is_sent_away(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate, place: Place
) -> None:
    ours, theirs = pair
    theirs.sendall(b"\x05\x01\x00 something else")

    with pytest.raises(ssl.SSLError):
        await Handshakes().secured(ours, server_context(certificate))
    assert 1 == place.given_back


async def test_who_speaks_http_is_left_to_be_told(
    pair: tuple[PlainSocket, socket.socket], certificate: Certificate, place: Place
) -> None:
    ours, theirs = pair
    theirs.sendall(b"GET / HTTP/1.1\r\n")

    assert ours is await Handshakes().secured(ours, server_context(certificate))
    assert b"GET / HTTP/1.1\r\n" == ours.recv(100)
    assert (0, 0) == (place.given_back, place.bytes)


async def test_a_handshake_may_not_take_for_ever(
    pair: tuple[PlainSocket, socket.socket],
    certificate: Certificate,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_TIMEOUT_S", 0.1)
    handshakes = Handshakes()
    with pytest.raises(trio.TooSlowError):
        await handshakes.secured(pair[0], server_context(certificate))

    assert 1 == place.given_back
    for _ in range(sockets.HANDSHAKES_AT_ONCE):
        await handshakes._turns.receive()  # it holds none


async def test_handshakes_are_done_a_few_at_a_time(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, most = 0, 0
    original = TlsSocket.do_handshake

    def do_handshake(tls: TlsSocket) -> None:
        nonlocal steps
        steps += 1
        original(tls)

    monkeypatch.setattr(TlsSocket, "do_handshake", do_handshake)
    async with (
        serving_on(Path.TLS, certificate) as (_, clients),
        trio.open_nursery() as nursery,
        trio.open_nursery() as connecting,
    ):

        @nursery.start_soon
        async def others() -> None:
            nonlocal most
            while True:
                before = steps
                await trio.lowlevel.checkpoint()
                most = max(most, steps - before)

        for _ in range(30):
            connecting.start_soon(clients.connect)
        await until(lambda: steps >= 60)
        nursery.cancel_scope.cancel()

    assert 0 < most <= 2 * sockets.HANDSHAKES_AT_ONCE, "one turn of theirs is two of trio's"


async def test_a_stop_does_not_wait_for_handshakes(certificate: Certificate) -> None:
    async with serving_on(Path.TLS, certificate) as (daemon, _), await daemon.connect() as silent:
        await trio.testing.wait_all_tasks_blocked(0.01)
        await daemon.server.stop_accepting()
        with trio.fail_after(SOON):
            assert b"" == await silent.receive_some()


async def test_who_waits_is_told_when_the_connection_is_closed(
    pair: tuple[PlainSocket, socket.socket],
) -> None:
    stream = SocketStream(pair[0])
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        await trio.testing.wait_all_tasks_blocked()
        stream.abort()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"a")
    with pytest.raises(ConnectionResetError):
        pair[1].recv(1)
