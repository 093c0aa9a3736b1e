"""Which core a process of the benchmark runs on: all servers on the same, the load on another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
LOAD_CORE = CORES[-1]  # the same one, on a machine that has no other


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Have what is started inside run on one core, with all of its threads and children."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
