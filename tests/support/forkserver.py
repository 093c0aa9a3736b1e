"""A process that has imported the daemon already, and forks one whenever a test asks.

Of the half second that ``broadcasterd serve`` needs until it is ready, nearly all is for importing
its modules, twice: see broadcasterd/host/allocator.py. That is the same for all of the hundreds
that the tests start. A forked process is like any other, with arguments, environment, signals,
standard streams and an exit status of its own, and it runs ``python -m broadcasterd`` from the
first line.

But it has no memory of its own at the start. What it grows by is measured all the same; a test of
all that a daemon takes, or one that charges it to a cgroup, starts the real thing.

A request is a packet on a socket: arguments and environment as JSON, with four descriptors, which
are standard input, output and error, and a socket. On that the server answers with the process id,
and once the process is gone, with its exit status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NoReturn

from broadcasterd.host.allocator import VARIABLE
from broadcasterd.observe.imports import import_structlog

MODULES = ("broadcasterd.cli", "broadcasterd.client", "broadcasterd.process")
"""The modules that the server imports ahead."""

MESSAGE_BYTES = 65536
START_S = 60.0
"""How long it may take on a machine that is busy with much else, which is mostly a second."""


class Forked:
    """A process that a fork server started; used as a :class:`subprocess.Popen`."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._control = control

    def poll(self) -> int | None:
        """Return its exit status, or ``None`` while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it is gone, and return its exit status."""
        if self.returncode is None:
            self._control.settimeout(timeout)
            try:
                self.returncode = int(self._control.recv(MESSAGE_BYTES))
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("broadcasterd", timeout or 0) from None
            self._control.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it is gone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@dataclass(slots=True)
class ForkServer:
    """The process that forks; it ends, with all that it started, when this process does."""

    process: subprocess.Popen[bytes]
    requests: socket.socket

    @classmethod
    def start(cls) -> ForkServer:
        """Start a fork server."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=its.fileno(),
                env={**os.environ, VARIABLE: "malloc"},
            )
        return cls(process, ours)

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stderr: IO[str],
        stdin: IO[str] | None = None,
    ) -> tuple[Forked, IO[str]]:
        """Run ``broadcasterd`` with these arguments; return the process and its standard output.

        Without ``stdin``, there is nothing for it to read.
        """
        reader, writer = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            variables = {VARIABLE: "malloc", **environment}
            message = json.dumps({"arguments": arguments, "environment": variables})
            source = stdin.fileno() if stdin else nothing
            descriptors = [source, writer, stderr.fileno(), its.fileno()]
            socket.send_fds(self.requests, [message.encode()], descriptors)
        os.close(writer)
        os.close(nothing)
        control.settimeout(START_S)
        try:
            pid = int(control.recv(MESSAGE_BYTES))
        except TimeoutError:
            control.close()
            raise
        return Forked(pid, control), os.fdopen(reader, encoding="utf-8")

    def close(self) -> None:
        """End it."""
        self.requests.close()
        self.process.wait()


# --- in the process that forks ---------------------------------------------------------------


def main() -> None:
    """Fork on request until the tests are gone; in each process that is forked, run the daemon."""
    # A shell has what it starts in the background ignore it, and with it all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_structlog()
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    if (request := _serve()) is not None:
        _become(request)
        try:
            runpy.run_module("broadcasterd", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            _exit(end.code)


def _exit(status: object) -> NoReturn:
    """Exit as an interpreter does, but for taking its objects apart, one by one.

    That would make copies of all the memory that is shared with the server, and take as long as
    all that most tests do.
    """
    threading._shutdown()  # type: ignore[attr-defined] # it waits for those that are no daemons
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _serve() -> _Request | None:
    """Fork on request until the tests are gone; in each forked process, return its request."""
    children: dict[int, tuple[int, socket.socket]] = {}  # process id and control, by pidfd
    with (
        socket.socket(fileno=os.dup(0)) as requests,
        selectors.DefaultSelector() as selector,
    ):
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fd)
                    _tell_the_status(key.fd, *children.pop(key.fd))
                    continue
                message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 4)
                if not message:
                    for pidfd, (pid, control) in children.items():
                        os.kill(pid, signal.SIGKILL)
                        _tell_the_status(pidfd, pid, control)
                    return None
                *standard, control_fd = descriptors
                control = socket.socket(fileno=control_fd)
                if (pid := os.fork()) == 0:
                    return _Request(**json.loads(message), standard=standard)
                for descriptor in standard:
                    os.close(descriptor)
                control.send(str(pid).encode())
                pidfd = os.pidfd_open(pid)
                children[pidfd] = pid, control
                selector.register(pidfd, selectors.EVENT_READ)


@dataclass(frozen=True, slots=True)
class _Request:
    """The properties of a new process."""

    arguments: list[str]
    environment: dict[str, str]
    standard: list[int]
    """Its standard input, output and error."""


def _become(request: _Request) -> None:
    """Take on the properties of the new process, and let go of the server's open files."""
    for number, descriptor in enumerate(request.standard):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv[1:] = request.arguments


def _tell_the_status(pidfd: int, pid: int, control: socket.socket) -> None:
    os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    with control, suppress(BrokenPipeError):  # the test may not care
        control.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
