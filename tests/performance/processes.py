"""The processes that put on load, for the benchmark and the load test: started, asked, ended.

They need no more than the standard library: a load test runs where nothing else is installed.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
STOP_S = 15.0  # for a server to drain; longer than its own grace
STDERR_SHOWN = 4000  # characters


class Broken(Exception):  # noqa: N818 - it is a finding about the server, not an error in the benchmark
    """Something failed, so that there is no figure."""


class Process:
    """One process, which is ended with the block that it is made for.

    Args:
        name: for messages.
        command: the program and its arguments.
        environment: variables on top of ours.
        talks: whether its stdin and stdout are pipes.

    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        self.name = name
        # A file, not a pipe: nobody reads it until something fails, and a full pipe would block.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=pipe,
            stdout=pipe,
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

    def last_words(self) -> str:
        """Return the end of its stderr."""
        self.stderr.seek(0)
        return self.stderr.read()[-STDERR_SHOWN:]


class Child(Process):
    """One of our own modules, which talks in lines on its stdin and stdout."""

    def __init__(self, module: str, *arguments: object) -> None:
        command = [sys.executable, "-m", f"tests.performance.{module}", *map(str, arguments)]
        super().__init__(module, command, talks=True)

    def read_line(self, within_s: float | None = None) -> str:
        """Wait for the next line of its stdout; it prints but one at a time."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], within_s)[0]:
            raise Broken(f"{self.name} did not answer within {within_s} s")
        line = self.process.stdout.readline()
        if not line:
            raise Broken(f"{self.name} ended: {self.last_words()}")
        return line

    def write_line(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")


class Load(Child):
    """The load generator: see loadgen.py for the commands and the answers.

    Args:
        port: of the server.
        host: of the server.
        body: "json", or "text" where the body of a POST is an event's text.
        answer_s: how long a command may take.

    """

    def __init__(
        self,
        port: int,
        host: str = LOOPBACK,
        *,
        body: str = "json",
        answer_s: float | None = None,
    ) -> None:
        super().__init__("loadgen", host, port, body)
        self.address = host, port
        self.answer_s = answer_s

    def do(self, what: str, **arguments: object) -> dict[str, Any]:
        """Run one command to its end."""
        self.begin(what, **arguments)
        return self.finish(what)

    def begin(self, what: str, **arguments: object) -> None:
        """Have a command begin."""
        self.write_line(json.dumps({"do": what, **arguments}))

    def finish(self, what: str) -> dict[str, Any]:
        """Wait for the answer to the command that began."""
        answer: dict[str, Any] = json.loads(self.read_line(self.answer_s))
        if "failed" in answer:
            raise Broken(f"{what}: {answer['failed']}")
        return answer


class HealthPoller(Child):
    """Polls GET /health, or another path, from the moment it is made."""

    def __init__(self, port: int, host: str = LOOPBACK, *, path: str = "/health") -> None:
        super().__init__("healthpoll", host, port, path)
        self.read_line()

    def finish(self) -> dict[str, dict[str, float]]:
        """Stop polling and answer the latencies: see healthpoll.py."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        summary: dict[str, dict[str, float]] = json.loads(self.read_line())
        return summary
