"""Running the machine's commands, and telling an operator of it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from deployment.releases import DeploymentError

Say = Callable[[str], None]
"""Takes a line for an operator."""


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command; return what it prints.

    An interruption first ends the command with all processes that it started, so that none of them
    writes to a directory that is removed next.

    Raises:
        DeploymentError: it failed; the error has its output.

    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
        process_group=0,
    ) as process:
        try:
            printed, complaints = process.communicate()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # until the last process has let go of the output
            raise
    if process.returncode != 0:
        said = (complaints or printed).strip()
        raise DeploymentError(f"{' '.join(map(str, command))}: {said}")
    return printed


def reread_units_and_catalog() -> None:
    """Have systemd and the journal take their files as they are now.

    Raises:
        DeploymentError: one of them does not.

    """
    run("systemctl", "daemon-reload")
    run("journalctl", "--update-catalog")
