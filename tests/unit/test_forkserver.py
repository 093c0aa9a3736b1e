"""A process of the fork server is like one that a shell starts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, Launch, execute
from tests.support.forkserver import ForkServer

pytestmark = pytest.mark.slow

REFUSED = ["serve", "--config", "/nowhere/broadcasterd.toml"]


@pytest.mark.parametrize("arguments", [REFUSED, ["--version"], ["serve", "--nonsense"]])
def test_output_and_exit_status_are_those_of_the_command(
    fork_server: ForkServer, tmp_path: Path, arguments: list[str]
) -> None:
    def outcome(launch: Launch) -> tuple[str, str, int]:
        with (tmp_path / "stderr").open("w+") as stderr:
            process, stdout = launch(arguments, dict(os.environ), stderr)
            with stdout:
                output = stdout.read()
            status = process.wait(20)
            stderr.seek(0)
            return output, stderr.read(), status

    assert outcome(fork_server.fork) == outcome(execute)


def test_environment_is_only_what_is_given(fork_server: ForkServer, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        process, stdout = fork_server.fork(["serve"], {"BROADCASTERD_LOG__LEVEL": "no"}, stderr)
        stdout.close()

        assert process.wait(20) == 2
        stderr.seek(0)
        assert "log.level" in stderr.read()


def test_daemons_run_side_by_side_and_end_one_by_one(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    daemons = []
    for name in "abc":
        (tmp_path / name).mkdir()
        daemons.append(Daemon.start(tmp_path / name, fork_server.fork))
    first, second, third = daemons

    second.stop_cleanly()
    assert (first.process.poll(), third.process.poll()) == (None, None)
    assert third.kill() == -signal.SIGKILL
    first.stop_cleanly()


def test_a_process_has_no_files_but_its_own(fork_server: ForkServer, tmp_path: Path) -> None:
    directories = [tmp_path / "forked", tmp_path / "executed"]
    for directory in directories:
        directory.mkdir()
    daemons = [Daemon.start(directories[0], fork_server.fork), Daemon.start(directories[1])]
    try:
        forked, executed = (daemon.descriptors() for daemon in daemons)

        assert forked == executed
    finally:
        for daemon in daemons:
            daemon.stop_cleanly()


def test_waiting_has_a_limit(fork_server: ForkServer, tmp_path: Path) -> None:
    daemon = Daemon.start(tmp_path, fork_server.fork)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.01)
    finally:
        daemon.stop_cleanly()


def test_what_still_runs_ends_with_the_server(tmp_path: Path) -> None:
    server = ForkServer.start()
    daemon = Daemon.start(tmp_path, server.fork)

    server.close()

    assert daemon.process.wait(10) == -signal.SIGKILL
    daemon.stdout.close()
