"""A hung test ends: it fails, says what everything waited for, and cleans up after itself.

A pytest plugin on top of pytest-timeout, which knows how long each test may take. The difference is
how a test in a Trio run is ended. An exception out of the signal handler would come up wherever the
loop happens to be, mostly in Trio itself, and no ``finally`` would run. So the run is cancelled
first, and the exception is for a test that does not end by that.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections.abc import Generator, Iterator
from types import FrameType

import pytest
import trio
from pytest_timeout import Settings, is_debugging

CLEAN_UP_S = 10.0
"""How long a cancelled test may take to end by itself."""

_TOO_LATE = pytest.StashKey[str]()
"""The key of the reason in the stash of a cancelled test."""


def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    """Start the timer of a test (a hook of pytest-timeout)."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if is_debugging():
            return
        why = f"not done after {settings.timeout:g} s"
        signal.setitimer(signal.ITIMER_REAL, CLEAN_UP_S)
        if _TOO_LATE not in item.stash and (root := _root_task()) is not None:
            item.stash[_TOO_LATE] = why
            _tell_who_waits()
            sys.stderr.writelines(f"{line}\n" for line in _tree(root))
            cancel = root.child_nurseries[-1].cancel_scope.cancel
            trio.lowlevel.current_trio_token().run_sync_soon(cancel)
        else:
            _tell_who_waits()
            pytest.fail(why)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Stop the timer of a test (a hook of pytest-timeout)."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Report why a test was cancelled, whatever it made of that."""
    try:
        return (yield)
    finally:
        if _TOO_LATE in pyfuncitem.stash:
            pytest.fail(f"{pyfuncitem.stash[_TOO_LATE]}; where it waited is on stderr")


def _root_task() -> trio.lowlevel.Task | None:
    try:
        return trio.lowlevel.current_root_task()
    except RuntimeError:  # no Trio run
        return None


def _tell_who_waits() -> None:
    sys.stderr.write("\n--- the stacks of all threads ---\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(sys.stderr.fileno())


def _tree(task: trio.lowlevel.Task, indent: str = "") -> Iterator[str]:
    """Yield the tasks under ``task``, each with the lines of ours that it waits at."""
    if not indent:
        yield "--- the tasks of the Trio run ---"
    yield f"{indent}{task.name}"
    for frame, line in task.iter_await_frames():
        if not frame.f_globals["__name__"].startswith("trio._core"):
            yield f"{indent}    {frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
    for nursery in task.child_nurseries:
        yield f"{indent}  nursery"
        for child in nursery.child_tasks:
            yield from _tree(child, f"{indent}    ")
