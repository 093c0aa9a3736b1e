"""How a daemon stops: it drains, hands streams over, and resets what is left, all in one grace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import structlog
import trio

from broadcasterd.daemon import Daemon
from broadcasterd.handover.restart import Restart
from broadcasterd.host.service import Service

log = structlog.stdlib.get_logger(__name__)

HAND_OVER_AFTER_S = 1.0
"""Requests that are under way have so long before streams are handed over: most take milliseconds,
and whoever holds one up is not to hold up the streams, which a kill would lose."""


async def stop(
    daemon: Daemon, service: Service, stops: AsyncIterator[int], restart: Restart | None
) -> None:
    """Drain for as long as the grace lasts, then end what is left.

    With ``restart``, all that can be is handed over to the next process first.
    """
    grace_s = daemon.settings.server.shutdown_grace
    stay = restart is not None and restart.keeps_streams(daemon.hub)
    streams = len(daemon.hub.subscribers)
    log.info("draining", streams=streams, restart=restart is not None, grace_s=grace_s)
    await service.stopping()
    async with trio.open_nursery() as stopping:
        grace = Grace(grace_s)
        stopping.start_soon(_end_grace, stops, grace)
        with grace.lasting(inf if restart is None else HAND_OVER_AFTER_S):
            await daemon.drain(movable_stay=stay)
        if restart is not None:
            alerts = daemon.alerts.lasting(trio.current_time())
            await restart.hand_over(daemon.hub, daemon.server.take_idle(), alerts)
            with grace.lasting():
                await daemon.wait_served()
        await daemon.abort()
        stopping.cancel_scope.cancel()


class Grace:
    """The time that a stop gives to others, in several parts."""

    def __init__(self, seconds: float) -> None:
        self._ends_at = trio.current_time() + seconds
        self._part = trio.CancelScope()

    def lasting(self, seconds: float = inf) -> trio.CancelScope:
        """Return a scope that ends after so many seconds, or with the grace."""
        ends_at = min(self._ends_at, trio.current_time() + seconds)
        self._part = trio.CancelScope(deadline=ends_at)
        return self._part

    def end(self) -> None:
        """End it now."""
        self._ends_at = trio.current_time()
        self._part.cancel()


async def _end_grace(signals: AsyncIterator[int], grace: Grace) -> None:
    await anext(signals)
    log.warning("stopped again: the grace is over")
    grace.end()
