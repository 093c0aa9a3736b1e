"""Tools that a test needs and a machine may lack: programs, npm packages, room."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "tests" / "e2e" / "clients" / "node_modules"

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
