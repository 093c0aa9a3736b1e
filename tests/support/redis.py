"""A real redis-server, and Sentinels and a Cluster of such, each stopped by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from broadcasterd.engine.redis.wire import slot_of
from tests.support.tools import require

SOON_S = 30.0
"""How long a start, or a failover, may take on a loaded machine."""

DOWN_MS = 1000
"""How long a primary may be silent until the Sentinels take it for down."""


AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""Else a primary waits for more replicas to come."""


@dataclass
class Redis:
    """A server that listens on a Unix socket, and on a port of loopback where it is asked to.

    Args:
        directory: has its files; its path is short, for a socket's has at most 107 characters.
        options: of its command line, without the two dashes.
        port: to listen on; 0 is none.
        program: the program.
        password: what it asks for, or none.

    """

    directory: Path
    options: Sequence[str] = ()
    port: int = 0
    program: str = "redis-server"
    password: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def path(self) -> Path:
        """The Unix socket."""
        return self.directory / "socket"

    @property
    def url(self) -> str:
        """What a daemon is told."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.path}"

    def start(self) -> None:
        """Start it, with the files that are there, and wait until it answers."""
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.path)]
        with (self.directory / "log").open("ab") as log:
            files = ["--dir", str(self.directory)]
            if self.program == "redis-server":
                files += ["--save", ""]
            else:
                files.insert(0, str(self.directory / "sentinel.conf"))
                files, where = files[:1], [*where, *files[1:]]
            self.process = subprocess.Popen(
                [require(self.program), *files, *where, *self.options],
                stdout=log,
                stderr=log,
            )
        self.until(lambda: self.ask("PING") == "PONG")

    def ask(self, *command: str) -> str:
        """Return the answer to a command, as redis-cli prints it; empty if there is none."""
        done = subprocess.run(
            [require("redis-cli"), "-s", str(self.path), *command],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **({"REDISCLI_AUTH": self.password} if self.password else {})},
        )
        return done.stdout.strip()

    def until(self, condition: object, *, within: float = SOON_S) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + within
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def pause(self) -> None:
        """Have it do nothing any more."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)


@contextmanager
def redis(*options: str, port: int = 0) -> Iterator[Redis]:
    """Run a server while inside."""
    with TemporaryDirectory(prefix="redis-") as directory:
        server = Redis(Path(directory), options, port)
        try:
            server.start()
            yield server
        finally:
            if server.process is not None:
                server.go_on()
                server.kill()


@contextmanager
def sentinels(password: str = "") -> Iterator[tuple[Redis, Redis, str]]:
    """Run a primary, a replica and a Sentinel; yield the two, and the place of the Sentinel.

    Args:
        password: what the Sentinel asks for, or none.

    """
    with ExitStack() as stack:
        primary = stack.enter_context(redis(*AT_ONCE, port=free_port()))
        replica = stack.enter_context(
            redis("--replicaof", f"127.0.0.1 {primary.port}", *AT_ONCE, port=free_port())
        )
        primary.until(lambda: primary.ask("WAIT", "1", "100") == "1")  # it counts from now on
        directory = stack.enter_context(TemporaryDirectory(prefix="sentinel-"))
        file = Path(directory) / "sentinel.conf"
        file.write_text(
            f"sentinel monitor events 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds events {DOWN_MS}\n"
            "sentinel failover-timeout events 4000\n"
            + (f"requirepass {password}\n" if password else "")
        )
        sentinel = Redis(Path(directory), (), free_port(), "redis-sentinel", password)
        stack.callback(sentinel.kill)
        sentinel.start()
        known = "SENTINEL", "REPLICAS", "events"
        sentinel.until(lambda: str(replica.port) in sentinel.ask(*known))
        yield primary, replica, f"sentinel://127.0.0.1:{sentinel.port}/events"


@contextmanager
def cluster() -> Iterator[tuple[list[Redis], str]]:
    """Run a Cluster of three; yield them, and their place."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                redis("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", port=port)
            )
            for port in _cluster_ports(3)
        ]
        for number, server in enumerate(servers):
            first, last = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
            server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            server.ask("CLUSTER", "MEET", "127.0.0.1", str(servers[0].port))
        for server in servers:
            server.until(lambda server=server: "cluster_state:ok" in server.ask("CLUSTER", "INFO"))
        yield servers, f"cluster://127.0.0.1:{servers[0].port},127.0.0.1:{servers[1].port}"


def move_slot(of: str, servers: Sequence[Redis]) -> None:
    """Give the slot of a session, or of a key without braces, to another server, with its keys."""
    slot = str(slot_of(of))
    found = [each for each in servers if each.ask("CLUSTER", "COUNTKEYSINSLOT", slot) != "0"]
    [source] = found
    target = next(each for each in servers if each is not source)
    ids = {each.port: each.ask("CLUSTER", "MYID") for each in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, "100").split()
    source.ask("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
    for each in (target, source):
        each.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])


def _cluster_ports(count: int) -> list[int]:
    """Return ports whose bus ports, 10,000 above, there are."""
    ports: set[int] = set()
    while len(ports) < count:
        port = free_port()
        ports.add(port if port < 55_000 else port - 15_000)
    return [*ports]


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
