"""What has to hold in the soak: all the time, in each quiet moment, and in the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import trio

from broadcasterd.memory.policy import SESSION_BYTES
from tests.performance.soak_followers import Follower
from tests.performance.soak_world import Violation, World
from tests.support.daemon import Daemon
from tests.support.flood import (
    ANSWER_S,
    ASKING_MB,
    MIB,
    Client,
    Memory,
    client_of,
    files_and_threads,
)

OVER_CRITICAL = 1.1
LOOK_S = 0.1
HEALTH_S = 0.5
ROUNDING_BYTES = MIB / 1000
REST_S = 60.0
"""Until all is as it was: the breaker's patience, and the time to live of everything."""

VERDICTS = {"closed": "healthy", "warning": "degraded", "half-open": "degraded"}
FAILURES = ("Traceback", "failed", "records were dropped")
OPEN_S = 1.0
"""A look at the clock, and the record of it, may be so far apart."""


# --- all the time --------------------------------------------------------------------------------


class Watch:
    """Watches the memory and the health of the daemon."""

    def __init__(self, world: World) -> None:
        self._daemon = world.daemon
        self._bound_mb = world.sections["memory"]["critical_mb"] * OVER_CRITICAL
        self._memory = Memory(world.daemon)
        self._health: dict[str, Any] = {}

    @property
    def peak_mb(self) -> float:
        """The most megabytes that were resident."""
        return self._memory.peak_mb

    async def run(self) -> None:
        """Watch until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_memory)
            nursery.start_soon(self._watch_health)

    def line(self) -> str:
        """Return the figures of this moment as a line of text."""
        memory = self._health["memory"]
        loop = self._health["loop"]
        return (
            f"breaker {memory['breaker']}, rss {self._memory.now_mb:.1f} MB "
            f"(peak {self.peak_mb:.1f} of {self._bound_mb:.1f}), "
            f"accounted {memory['accounted_mb']:.1f} MB, sessions {self._health['sessions']}, "
            f"subscribers {self._health['subscribers']}, "
            f"lag {loop['max_lag_ms']:.0f} ms, long steps {loop['long_steps']}"
        )

    def check_memory(self) -> None:
        """Check that no more was resident at any time than is allowed."""
        if self.peak_mb > self._bound_mb:
            raise Violation(f"{self.peak_mb:.1f} MB are resident, {self._bound_mb:.1f} allowed")

    async def _watch_memory(self) -> None:
        while True:
            self.check_memory()
            if self._daemon.process.poll() is not None:
                raise Violation(f"the daemon ended: {self._daemon.log()[-4000:]}")
            await trio.sleep(LOOK_S)

    async def _watch_health(self) -> None:
        async with client_of(self._daemon) as client:
            while True:
                reply = await client.ask("GET", "/health")
                self._health = reply.json()
                breaker = self._health["memory"]["breaker"]
                expected = (VERDICTS.get(breaker, "unhealthy"), 503 if breaker == "open" else 200)
                if (self._health["status"], reply.status) != expected:
                    raise Violation(f"the health is {reply.status} {self._health}")
                await trio.sleep(HEALTH_S)


# --- in a quiet moment ---------------------------------------------------------------------------


async def check_in_quiet(world: World, followers: Sequence[Follower]) -> None:
    """Hold the gate, and check what is certain when nobody acts."""
    async with world.gate.held(), client_of(world.daemon) as client:
        await _check_followers(client, followers)
        if faults := world.ledger.faults(now=trio.current_time()):
            raise Violation(f"{len(faults)} events: {'; '.join(faults[:5])}")
        await _check_account(client)
        world.figures.quiet += 1


async def _check_followers(client: Client, followers: Sequence[Follower]) -> None:
    """Wait until each follower has all that its session has."""
    deadline = trio.current_time() + ANSWER_S
    while True:
        listed = await client.sessions()
        behind = [follower for follower in followers if not follower.is_level(listed)]
        if not behind:
            return
        if trio.current_time() > deadline:
            shown = "; ".join(follower.report(listed) for follower in behind[:5])
            raise Violation(f"{len(behind)} followers never get what is theirs: {shown}")
        await trio.sleep(LOOK_S)


async def _check_account(client: Client) -> None:
    """Compare the daemon's sum with its parts, at a moment when neither changes."""
    deadline = trio.current_time() + ANSWER_S
    while True:
        before = await client.health()
        listed = await client.sessions()
        after = await client.health()
        parts = sum(session["retained_bytes"] for session in listed.values())
        parts += len(listed) * SESSION_BYTES
        memory = after["memory"]
        accounted = (memory["accounted_mb"] - memory["clients_mb"]) * MIB
        streams = sum(session["subscribers"] for session in listed.values())
        if abs(accounted - parts) <= ROUNDING_BYTES and streams == after["subscribers"]:
            return
        if trio.current_time() > deadline:
            raise Violation(
                f"accounted are {accounted:.0f} bytes, but the parts are {parts}, and the "
                f"{len(listed)} sessions have {streams} streams: {before}, {after}"
            )
        await trio.sleep(LOOK_S)


# --- in the end ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a daemon has of the system: file descriptors and threads."""

    files: int
    threads: int

    @classmethod
    def of(cls, daemon: Daemon) -> Footprint:
        """Look at it."""
        return cls(*files_and_threads(daemon))

    def is_within(self, base: Footprint) -> bool:
        """Return whether there is no more of either; what a start left may be gone by then."""
        return self.files <= base.files and self.threads <= base.threads


async def wait_for_rest(world: World, base: Footprint) -> None:
    """Wait until nothing is left of all that was, once all clients are gone."""
    deadline = trio.current_time() + REST_S
    while True:
        async with client_of(world.daemon) as client:
            health = await client.health()
        left = {name: health[name] for name in ("sessions", "subscribers")}
        left["accounted_mb"] = round(health["memory"]["accounted_mb"] - ASKING_MB, 3)
        await trio.sleep(LOOK_S)  # for this connection to be gone, too
        footprint = Footprint.of(world.daemon)
        is_closed = health["memory"]["breaker"] == "closed"
        if not any(left.values()) and is_closed and footprint.is_within(base):
            return
        if trio.current_time() > deadline:
            raise Violation(f"{left} are left, {footprint} (before: {base}); {health}")


def check_log(world: World) -> int:
    """Check what the daemon wrote; return how often its breaker opened."""
    log = world.daemon.log()
    for word in FAILURES:
        if word in log:
            begin = log.index(word)
            raise Violation(f"the log has {log[max(0, begin - 500) : begin + 2000]}")
    records = [json.loads(line) for line in log.splitlines()]
    changes = [record for record in records if record["event"] == "memory breaker"]
    _check_doubts(world, changes)
    return sum(change["after"] == "open" for change in changes)


def _check_doubts(world: World, changes: Sequence[dict[str, Any]]) -> None:
    """Check that what only pressure excuses was while there was pressure."""
    spans: list[tuple[float, float]] = []
    for change in changes:
        at = datetime.fromisoformat(change["timestamp"]).timestamp()
        if change["before"] == "closed":
            spans.append((at - OPEN_S, time.time()))
        if change["after"] == "closed":
            spans[-1] = (spans[-1][0], at + OPEN_S)
    for doubt in world.doubts:
        if not any(begin <= doubt.ended and doubt.began <= end for begin, end in spans):
            raise Violation(f"with no pressure: {doubt.what}")
