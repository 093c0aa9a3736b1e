"""The supervisor: the one task that acts on the passing of time.

It lives in the root nursery: if it fails, the daemon stops with a record and is restarted,
for a daemon without it would hold no bound.
"""

from __future__ import annotations

import trio

from broadcasterd.broadcast.hub import Hub

TICK_S = 1.0
"""How often heartbeats are looked at, at most: they are late by no more than this."""


async def supervise(hub: Hub) -> None:
    """Send heartbeats and enforce every TTL, until cancelled."""
    tick = min(TICK_S, hub.limits.heartbeat_interval / 4, hub.limits.cleanup_interval)
    next_sweep = trio.current_time() + hub.limits.cleanup_interval
    while True:
        await trio.sleep(tick)
        await hub.beat()
        if trio.current_time() >= next_sweep:
            await hub.sweep()
            next_sweep = trio.current_time() + hub.limits.cleanup_interval
