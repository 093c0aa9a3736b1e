"""The fixture that the tests of memory share: the memory of an idle daemon."""

from __future__ import annotations

import httpx
import pytest

from tests.support.daemon import Daemon, Launch, execute
from tests.support.flood import MIB


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Start each daemon as a shell does, so that its memory is all its own."""
    return execute


@pytest.fixture(scope="session")
def idle_mb(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Measure the resident memory of a daemon that has answered once, in megabytes."""
    daemon = Daemon.start(tmp_path_factory.mktemp("idle"))
    try:
        httpx.get(f"{daemon.url}/health").raise_for_status()
        return daemon.rss() / MIB
    finally:
        daemon.stop_cleanly()
