"""What histories take: processes of their own fill logs and say what they hold, as JSON.

One process imports what that needs, and forks one for each load.

On the allocator that the daemon runs on, and without a hint to it (malloc_trim) but one: what lies
free before it begins would be taken first, and be in no growth.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import psutil

from broadcasterd.core.event import Event
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.core.wire import encode_block
from broadcasterd.figures.counts import Counts
from broadcasterd.host.allocator import VARIABLE
from broadcasterd.host.memory import release_free_memory
from broadcasterd.memory.account import Account


@dataclass(frozen=True, slots=True)
class Load:
    """Histories to measure.

    Attributes:
        data_bytes: of each event.
        events: in each log, after as many again that were evicted.
        logs: that are filled side by side, event by event.
        key: the idempotency keys, with a place for a number.
        ttl: of each event, in seconds.

    """

    data_bytes: int
    events: int
    logs: int
    key: str | None = None
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What was measured, in bytes, and events.

    Attributes:
        events: that are retained.
        frames: their frames alone.
        resident: the growth of the resident set.
        accounted: for them.
        tracked: objects that the garbage collector has to look at.
        dropped: events that were trimmed then: three quarters of each log.
        back: by how much that lowered the resident set.

    """

    events: int
    frames: int
    resident: int
    accounted: int
    tracked: int
    dropped: int
    back: int

    @property
    def each(self) -> float:
        """Bytes of memory for an event."""
        return self.resident / self.events

    @property
    def around(self) -> float:
        """The same beside its frame."""
        return (self.resident - self.frames) / self.events


Measure = Callable[[Load], Held]
"""Has a new process measure."""


@contextmanager
def measuring() -> Iterator[Measure]:
    """Start what measures, and end it at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.histories"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, VARIABLE: "malloc"},
        text=True,
    ) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None
        assert answers is not None

        def measure(load: Load) -> Held:
            print(json.dumps(asdict(load)), file=asked, flush=True)
            return Held(**json.loads(answers.readline()))

        yield measure


# --- in the processes that measure -----------------------------------------------------------


def main() -> None:
    """Have a child measure each load that is asked for."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            json.dump(asdict(_fill(Load(**json.loads(line)))), sys.stdout)
            print(flush=True)  # noqa: T201 (the end of the answer)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit("there is no answer: see above")


def _fill(load: Load) -> Held:
    process = psutil.Process()
    block = encode_block(Event("x" * load.data_bytes))
    _logs(load, block, count=2)  # what only the first need is there
    release_free_memory(thorough=True)
    before, tracked = process.memory_info().rss, len(gc.get_objects())
    account = Account()
    logs = _logs(load, block, count=load.logs, account=account)
    gc.collect()
    full, tracked = process.memory_info().rss, len(gc.get_objects()) - tracked
    events = sum(map(len, logs))
    accounted = account.bytes
    frames = sum(segment.left for log in logs for segment in log.segments)
    dropped = sum(log.trim(log.bytes // 4) for log in logs)
    back = full - process.memory_info().rss
    return Held(events, frames, full - before, accounted, tracked, dropped, back)


def _logs(
    load: Load, block: bytes, *, count: int, account: Account | None = None
) -> list[ReplayLog]:
    counts = Counts()  # one for all, as in a daemon
    logs = [
        ReplayLog(
            incarnation=f"{number:08x}",
            max_events=load.events,
            max_bytes=1 << 40,
            max_age=600,
            account=account,
            counts=counts,
        )
        for number in range(count)
    ]
    for number in range(2 * load.events):
        for log in logs:
            key = load.key and load.key.format(number)
            log.append(block, now=1000.0 + number / 1000, ttl=load.ttl, key=key)
    return logs


if __name__ == "__main__":
    main()
