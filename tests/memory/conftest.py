"""The fixture that the tests of memory share: the memory of an idle daemon."""

from __future__ import annotations

import pytest

from tests.support.daemon import Launch, execute
from tests.support.flood import idle_mb_of


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Start each daemon as a shell does, so that its memory is all its own."""
    return execute


@pytest.fixture(scope="session")
def idle_mb(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Measure the resident memory of a daemon that has answered once, in megabytes."""
    return idle_mb_of(tmp_path_factory.mktemp("idle"))
