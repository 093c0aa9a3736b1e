"""The supervisor: the one task that acts on the passing of time and on memory.

It lives in the root nursery: if it fails, the daemon stops with a record and is restarted,
for a daemon without it would hold no bound.
"""

from __future__ import annotations

import trio

from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.relief import MemoryHost, Relief
from broadcasterd.broadcast.telling import Telling

TICK_S = 1.0
"""How often heartbeats and expired tokens are looked at: they are late by no more than this."""

MIN_TICK_S = 0.01
"""Settings may ask for less, which would keep a core busy."""


class Supervisor:
    """Heartbeats, every TTL, expired grants, and relief of memory.

    Args:
        hub: whose sessions and streams it looks after.
        memory: the host's figures; without them memory is nobody's concern.

    Attributes:
        steps: how many it has finished: the evidence for the watchdog that it is not stuck.

    """

    def __init__(self, hub: Hub, memory: MemoryHost | None = None) -> None:
        self.steps = 0
        self._hub = hub
        self._telling = Telling(hub)
        self._memory = memory
        self._relief = None if memory is None else Relief(hub, memory)

    async def run(self) -> None:
        """Look after everything, until cancelled."""
        hub = self._hub
        last_beat = last_sweep = trio.current_time()
        is_done = self._relief is None  # a first look is at once: at what the program itself takes
        while True:
            limits = hub.settings.sessions  # a reload may change them, and how often to look
            tick = min(TICK_S, limits.heartbeat_interval / 4, limits.cleanup_interval)
            if self._memory is not None:
                tick = min(tick, self._memory.sample_interval)
            tick = max(tick, MIN_TICK_S)
            with trio.move_on_after(tick if is_done else 0):
                await hub.pressure.wait_for_growth()
            now = trio.current_time()
            if self._relief is not None:
                is_done = self._relief.look()
            if now >= last_beat + tick:
                last_beat = now
                await hub.heartbeat()
                self._telling.go_on()
                await hub.end_expired()
            if now >= last_sweep + limits.cleanup_interval:
                last_sweep = now
                await hub.sweep()
            self.steps += 1
