"""Imports without what comes along wherever it is installed, and is of no use to a command.

Where a daemon or a command starts, most of the time goes to imports.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast


def import_structlog() -> None:
    """Import structlog without rich. Call it before all that imports structlog.

    rich would cost every daemon 3.3 MB and a quarter of a second (measured), and by default show
    exceptions with their local variables.
    """
    with without("rich"):
        import structlog  # noqa: F401, PLC0415 (that is all that this is for)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking.

    What is imported stays, and looking through it again and again is a tenth of a start (measured).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Let modules seem not to be installed."""
    modules = cast("dict[str, object]", sys.modules)  # None is no module, and says so
    before = {name: modules[name] for name in names if name in modules}
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            del modules[name]
        modules.update(before)
