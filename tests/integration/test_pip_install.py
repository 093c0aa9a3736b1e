"""`pip install .` without the lock: what pip takes works together, on each Python that there is."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

import broadcasterd
from tests.support.daemon import Daemon, execute
from tests.support.tools import ROOT, interpreter

pytestmark = pytest.mark.slow


PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have pip make the wheel, which is the same for each Python, as it does in an install."""
    directory = tmp_path_factory.mktemp("wheel")
    make: list[str | Path] = [*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, "."]
    subprocess.run(make, cwd=ROOT, check=True)
    [wheel] = directory.iterdir()
    return wheel


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_what_pip_installs_serves_and_publishes(version: str, wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    python = environment / "bin/python"
    command = environment / "bin/broadcasterd"
    subprocess.run([interpreter(version), "-m", "venv", "--without-pip", environment], check=True)
    install: list[str | Path] = [
        *PIP,
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",
        wheel,
    ]
    subprocess.run(install, check=True)

    said = subprocess.check_output([command, "--version"], text=True)
    assert f"broadcasterd {broadcasterd.__version__}\n" == said

    daemon = Daemon.start(tmp_path, partial(execute, command=[command]))
    try:
        publish: list[str | Path] = [command, "publish", "s", "--data", "x", "--url", daemon.url]
        receipt = json.loads(subprocess.check_output(publish))
        page = httpx.get(daemon.session("s"), headers={"Accept": "application/json"}).json()
    finally:
        daemon.stop_cleanly()

    assert 1 == receipt["accepted"]
    assert (environment / "share/man/man1/broadcasterd.1").exists()
    assert ["x"] == [event["data"] for event in page["events"]]
