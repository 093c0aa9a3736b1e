"""`pip install .` without the lock: what pip takes works together, on each Python that there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
import pytest

import broadcasterd
from tests.support.daemon import Daemon, execute
from tests.support.redis import redis
from tests.support.tools import ROOT, interpreter, require

pytestmark = pytest.mark.slow

Engine = Mapping[str, object]
MEMORY: Engine = {"kind": "memory"}

VERSIONS = ("3.11", "3.12", "3.13")

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have pip make the wheel, which is the same for each Python, as it does in an install."""
    directory = tmp_path_factory.mktemp("wheel")
    make: list[str | Path] = [*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, "."]
    subprocess.run(make, cwd=ROOT, check=True)
    [wheel] = directory.iterdir()
    return wheel


@pytest.fixture(scope="module", params=VERSIONS)
def environment(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return an environment of a version of Python, with what pip installs."""
    environment = tmp_path_factory.mktemp("installed") / "environment"
    python = interpreter(request.param)
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    install(environment, f"{wheel}")
    return environment


def install(environment: Path, what: str) -> None:
    """Have pip install something."""
    there: list[str | Path] = ["--python", environment / "bin/python"]
    quickly = ["--quiet", "--no-compile", "--no-warn-conflicts"]
    subprocess.run([*PIP, *there, "install", *quickly, what], check=True)


def serving(environment: Path, directory: Path, engine: Engine) -> Daemon:
    """Start a daemon of an environment."""
    launch = partial(execute, command=[environment / "bin/broadcasterd"])
    return Daemon.start(directory, launch, engine=engine)


def history(daemon: Daemon) -> list[str]:
    """Return the data of the events in the session's history."""
    page = httpx.get(daemon.session("s"), headers={"Accept": "application/json"}).json()
    return [event["data"] for event in page["events"]]


def test_what_pip_installs_serves_and_publishes(environment: Path, tmp_path: Path) -> None:
    daemon = serving(environment, tmp_path, MEMORY)
    try:
        command: list[str | Path] = [environment / "bin/broadcasterd", "publish", "s"]
        said = subprocess.check_output([*command, "--data", "x", "--url", daemon.url])
        events = history(daemon)
        version = httpx.get(f"{daemon.url}/health").json()["version"]
    finally:
        daemon.stop_cleanly()

    assert 1 == json.loads(said)["accepted"]
    assert ["x"] == events
    assert broadcasterd.__version__ == version
    assert (environment / "share/man/man1/broadcasterd.1").exists()


def test_redis_takes_an_extra_and_without_it_the_daemon_says_which(
    environment: Path, wheel: Path, tmp_path: Path
) -> None:
    require("redis-server")

    with pytest.raises(RuntimeError, match=r"pip install 'broadcasterd\[redis\]'"):
        serving(environment, tmp_path, {"kind": "redis", "url": "redis://127.0.0.1:1"})

    install(environment, f"{wheel}[redis]")
    with redis() as server:
        daemon = serving(environment, tmp_path, {"kind": "redis", "url": server.url})
        try:
            httpx.post(daemon.session("s"), json={"data": "x"}).raise_for_status()
            events = history(daemon)
        finally:
            daemon.stop_cleanly()

        assert ["x"] == events
        assert server.ask("KEYS", "broadcasterd:*")
