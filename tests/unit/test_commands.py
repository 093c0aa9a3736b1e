"""Commands that fail, or are interrupted."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.build import CHECKOUT
from deployment.commands import run
from deployment.releases import DeploymentError

SOON_S = 20.0

STARTS_ANOTHER = 'exec 9>"$0"; sleep 1000 & echo started >&9; wait'
"""The shell and the other process have $0 open, until they end."""

INTERRUPTED = """
import signal, sys
from deployment.__main__ import interrupt
from deployment.commands import run
signal.signal(signal.SIGTERM, interrupt)
try:
    run("sh", "-c", sys.argv[1], sys.argv[2])
except KeyboardInterrupt:
    sys.exit(3)
"""

GOES_BACK = """
from deployment.commands import run
from deployment.deploy import ignore_interruptions
ignore_interruptions()
print(run("sh", "-c", "for each in HUP INT TERM; do kill -$each $$; done; echo done"), end="")
"""


def test_what_a_command_prints_is_returned() -> None:
    assert "one\n" == run("sh", "-c", "echo one; echo two >&2")


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(DeploymentError, match=r"^sh -c echo why >&2; exit 1: why$"):
        run("sh", "-c", "echo why >&2; exit 1")


def test_an_interruption_ends_all_that_a_command_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, STARTS_ANOTHER, fifo],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "systemd")},
    )
    with fifo.open("rb", buffering=0) as held:
        assert b"started\n" == held.readline()

        program.send_signal(signal.SIGTERM)

        assert 3 == program.wait(SOON_S)
        assert [held] == select.select([held], [], [], SOON_S)[0], "one of them is still there"
        assert b"" == held.read()


def test_on_the_way_back_no_command_is_interrupted_either() -> None:
    """Where a unit is ended, systemd signals whatever runs in it, again and again."""
    done = subprocess.run(
        [sys.executable, "-c", GOES_BACK],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "systemd")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "done\n") == (done.returncode, done.stdout), done.stderr
