"""Running the machine's commands, and telling an operator of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deployment.releases import DeploymentError

SHOWN_LINES = 20
KEPT_RECORDS = 2000

Say = Callable[[str], None]
"""Takes a line for an operator."""


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command; return what it prints.

    An interruption first ends the command with all processes that it started, so that none of them
    writes to a directory that is removed next.

    Raises:
        DeploymentError: it failed; the error has its output.

    """
    with ExitStack() as running:
        with interruptions_later():  # or nobody would know of what was started
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                env=environment,
                process_group=0,
            )
            process = running.enter_context(_ended_with_all(started))
        printed, complaints = process.communicate()
    if process.returncode != 0:
        said = (complaints or printed).strip()
        raise DeploymentError(f"{' '.join(map(str, command))}: {said}")
    return printed


@contextmanager
def _ended_with_all(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Wait for a process; where something is raised, end it, and all that it has started."""
    with process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # until the last process has let go of the output
            raise


@contextmanager
def interruptions_later() -> Iterator[None]:
    """Hold signals that interrupt this program back until what is inside is done.

    Those that are ignored stay so: by what is started inside, too. When systemd ends a unit it
    signals all processes in it, and the commands of the way back are to reach their end.
    """
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for interruption in came:
            signal.raise_signal(interruption)


def said_since(unit: str, since: float) -> str:
    """Return the last lines that a unit, and systemd of it, have said since a Unix time."""
    run("journalctl", "--sync")
    records = ["--quiet", "--output=cat", f"--unit={unit}"]
    said = run("journalctl", *records, f"--since=@{since:.6f}").splitlines()
    return "\n".join(said[-SHOWN_LINES:])


def records_between(unit: str, since: float, until: float) -> str:
    """Return the newest records about a unit from one Unix time to another, oldest first.

    Raises:
        DeploymentError: the journal cannot be read.

    """
    span = (f"--since=@{since:.0f}", f"--until=@{until:.0f}", f"--lines={KEPT_RECORDS}")
    return run("journalctl", "--quiet", "--no-pager", "--output=short-iso", f"--unit={unit}", *span)


def reread_units_and_catalog() -> None:
    """Have systemd and the journal take their files as they are now.

    Raises:
        DeploymentError: one of them does not.

    """
    run("systemctl", "daemon-reload")
    run("journalctl", "--update-catalog")
