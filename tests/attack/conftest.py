"""The fixtures of attacks: a daemon to attack, and what an idle one takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.memory.conftest import idle_mb
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, execute
from tests.support.target import Target, sections
from tests.support.tools import raise_open_files

__all__ = ["idle_mb"]

OPEN_FILES = 8000

Attacked = Callable[[Certificate | None], AbstractAsyncContextManager[Target]]
"""Starts a daemon to attack, which speaks TLS with a certificate; in the end it stops cleanly."""


@pytest.fixture
def attacked(idle_mb: float, tmp_path: Path) -> Attacked:
    """Return what starts a daemon as a shell does, so that its memory is all its own."""
    raise_open_files(OPEN_FILES)

    @asynccontextmanager
    async def start(certificate: Certificate | None) -> AsyncIterator[Target]:
        daemon = Daemon.start(tmp_path, execute, **sections(tmp_path, idle_mb, certificate))
        target = Target(daemon, certificate)
        try:
            async with target.client:
                yield target
            daemon.stop_cleanly()
        finally:
            daemon.kill()

    return start
