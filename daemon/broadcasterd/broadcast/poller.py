"""One task that waits for the sockets of all streams, however many there are.

A task of its own for each would take three times the memory of all else that a stream needs, and
its objects would keep the garbage collector busy. So there is one epoll(7) for them: Trio waits for
it, as it would for a socket, and ready sockets are handled some at a time, so that thousands of
clients that hang up or catch up at once do not stall the rest.
"""

from __future__ import annotations

import select
import socket
from typing import Protocol

import trio

READY_SLICE = 100
"""Sockets handled between two checkpoints: a catching-up write takes some 30 µs."""

_HEARING = select.EPOLLIN | select.EPOLLRDHUP
_WRITING = _HEARING | select.EPOLLOUT


class Polled(Protocol):
    """The holder of a socket, as the poller calls it. No method blocks."""

    def on_readable(self) -> None:
        """Read: the client said something, or hung up."""

    def on_writable(self) -> None:
        """Write on: there is room again."""

    def on_failure(self, error: Exception) -> None:
        """Close: a method above raised; other streams are not to suffer for it."""


class Poller:
    """Tells each holder of a socket when the socket is ready for it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._polled: dict[int, Polled] = {}

    def add(self, sock: socket.socket, polled: Polled) -> None:
        """Begin to wait for data from the client."""
        number = sock.fileno()
        self._epoll.register(number, _HEARING)
        self._polled[number] = polled

    def await_room(self, sock: socket.socket, *, wanted: bool) -> None:
        """Wait for room to write as well, or no longer."""
        self._epoll.modify(sock.fileno(), _WRITING if wanted else _HEARING)

    def remove(self, sock: socket.socket) -> None:
        """Wait no longer. Call it before the socket is closed: its number is given to another."""
        if self._polled.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    async def run(self) -> None:
        """Wait and tell, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.tell()

    def tell(self) -> None:
        """Tell of what is ready now, up to a slice."""
        for number, ready in self._epoll.poll(0, READY_SLICE):
            polled = self._polled.get(number)
            if polled is not None:  # not closed by one that was called before it
                self._tell(polled, number, ready)

    def close(self) -> None:
        """Close the epoll; nothing is added or removed any more."""
        self._epoll.close()

    def _tell(self, polled: Polled, number: int, ready: int) -> None:
        try:
            if ready & ~select.EPOLLOUT:
                polled.on_readable()
            if ready & select.EPOLLOUT and self._polled.get(number) is polled:
                polled.on_writable()
        except Exception as error:  # noqa: BLE001 (one stream's failure is its own)
            polled.on_failure(error)
