"""The daemon inside the test's own Trio run: its tasks, sockets and state can be looked at.

``async with serving(sessions={"max_lag_events": 5}) as daemon:`` starts a daemon as daemon.py
does, on a free loopback port, and stops it after it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
import trio.testing

from broadcasterd.access.tokens import KeyRing
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.session import Session
from broadcasterd.config import Config, from_mapping
from broadcasterd.core.reasons import EndReason
from broadcasterd.daemon import Daemon, Restore, nothing_to_restore
from broadcasterd.server.asgi import Application
from broadcasterd.server.listen import bind
from broadcasterd.server.serve import HttpServer
from tests.support.certificate import Certificate

SOON = 30.0
"""Seconds to wait on a loaded machine, for things that take milliseconds."""

STOP_S = 15.0
"""How long the end of a test waits for tasks that still run."""

KEEP_ALIVE_TIMEOUT_S = 15.0
"""How long a connection may be idle, unless a test says otherwise."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for 0 s: close then sends a RST


@dataclass(frozen=True, slots=True)
class Serving:
    """A daemon in this Trio run, and where it listens."""

    daemon: Daemon
    url: str

    @property
    def hub(self) -> Hub:
        """Its hub."""
        return self.daemon.hub

    @property
    def app(self) -> Application:
        """Its Quart application."""
        return self.daemon.app

    @property
    def server(self) -> HttpServer:
        """Its server."""
        return self.daemon.server

    @property
    def port(self) -> int:
        """Where it listens, on loopback."""
        return int(self.url.rpartition(":")[2])

    def events(self, name: str) -> str:
        """Return the URL of a session's events."""
        return f"{self.url}/v1/sessions/{name}/events"

    def session(self, name: str) -> Session:
        """Return an open session."""
        return self.hub.find(name)

    async def connect(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        """Open a connection; ``receive_buffer`` bounds what the kernel reads ahead."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", self.port))
            return trio.SocketStream(sock)
        except BaseException:
            sock.close()
            raise


@asynccontextmanager
async def serving(
    restore: Restore = nothing_to_restore,
    /,
    *,
    certificate: Certificate | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Serving]:
    """Run a daemon on a free loopback port while inside.

    Args:
        restore: takes up what another daemon left.
        certificate: makes it speak TLS.
        sections: keys of the configuration by section.

    """
    config = _config(certificate, sections)
    keys = KeyRing.load(config.auth)
    daemon = Daemon(config, keys, bind(config.server))
    async with trio.open_nursery() as root:
        [url] = await root.start(daemon.run, restore)
        try:
            yield Serving(daemon, url)
        finally:
            server = daemon.server
            with trio.move_on_after(STOP_S, shield=True):
                await server.stop_accepting()
                for stream in tuple(daemon.hub.subscribers.by_id.values()):
                    stream.close(EndReason.DRAINING)
                server.abort()
                while server._connections:
                    await trio.testing.wait_all_tasks_blocked(0.001)
            left = len(server._connections)
            root.cancel_scope.cancel()
    assert left == 0, f"{left} connections outlived a reset"


def _config(
    certificate: Certificate | None, sections: Mapping[str, Mapping[str, object]]
) -> Config:
    server: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 0,
        "keep_alive_timeout": KEEP_ALIVE_TIMEOUT_S,
    }
    if certificate is not None:
        server["tls_certificate"] = str(certificate.chain)
        server["tls_key"] = str(certificate.key)
    server |= sections.get("server", {})
    # Without the breaker: memory that the tests themselves take cannot be relieved.
    without = {"memory": {"breaker": False}, "auth": {"mode": "none"}}
    return from_mapping({**without, **sections, "server": server})


async def until(condition: Callable[[], object], *, within: float = SOON) -> None:
    """Let everything run until ``condition`` holds; fail if it does not ``within`` seconds."""
    with trio.fail_after(within):
        while not condition():
            with trio.move_on_after(0.01):  # some tests keep somebody busy all the time
                await trio.testing.wait_all_tasks_blocked(0.001)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What this process holds: tasks of this Trio run, and open file descriptors."""

    tasks: int
    descriptors: int

    @classmethod
    async def settled(cls) -> Footprint:
        """Count both when everything waits."""
        await trio.testing.wait_all_tasks_blocked(0.01)
        return cls.now()

    @classmethod
    def now(cls) -> Footprint:
        """Count both."""
        tasks = trio.lowlevel.current_statistics().tasks_living
        return cls(tasks, len(os.listdir("/proc/self/fd")))  # noqa: PTH208 (names are enough)

    def is_within(self, before: Footprint) -> bool:
        """Return whether there is no more of either than before; some of that may be gone."""
        return self.tasks <= before.tasks and self.descriptors <= before.descriptors


async def until_back_to(before: Footprint) -> None:
    """Wait until all that was started since is gone; fail, and name the rest, if any stays."""
    try:
        await until(lambda: Footprint.now().is_within(before))
    except trio.TooSlowError:
        assert before == Footprint.now()


def reset(stream: trio.SocketStream) -> None:
    """Close a connection with a RST, as crashed machines and impatient middleboxes do."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    stream.socket.close()
