"""The fixture that the tests of memory share: the memory of an idle daemon."""

from __future__ import annotations

import pytest

from tests.support.daemon import Launch
from tests.support.flood import idle_mb_of


@pytest.fixture(scope="session")
def idle_mb(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> float:
    """Measure what a daemon takes that was started as those are that have so much more."""
    return idle_mb_of(tmp_path_factory.mktemp("idle"), launch)
