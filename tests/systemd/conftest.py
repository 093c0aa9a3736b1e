"""The real systemd, with broadcasterd installed as an operator installs it."""

from __future__ import annotations

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
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what is in the source distribution."""
    made = tmp_path_factory.mktemp("sdist")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "sdist",
        "--directory",
        made,
    ]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    [archive] = made.iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(made, filter="data")
    return made / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="session")
def tree(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all that ``make install`` installs, of the source distribution."""
    tree = tmp_path_factory.mktemp("tree")
    backend = PROJECT / ".venv-build"
    if (backend / ".made-of").exists():  # or else it makes one of its own: others may be at it
        (sdist / backend.name).symlink_to(backend)
    make("install", f"DESTDIR={tree}", "PREFIX=/usr", directory=sdist)
    return tree


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


@pytest.fixture
def service(machine: Container) -> Iterator[Service]:
    """Return the service, which is not started yet."""
    with Service(machine).installed() as service:
        yield service
