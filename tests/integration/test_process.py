"""What others see of the daemon's process: its name, and no secret."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.container import until
from tests.support.daemon import START_S, Daemon, Launch, StartDaemon
from tests.support.tokens import SECRET, bearer, claims, sign

VARIABLE = "BROADCASTERD_AUTH__SECRET"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Start a daemon as a shell does, with its secret in the environment alone."""
    directory = tmp_path_factory.mktemp("daemon")
    daemon = Daemon.start(directory, environment={VARIABLE: SECRET}, auth={"mode": "jwt"})
    yield daemon
    daemon.stop_cleanly()


def shown(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.check_output(command, text=True)


def test_it_is_found_by_its_name(daemon: Daemon) -> None:
    assert "broadcasterd" == shown("ps", "-o", "comm=", "-p", str(daemon.pid)).strip()
    assert str(daemon.pid) in shown("pgrep", "-x", "broadcasterd").split()


def test_a_secret_of_the_environment_is_in_force_and_shown_nowhere(daemon: Daemon) -> None:
    token = bearer(sign(claims(publish=("s",))))
    event = {"data": "x"}

    assert 200 == httpx.post(daemon.session("s"), json=event, headers=token).status_code
    assert 401 == httpx.post(daemon.session("s"), json=event).status_code

    daemon.reload(auth={"mode": "jwt"}, sessions={"retry_ms": 1234})
    until(lambda: "configuration reloaded" in daemon.log())

    assert 200 == httpx.post(daemon.session("s"), json=event, headers=token).status_code
    assert VARIABLE in shown("ps", "eww", "-p", str(daemon.pid))
    assert SECRET not in shown("ps", "eww", "-p", str(daemon.pid))
    assert SECRET not in daemon.log()


def test_a_rotation_of_logs_is_no_end(start_daemon: StartDaemon, tmp_path: Path) -> None:
    """Without a handler, the signal would be one."""
    with_file = start_daemon(log={"format": "console", "file": str(tmp_path / "log")})
    without = start_daemon()
    (tmp_path / "log").rename(tmp_path / "log.1")
    for daemon in (with_file, without):
        daemon.process.send_signal(signal.SIGUSR1)
    until(lambda: "log reopened" in without.log())
    until((tmp_path / "log").exists)
    until(lambda: "log reopened" in (tmp_path / "log").read_text())

    assert "ready" in (tmp_path / "log.1").read_text()
    assert "" == with_file.log()


@pytest.mark.parametrize("secret", [SECRET, SECRET[:31]])
def test_check_config_does_not_repeat_it(secret: str, tmp_path: Path, launch: Launch) -> None:
    (tmp_path / "empty.toml").touch()
    command = ["check-config", str(tmp_path / "empty.toml")]
    with (tmp_path / "stderr").open("w") as stderr:
        process, stdout = launch(command, os.environ | {VARIABLE: secret}, stderr)
    with stdout:
        output = stdout.read()
    status = process.wait(START_S)
    told = (tmp_path / "stderr").read_text()

    assert (0 if secret == SECRET else 2) == status, told
    assert (VARIABLE in told) is (secret != SECRET)
    assert secret not in output + told
