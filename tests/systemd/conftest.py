"""The real systemd, with broadcasterd installed as an operator installs it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container import Container, why_not
from tests.support.service import PROJECT, Service, make
from tests.support.tools import lack


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what one worker makes for all: ``sdist`` and ``tree``, as the fixtures say."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    made, unfinished = directory / "made", directory / "unfinished"
    with (directory / "made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            _make_tree(unfinished / "tree", _make_sdist(unfinished))
            unfinished.rename(made)
    return made


def _make_sdist(directory: Path) -> Path:
    target: list[str | Path] = ["--target", "sdist", "--directory", directory]
    build: list[str | Path] = [sys.executable, "-m", "hatchling", "build", *target]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    [archive] = directory.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(directory, filter="data")
    archive.unlink()
    return (directory / archive.name.removesuffix(".tar.gz")).rename(directory / "sdist")


def _make_tree(tree: Path, sdist: Path) -> None:
    for kept in (".venv-build", ".venv-release"):  # with a checkout: they need an index to be made
        (sdist / kept).symlink_to(PROJECT / kept)
    make("install", f"DESTDIR={tree}", "PREFIX=/usr", directory=sdist)


@pytest.fixture(scope="session")
def sdist(made: Path) -> Path:
    """Return what is in the source distribution."""
    return made / "sdist"


@pytest.fixture(scope="session")
def tree(made: Path) -> Path:
    """Return a directory with all that ``make install`` installs, of the source distribution."""
    return made / "tree"


@pytest.fixture(scope="session")
def machine(tree: Path) -> Iterator[Container]:
    """Boot a container that has broadcasterd installed."""
    if reason := why_not():
        lack(reason)
    with Container.booted() as container:
        subprocess.run(["cp", "--archive", *tree.iterdir(), container.root], check=True)
        container.run("systemctl", "daemon-reload")
        container.run("journalctl", "--update-catalog")
        yield container


@pytest.fixture(scope="session")
def installed(machine: Container) -> Iterator[Service]:
    """Return the service, which one test uses after another."""
    with Service(machine).installed() as service:
        yield service


@pytest.fixture
def service(installed: Service) -> Service:
    """Return the service, which is not started yet."""
    installed.begin_anew()
    return installed


@pytest.fixture
def serving(installed: Service) -> Service:
    """Return the service, started as it is installed: where it runs so already, it goes on."""
    installed.serve()
    return installed
