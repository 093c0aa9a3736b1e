"""The daemon as its operators know it: a process with a configuration file, signals and a log.

``Daemon.start(tmp_path, sessions={"max_lag_events": 50})`` runs ``broadcasterd serve`` on a free
loopback port, without authentication unless told otherwise, and returns when it is ready.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import psutil

from tests.support.forkserver import Forked
from tests.support.lines import Lines

START_S = 60.0
"""How long a start may take; a loaded machine needs many seconds to import everything."""

STOP_S = 15.0
"""How long a stop may take: the default grace of 10 s, and some air."""

CANARY = "canary-7f0b2d"
"""A part of all data, keys and cookies that these helpers send; none of them is ever logged."""

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "server": {"host": "127.0.0.1", "port": 0},
    "auth": {"mode": "none"},
    "log": {"format": "console"},
}

# With --examples, the daemon prints how to subscribe as soon as it can be subscribed to.
_EXAMPLE = re.compile(r"https?://127\.0\.0\.1:(\d+)/v1/sessions/")


Process = subprocess.Popen[str] | Forked
Launch = Callable[[Sequence[str], Mapping[str, str], IO[str]], tuple[Process, IO[str]]]
"""Runs ``broadcasterd`` with these arguments, variables and standard error; returns its output."""


@dataclass(slots=True)
class Daemon:
    """A running ``broadcasterd serve``."""

    process: Process
    directory: Path
    stdout: Lines
    port: int = field(default=0, init=False)

    @classmethod
    def start(
        cls,
        directory: Path,
        launch: Launch | None = None,
        /,
        *,
        environment: Mapping[str, str] | None = None,
        **sections: Mapping[str, object],
    ) -> Daemon:
        """Start a daemon that keeps its files in ``directory``, and wait until it is ready.

        Args:
            directory: gets the configuration and what the daemon prints.
            launch: starts the process; without it, a new interpreter does.
            environment: variables on top of ours (of which no BROADCASTERD_ ones are passed on).
            sections: keys of the configuration by section; they win over ``DEFAULTS``.

        """
        config = _configure(directory, sections)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BROADCASTERD_")}
        variables = {**inherited, **(environment or {})}
        arguments = ["serve", "--examples", "--config", str(config)]
        with (directory / "stderr").open("w") as stderr:
            process, stdout = (launch or execute)(arguments, variables, stderr)
        daemon = cls(process, directory, Lines(stdout, record=directory / "stdout"))
        try:
            daemon.port = daemon._wait_for_port()
        except BaseException:
            daemon.kill()
            raise
        return daemon

    @property
    def url(self) -> str:
        """The root of its HTTP interface, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def session(self, name: str) -> str:
        """Return the URL of a session's events."""
        return f"{self.url}/v1/sessions/{name}/events"

    def rss(self) -> int:
        """Return its resident memory, in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def descriptors(self) -> int:
        """Return how many it holds, without those of files that it reads in between."""
        held = 0
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed since
                held += not str(link.readlink()).startswith(("/proc/", "/sys/", os.devnull))
        return held

    def log(self) -> str:
        """Return what it wrote to stderr so far: a thread of its own writes, some time later."""
        return (self.directory / "stderr").read_text()

    def whole_log(self) -> str:
        """Stop it, and return all that it wrote to stderr."""
        self.stop_cleanly()
        return self.log()

    def reload(self, **sections: Mapping[str, object]) -> None:
        """Ask it to take other settings (SIGHUP); it does so in its own time."""
        _configure(self.directory, sections)
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), kill it if it does not, and return its exit status.

        Its log is searched for the canary that the helpers of the tests sent it.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            status = self.kill()
        self.stdout.close()

        assert CANARY not in self.log(), self.log()
        return status

    def kill(self) -> int:
        """End it at once, and return its exit status."""
        self.process.kill()
        status = self.process.wait()
        self.stdout.close()
        return status

    def stop_cleanly(self) -> None:
        """Stop it, and fail the test unless it went well: status 0, and no traceback logged."""
        status = self.stop()

        assert status == 0, f"exit status {status}; its log:\n{self.log()}"
        assert "Traceback" not in self.log(), self.log()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_S
        while True:
            try:
                line = self.stdout.next(within=max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                line = None
            if line is None:
                raise RuntimeError(f"the daemon is not ready; its log:\n{self.log()}")
            if example := _EXAMPLE.search(line):
                return int(example[1])


def execute(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stderr: IO[str],
    command: Sequence[str | Path] | None = None,
) -> tuple[Process, IO[str]]:
    """Launch it as a shell does."""
    process = subprocess.Popen(
        [*(command or (sys.executable, "-m", "broadcasterd")), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        encoding="utf-8",
    )
    assert process.stdout is not None
    return process, process.stdout


class StartDaemon(Protocol):
    """The fixture ``start_daemon``: starts a daemon, as :meth:`Daemon.start` does."""

    def __call__(
        self, *, environment: Mapping[str, str] | None = None, **sections: Mapping[str, object]
    ) -> Daemon:
        """Start a daemon and return when it is ready."""
        ...


def _configure(directory: Path, sections: Mapping[str, Mapping[str, object]]) -> Path:
    config = directory / "broadcasterd.toml"
    config.write_text(as_toml(_merge(DEFAULTS, sections)))
    return config


def _merge(
    defaults: Mapping[str, Mapping[str, object]], sections: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    names = [*defaults, *(name for name in sections if name not in defaults)]
    return {name: {**defaults.get(name, {}), **sections.get(name, {})} for name in names}


def as_toml(sections: Mapping[str, Mapping[str, object]]) -> str:
    """Return a configuration file with these sections."""
    lines: list[str] = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {_value(value)}" for key, value in keys.items())
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key} = {_value(v)}" for key, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_value, value)) + "]"
        case Path():
            return _value(str(value))
        case _:  # a text, a number or a boolean: as in JSON
            return json.dumps(value, ensure_ascii=False)
