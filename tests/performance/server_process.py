"""A server under test: started, measured with all of its processes, ended.

Every measurement is the kernel's, by process id: the server carries no instrument.
"""

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from typing_extensions import override

from tests.performance.processes import LOOPBACK, STOP_S, Broken, Process

START_S = 120.0  # for a server to listen, on one core of a machine that is busy


class Server(Process):
    """A server under test, which listens when this returns.

    Args:
        name: for messages.
        command: starts it on ``port``.
        port: of the loopback address.
        environment: variables on top of ours.

    """

    def __init__(
        self, name: str, command: Sequence[str], port: int, environment: Mapping[str, str]
    ) -> None:
        super().__init__(name, command, environment=environment)
        self.port = port
        with ExitStack() as on_failure:
            on_failure.push(self)
            deadline = time.monotonic() + START_S
            while not listens(port):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Broken(f"{name} does not listen: {self.last_words()}")
                time.sleep(0.02)
            on_failure.pop_all()

    @override
    def __exit__(self, *_: object) -> None:
        children = list(self._tree())[1:]
        super().__exit__()
        for orphan in psutil.wait_procs(children, STOP_S)[1]:
            orphan.kill()

    def cpu_s(self) -> float:
        """Return the CPU time of it and its children so far, user and system, in s.

        /proc/PID/stat counts in ticks of 10 ms; the CPU clock of another process counts in ns:
        this is what clock_getcpuclockid(3) makes of a process id.
        """
        return sum(time.clock_gettime((~each.pid << 3) | 2) for each in self._tree())

    def rss_kb(self) -> int:
        """Return the resident memory of it and its children in KB (of 1,024 bytes).

        Exactly: the counters in statm are batched per CPU.
        """
        total = 0
        for each in self._tree():
            lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        return total

    def _tree(self) -> Iterator[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            yield root
            yield from root.children(recursive=True)
        except psutil.NoSuchProcess:
            return


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.create_server((LOOPBACK, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Return whether somebody accepts connections on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=START_S).close()
    except ConnectionRefusedError:
        return False
    return True
