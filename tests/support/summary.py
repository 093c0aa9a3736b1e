"""How the tests went, in one line of plain words at the end: also where nothing failed.

A pytest plugin. pytest's own last line leaves out what there is none of, and says "s".
"""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

_BEGAN = pytest.StashKey[float]()
"""The key of the time at which all began, in the stash of the configuration."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note the time (a hook of pytest)."""
    session.config.stash[_BEGAN] = time.monotonic()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    """Write the line, after what all others have to say (a hook of pytest)."""
    yield
    count = {outcome: len(reports) for outcome, reports in terminalreporter.stats.items()}
    passed = count.get("passed", 0)
    failed = count.get("failed", 0) + count.get("error", 0)
    rate = 100 * passed / (passed + failed) if passed else 0
    took = time.monotonic() - config.stash[_BEGAN]
    terminalreporter.write_line(
        f"{passed} passed, {failed} failed, {count.get('skipped', 0)} skipped:"
        f" success rate {rate:.1f} %, {took:.1f} seconds"
    )
