"""The processes of the benchmark as bench.py sees them: started, asked, measured, ended.

Every measurement of a server is the kernel's, by process id: the server carries no instrument.
"""

import json
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
START_S = 30.0  # for a server to listen
STOP_S = 15.0  # for a server to drain; longer than its own grace
STDERR_SHOWN = 4000  # characters


class Broken(Exception):  # noqa: N818 - it is a finding about the server, not an error in the benchmark
    """Something failed, so that there is no figure."""


class Child:
    """One helper process that talks in lines on its stdin and stdout."""

    def __init__(self, module: str, *arguments: object) -> None:
        self.name = module
        # A file, not a pipe: nobody reads it until something fails, and a full pipe would block.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.performance.{module}", *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.stderr):
            if pipe is not None:
                pipe.close()

    def read_line(self) -> str:
        """Wait for the next line of its stdout."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Broken(f"{self.name} ended: {self.last_words()}")
        return line

    def last_words(self) -> str:
        """Answer the end of its stderr."""
        self.stderr.seek(0)
        return self.stderr.read()[-STDERR_SHOWN:]


class Server(Child):
    """A server under test."""

    def __init__(self, kind: str) -> None:
        super().__init__("server_under_test", kind, 0)
        with ExitStack() as on_failure:
            on_failure.push(self)
            assert self.process.stdout is not None
            if not select.select([self.process.stdout], [], [], START_S)[0]:
                raise Broken(f"{kind} doesn't listen: {self.last_words()}")
            word, _, port = self.read_line().partition(" ")
            if word != "READY":
                raise Broken(f"{kind} printed {word!r} first")
            self.port = int(port)
            on_failure.pop_all()

    def cpu_s(self) -> float:
        """Answer the CPU time of all its threads so far, user and system, in s.

        /proc/PID/stat counts in ticks of 10 ms; the CPU clock of another process counts in ns:
        this is what clock_getcpuclockid(3) makes of a process id.
        """
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def rss_kb(self) -> int:
        """Answer its resident memory in KB (of 1,024 bytes).

        Exactly: the counters in statm are batched per CPU.
        """
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1])
        raise Broken("no Rss in smaps_rollup")


class Load(Child):
    """The load generator: see loadgen.py for the commands and the answers."""

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        super().__init__("loadgen", host, port)

    def do(self, what: str, **arguments: object) -> dict[str, Any]:
        """Run one command to its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        answer: dict[str, Any] = json.loads(self.read_line())
        if "failed" in answer:
            raise Broken(f"{what}: {answer['failed']}")
        return answer


class HealthPoller(Child):
    """Polls GET /health from the moment it is made."""

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        super().__init__("healthpoll", host, port)
        self.read_line()

    def finish(self) -> dict[str, dict[str, float]]:
        """Stop polling and answer the latencies: see healthpoll.py."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        summary: dict[str, dict[str, float]] = json.loads(self.read_line())
        return summary
