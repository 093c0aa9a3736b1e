"""What work costs a daemon, counted and not timed: the same on a fast machine and on a busy one.

Each count is marginal: that of many less that of few, by how many more they are. So what is done
once, such as the connection of a publisher, is in none of them.
"""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType

import trio.testing
from trio._core._run import GLOBAL_RUN_CONTEXT

from tests.performance.processes import Load
from tests.support.tools import lack, require

EVENT_BYTES = 200
SUBSCRIBERS = 50
"""For deliveries: few enough that the POST of each event is seen in them."""


@dataclass(frozen=True, slots=True)
class Work:
    """Something that a load generator has a daemon do.

    Attributes:
        do: has it done so many times.
        few: so many, and
        many: so many; both are the same for everybody who counts.
        each: what one of them comes to.

    """

    do: Callable[[Load, int], object]
    few: int
    many: int
    each: int = 1

    def marginal(self, of_few: float, of_many: float) -> float:
        """Return what one costs."""
        return (of_many - of_few) / ((self.many - self.few) * self.each)


def publish(load: Load, events: int) -> None:
    """Publish to nobody, one after the other."""
    _publish(load, "nobody", events)


def publish_lines(load: Load, lines: int) -> None:
    """Publish to nobody, all in one request as NDJSON."""
    body = (json.dumps({"data": "x" * EVENT_BYTES}) + "\n") * lines
    with closing(HTTPConnection(*load.address)) as connection:
        head = {"Content-Type": "application/x-ndjson"}
        connection.request("POST", "/v1/sessions/lines/events", body, head)
        assert json.load(connection.getresponse())["accepted"] == lines


def subscribe(load: Load, count: int) -> None:
    """Subscribe so many more."""
    load.do("open", session="idle", count=count)


def deliver(load: Load, events: int) -> None:
    """Publish to all who are subscribed."""
    _publish(load, "crowd", events)


def publish_to_new_sessions(load: Load, sessions: int) -> None:
    """Publish one event to each of so many new sessions."""
    prefix = f"new-{sessions}-"
    seen = load.do(
        "publish", session=prefix, events=sessions, spread=sessions, size=EVENT_BYTES, rate=0
    )
    assert seen["errors"] == []


def _publish(load: Load, session: str, events: int) -> None:
    seen = load.do("publish", session=session, events=events, size=EVENT_BYTES, rate=0)
    assert seen["errors"] == []


# --- system calls ----------------------------------------------------------------------------


@dataclass(slots=True)
class Count:
    """What was counted; to be read when the block is over."""

    total: int = 0


@contextmanager
def system_calls_of(pid: int, directory: Path) -> Iterator[Count]:
    """Count the system calls of a process and its threads while inside.

    A machine without strace, or one that forbids to trace, is one that lacks it.
    """
    report = directory / "strace"
    command = [require("strace"), "-c", "-f", "-U", "calls,name", "-o", str(report), "-p", str(pid)]
    count = Count()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            first = tracer.stderr.readline()
            if "attached" not in first:
                lack(f"strace cannot trace here: {first.strip()}")
            yield count
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()
    # The last line is the sum of all: "1234 total".
    calls, name = report.read_text().split()[-2:]
    assert name == "total", report.read_text()
    count.total = int(calls)


# --- function calls and memory, in the test's own process ---------------------------------------


@contextmanager
def function_calls() -> Iterator[Count]:
    """Count the calls of functions, Python's and C's, of this thread while inside.

    The garbage of other tests is not collected meanwhile: what ends then may call something.
    """
    count = Count()

    def see(_: FrameType, event: str, __: object) -> None:
        if event in {"call", "c_call"}:
            count.total += 1

    gc.disable()
    sys.setprofile(see)
    try:
        yield count
    finally:
        sys.setprofile(None)
        gc.enable()


async def blocks_held() -> int:
    """Return the blocks of memory that this process holds when all wait, and none is to collect.

    Trio keeps deadlines that are over, up to a thousand, until it is worth its while to go
    through all: that is done first, in this Trio run.
    """
    await trio.testing.wait_all_tasks_blocked(0.02)
    GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
    gc.collect()
    blocks = sys.getallocatedblocks()
    if not blocks:
        lack("this Python counts no blocks: it does not run on its own allocator")
    return blocks
