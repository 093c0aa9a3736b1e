"""Listening sockets, and what the connections that they accept inherit."""

from __future__ import annotations

import errno
import socket
from typing import Any

from typing_extensions import override

from broadcasterd.config import Server
from broadcasterd.server.sockets import PlainSocket

SEND_BUFFER_BYTES = 64 * 1024
"""The kernel doubles it, and lets an unbounded one grow to 4 MiB for a reader that is slow:
memory that no count of ours would see."""

UNSENT_BYTES = 16 * 1024
"""A socket takes more when less than this waits to be sent: what a slow reader is owed stays in the
log, and is not copied into the kernel."""

USER_TIMEOUT_MS = 60_000
"""A peer that acknowledges nothing for a minute is gone (RFC 5482): no FIN ever tells that."""

BOTH_FAMILIES = {
    "localhost": ("127.0.0.1", "::1"),
    "*": ("0.0.0.0", "::"),  # noqa: S104 (its operator asks for all)
    "::": ("0.0.0.0", "::"),  # noqa: S104
}
"""What these mean on every machine, whatever its resolver says (RFC 6761 §6.3)."""

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""How a machine without IPv6 answers: it then has the other family's address alone."""

PORT_TRIES = 10
"""A port that the kernel chose for one family may be taken in the other."""


class ListeningSocket(socket.socket):
    """A socket that listens; what it accepts are connections without TLS."""

    @override
    def accept(self) -> tuple[PlainSocket, Any]:
        """Return the next connection, non-blocking, and the address of its client.

        Raises:
            BlockingIOError: there is none.
            OSError: as accept(2).

        """
        # As socket.accept, without what that looks up each time and makes enumerations of.
        number, address = self._accept()  # type: ignore[attr-defined] # accept(2)
        family = super(socket.socket, self).family
        accepted = PlainSocket(family, socket.SOCK_STREAM, self.proto, fileno=number)
        accepted.place = None
        accepted.settimeout(0)
        return accepted, address


def bind(config: Server) -> list[ListeningSocket]:
    """Return listening sockets for every address of ``server.host``, all of one port.

    What is set here is inherited by the connections that they accept.

    Raises:
        OSError: the address cannot be bound; the text names it.

    """
    for _ in range(PORT_TRIES):
        try:
            return _bind(config)
        except OSError as error:
            if config.port or error.errno != errno.EADDRINUSE:
                raise
    return _bind(config)


def _bind(config: Server) -> list[ListeningSocket]:
    opened: list[ListeningSocket] = []
    try:
        for family, address in _addresses(config):
            # Where the port is the kernel's choice, all have the first one's.
            port = opened[0].getsockname()[1] if opened else config.port
            try:
                opened.append(_listening(family, (address[0], port, *address[2:]), config.backlog))
            except OSError as error:
                if not opened or config.host not in BOTH_FAMILIES or error.errno not in _NO_IPV6:
                    raise
    except OSError as error:
        for sock in opened:
            sock.close()
        where = f"server.host {config.host!r}, server.port {config.port}"
        raise OSError(error.errno, f"cannot listen at {where}: {error.strerror}") from error
    return opened


def _addresses(config: Server) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    """Return the addresses of ``server.host``, each once."""
    found: dict[tuple[socket.AddressFamily, tuple[Any, ...]], None] = {}
    for host in BOTH_FAMILIES.get(config.host, (config.host.strip("[]"),)):
        for family, _, _, _, address in socket.getaddrinfo(
            host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            found[family, address] = None
    return [*found]


def _listening(
    family: socket.AddressFamily, address: tuple[Any, ...], backlog: int
) -> ListeningSocket:
    sock = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _set_up(sock)
        sock.bind(address)
        sock.listen(backlog)
        sock.settimeout(0)
    except BaseException:
        sock.close()
        raise
    return sock


def adopt(fd: int) -> ListeningSocket | None:
    """Return the listening TCP socket that this descriptor is, set up as :func:`bind` does.

    ``None``, and nothing done, where it is anything else.
    """
    try:
        sock = ListeningSocket(fileno=fd)
    except OSError:
        return None
    if (
        sock.family not in {socket.AF_INET, socket.AF_INET6}
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.detach()
        return None
    _set_up(sock)
    sock.settimeout(0)
    return sock


def address_of(sock: socket.socket) -> str:
    """Return where a socket listens, as in a URL."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_up(sock: socket.socket) -> None:
    """Set what the connections inherit."""
    # An event is written as a whole: it is not to wait for the acknowledgement of the one before.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
