"""The real systemd, with broadcasterd installed as an operator installs it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container import Container, why_not
from tests.support.service import Service, make
from tests.support.tools import lack


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with all that ``make install`` installs."""
    tree = tmp_path_factory.mktemp("tree")
    make("install", f"DESTDIR={tree}", "PREFIX=/usr")
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
