"""Listening: which addresses a host means, and that all have one port."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from broadcasterd.config import Server
from broadcasterd.server import listen
from broadcasterd.server.listen import ListeningSocket, address_of, bind

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


ALL_OF_IPV4 = "0.0.0.0"  # noqa: S104 (each is closed as soon as it was seen)
ALL_OF_IPV6 = "::"
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def bound() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def addresses(host: str, bound: ExitStack) -> list[str]:
    """Listen; return the addresses, having seen that each is listened at, and all on one port."""
    sockets: list[ListeningSocket] = [
        bound.enter_context(sock) for sock in bind(Server(host=host, port=0))
    ]
    assert 1 == len({sock.getsockname()[1] for sock in sockets})
    for sock in sockets:
        to = (LOOPBACK[sock.family], sock.getsockname()[1])
        with socket.create_connection(to):
            sock.settimeout(10)
            sock.accept()[0].close()
    return [sock.getsockname()[0] for sock in sockets]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        (ALL_OF_IPV4, [ALL_OF_IPV4]),
        pytest.param("::1", ["::1"], marks=needs_ipv6),
        pytest.param("[::1]", ["::1"], marks=needs_ipv6),
        pytest.param("localhost", ["127.0.0.1", "::1"], marks=needs_ipv6),
        pytest.param("*", [ALL_OF_IPV4, ALL_OF_IPV6], marks=needs_ipv6),
        pytest.param("::", [ALL_OF_IPV4, ALL_OF_IPV6], marks=needs_ipv6),
    ],
)
def test_a_host_means_these_addresses(host: str, expected: list[str], bound: ExitStack) -> None:
    assert addresses(host, bound) == expected


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", "127.0.0.1"), ("*", ALL_OF_IPV4), ("::", ALL_OF_IPV4)]
)
def test_without_ipv6_it_is_the_other_family_alone(
    monkeypatch: pytest.MonkeyPatch, bound: ExitStack, code: int, host: str, expected: str
) -> None:
    whole = listen._listening

    def without_ipv6(family: socket.AddressFamily, *rest: object) -> ListeningSocket:
        if family == socket.AF_INET6:
            raise OSError(code, "no such thing")
        return whole(family, *rest)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(listen, "_listening", without_ipv6)

    assert addresses(host, bound) == [expected]


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"at server.host 'localhost', server.port {port}: "):
            bind(Server(host="localhost", port=port))


def test_a_name_that_is_none_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen at server\.host 'nobody\.invalid'"):
        bind(Server(host="nobody.invalid", port=0))


def test_an_address_is_shown_as_in_a_url(bound: ExitStack) -> None:
    [sock] = [bound.enter_context(sock) for sock in bind(Server(host="127.0.0.1", port=0))]

    assert address_of(sock) == f"127.0.0.1:{sock.getsockname()[1]}"
