"""The fixtures of attacks: a daemon to attack, and what an idle one takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, Launch
from tests.support.flood import idle_mb_of
from tests.support.target import Target, sections
from tests.support.tools import raise_open_files

OPEN_FILES = 8000

Attacked = Callable[[Certificate | None], AbstractAsyncContextManager[Target]]
"""Starts a daemon to attack, which speaks TLS with a certificate; in the end it stops cleanly."""


@pytest.fixture(scope="session")
def idle_mb(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> float:
    """Measure what a daemon takes that was started as those are that are attacked."""
    return idle_mb_of(tmp_path_factory.mktemp("idle"), launch)


@pytest.fixture
def attacked(idle_mb: float, launch: Launch, tmp_path: Path) -> Attacked:
    """Return what starts a daemon to attack."""
    raise_open_files(OPEN_FILES)

    @asynccontextmanager
    async def start(certificate: Certificate | None) -> AsyncIterator[Target]:
        daemon = Daemon.start(tmp_path, launch, **sections(tmp_path, idle_mb, certificate))
        target = Target(daemon, certificate)
        try:
            async with target.client:
                yield target
            daemon.stop_cleanly()
        finally:
            daemon.kill()

    return start
