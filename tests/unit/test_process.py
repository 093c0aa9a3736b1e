"""The sockets of the daemon: systemd's, if there are any, or its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from broadcasterd.config import Config, ConfigError, from_mapping
from broadcasterd.host.systemd import HandedOver
from broadcasterd.process import listen

OPEN = from_mapping({"server": {"port": 0}, "auth": {"mode": "none"}})

Hand = Callable[[socket.socket], None]


@pytest.fixture
def handed() -> list[HandedOver]:
    """Return what the next :func:`listen` is handed over."""
    return []


@pytest.fixture
def hand(handed: list[HandedOver]) -> Hand:
    """Return what adds a socket to it."""

    def add(sock: socket.socket) -> None:
        handed.append(HandedOver("http", sock.detach()))

    return add


@pytest.fixture
def listening(handed: list[HandedOver]) -> Iterator[Callable[[Config], list[socket.socket]]]:
    """Return :func:`listen`; what it opens is closed afterwards."""
    opened: list[socket.socket] = []

    def call(config: Config) -> list[socket.socket]:
        opened.extend(listen(config, handed))
        return opened

    yield call
    for sock in opened:
        sock.close()


Listening = Callable[[Config], list[socket.socket]]


def at(host: str) -> socket.socket:
    """Return a socket that listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1"])
def test_a_socket_of_systemd_is_served_as_it_is(
    host: str, hand: Hand, listening: Listening
) -> None:
    sock = at(host)
    address = sock.getsockname()
    hand(sock)
    with capture_logs() as records:
        [served] = listening(OPEN)

    assert address == served.getsockname()
    assert 0 == served.gettimeout()
    assert served.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 64 * 1024
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16 * 1024
    assert ["info"] == [record["log_level"] for record in records]


def test_without_one_it_is_the_settings_that_count(listening: Listening) -> None:
    [served] = listening(OPEN)

    assert "127.0.0.1" == served.getsockname()[0]


def test_several_are_all_served(hand: Hand, listening: Listening) -> None:
    hand(at("127.0.0.1"))
    hand(at("::1"))

    assert ["127.0.0.1", "::1"] == [sock.getsockname()[0] for sock in listening(OPEN)]


def test_a_socket_that_others_can_reach_is_refused_without_tokens(
    hand: Hand, handed: list[HandedOver]
) -> None:
    """It does not accept anyone meanwhile: it is bound, and to no port that anybody knows."""
    sock = at("0.0.0.0")  # noqa: S104 (that is the test)
    with socket.socket(fileno=os.dup(sock.fileno())):
        hand(sock)
        with pytest.raises(ConfigError, match=r'host = "0\.0\.0\.0": expected a loopback'):
            listen(OPEN, handed)


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_INET),
    ],
    ids=["a unix socket", "a datagram socket", "one that does not listen"],
)
def test_what_is_no_listening_tcp_socket_is_closed(
    make: Callable[[], socket.socket], hand: Hand, listening: Listening
) -> None:
    sock = make()
    fd = sock.fileno()
    hand(sock)
    with capture_logs() as records:
        [own] = listening(OPEN)

    assert ["warning"] == [record["log_level"] for record in records]
    assert own.fileno() == fd or not os.path.exists(f"/proc/self/fd/{fd}")  # noqa: PTH110 (a link)
