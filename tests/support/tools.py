"""Tools that a test needs and a machine may lack: programs, npm packages, room."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "tests" / "e2e" / "clients" / "node_modules"

DEBIAN_PYTHON = "3.11"
"""The version that Debian 12 has."""

STRICT = "BROADCASTERD_TEST_STRICT"
"""Set to 1 where everything has to be there (CI): a missing tool then fails the test."""


def require(tool: str) -> str:
    """Return the path of a program, of one of the project's own, or of an npm package.

    Examples are ``curl``, ``.venv-tools/bin/schemathesis`` and ``npm:eventsource``.

    A test whose tool is missing is skipped, or fails where ``BROADCASTERD_TEST_STRICT`` is 1.
    """
    if tool.startswith("npm:"):
        package = NODE_MODULES / tool.removeprefix("npm:")
        path = str(package) if package.is_dir() else None
    elif "/" in tool:
        path = shutil.which(ROOT / tool)
    else:
        path = shutil.which(tool)
    if path is None:
        lack(f"{tool} is not installed")
    return path


def interpreter(version: str) -> str:
    """Return a Python of this minor version, with venv: on PATH, the system's, pyenv's or uv's.

    Where there is none the test is skipped, also in CI: it can install Debian's own alone.
    """
    home = Path.home()
    candidates: list[str | Path] = [
        f"python{version}",
        f"/usr/bin/python{version}",
        *home.glob(f".pyenv/versions/{version}.*/bin/python"),
        *home.glob(f".local/share/uv/python/cpython-{version}.*/bin/python"),
    ]
    for candidate in candidates:
        try:
            subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue  # pyenv's shims are there without what they stand for
        return str(candidate)
    reason = f"there is no Python {version}"
    if version == DEBIAN_PYTHON:
        lack(reason)
    pytest.skip(reason)


def raise_open_files(count: int) -> None:
    """Let this process, and those that it starts, have so many open files; or :func:`lack` it."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if hard < count:
        lack(f"only {hard} open files are allowed, not {count}")
    setrlimit(RLIMIT_NOFILE, (max(soft, count), hard))


def lack(reason: str) -> NoReturn:
    """Skip the test, or fail it where ``BROADCASTERD_TEST_STRICT`` is 1."""
    if os.environ.get(STRICT) == "1":
        pytest.fail(f"{reason}, and {STRICT} is 1")
    pytest.skip(reason)
