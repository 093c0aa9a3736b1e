"""The supervisor: the one task that acts on the passing of time and on memory.

It lives in the root nursery: if it fails, the daemon stops with a record and is restarted,
for a daemon without it would hold no bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from broadcasterd.broadcast.hub import Hub
from broadcasterd.memory.policy import MAX_ACTIONS, plan
from broadcasterd.memory.reclaim import ReleaseRule

TICK_S = 1.0
"""How often heartbeats and expired tokens are looked at: they are late by no more than this."""

FEW = 1000
"""With no more sessions and streams, memory is given back thoroughly: some 20 ms more. It would be
200 ms with ten thousand."""


class Release(Protocol):
    """Gives freed memory back to the kernel; what that does thoroughly takes longer."""

    def __call__(self, *, thorough: bool) -> None: ...  # noqa: D102


@dataclass(slots=True)
class MemoryHost:
    """What the host does for the supervisor.

    Attributes:
        used: returns the bytes that count against the thresholds, now.
        release: gives freed memory back to the kernel.
        sample_interval: seconds between two looks, where nothing makes them more urgent; it may
            change from one look to the next.

    """

    used: Callable[[], int]
    release: Release
    sample_interval: float


async def supervise(hub: Hub, memory: MemoryHost | None = None) -> None:
    """Send heartbeats, enforce every TTL, end expired streams, relieve memory; until cancelled."""
    last_beat = last_sweep = trio.current_time()
    release = ReleaseRule()
    is_done = True
    while True:
        limits = hub.settings.sessions  # a reload may change them, and how often to look
        tick = min(TICK_S, limits.heartbeat_interval / 4, limits.cleanup_interval)
        if memory is not None:
            tick = min(tick, memory.sample_interval)
        with trio.move_on_after(tick if is_done else 0):
            await hub.pressure.wait_for_growth()
        now = trio.current_time()
        if memory is not None:
            counted, state = hub.counted_bytes, hub.pressure.state
            if release.is_due(counted=counted, state=state, now=now):
                memory.release(thorough=len(hub.sessions) + len(hub.subscribers) <= FEW)
            is_done = relieve_memory(hub, memory, freed=release.freed(hub.counted_bytes))
        if now >= last_beat + tick:
            last_beat = now
            await hub.heartbeat()
            await hub.subscribers.end_expired()
        if now >= last_sweep + limits.cleanup_interval:
            last_sweep = now
            await hub.sweep()
        hub.counters["supervisor_steps"] += 1


def relieve_memory(hub: Hub, memory: MemoryHost, *, freed: int = 0) -> bool:
    """Sample, plan and act; return whether that was all there is to do.

    In one step, without a checkpoint: what was planned on is still so when it is done.

    Args:
        hub: whose sessions give memory up.
        memory: the host's figures.
        freed: bytes that were freed before, and are not given back yet: they are not to be freed
            once more.

    """
    used = memory.used()
    hub.pressure.sample(used)
    state, thresholds = hub.pressure.state, hub.pressure.thresholds
    if state is None or thresholds is None:
        return True
    actions = plan(state, used - freed, thresholds, hub.vitals)
    hub.relieve(actions)
    return len(actions) < MAX_ACTIONS
