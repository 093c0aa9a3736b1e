"""The daemon's figures in one place: what the supervisor acts on, and what /health shows."""

from __future__ import annotations

import trio

from broadcasterd.alerts.rules import Alerts
from broadcasterd.api.health import Vitals
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.relief import MemoryHost
from broadcasterd.config import Memory
from broadcasterd.host.memory import MemoryProbe, Reading, release_free_memory
from broadcasterd.memory.breaker import MIB, Thresholds, bytes_used
from broadcasterd.memory.trend import Trend
from broadcasterd.observe.looplag import LoopWatch


class Monitor:
    """Joins the probe of the host, the loop's watch and the hub's own counts.

    Args:
        config: the ``[memory]`` settings.
        probe: reads the kernel's figures.
        alerts: which fire.

    """

    def __init__(self, config: Memory, probe: MemoryProbe, alerts: Alerts | None = None) -> None:
        self._probe = probe
        self._alerts = alerts or Alerts()
        self._started_at = trio.current_time()
        self._trend = Trend()
        self.loop = LoopWatch()
        self.thresholds = self._thresholds(config)
        self._host = MemoryHost(self._sample, self.rss, release_free_memory, config.sample_interval)

    def memory_host(self) -> MemoryHost:
        """Return what the supervisor needs; it follows :meth:`reconfigure`."""
        return self._host

    def reconfigure(self, config: Memory) -> None:
        """Go on with other settings."""
        self.thresholds = self._thresholds(config)
        self._host.sample_interval = config.sample_interval

    def rss(self) -> int:
        """Return the resident memory of this moment, in bytes."""
        return self._probe.read().rss

    def used(self) -> int:
        """Return the bytes of this moment that count against the thresholds."""
        return self._bytes_used(self._probe.read())

    def vitals(self, hub: Hub) -> Vitals:
        """Return all figures of this moment."""
        reading = self._probe.read()
        return Vitals(
            rss_bytes=reading.rss,
            used_bytes=self._bytes_used(reading),
            excused_bytes=hub.pressure.excused,
            accounted_bytes=hub.accounted_bytes,
            client_bytes=hub.client_bytes,
            cgroup_limit_bytes=reading.cgroup_limit,
            stalled_percent=reading.stalled,
            thresholds=self.thresholds,
            breaker=hub.pressure.state,
            trend=self._trend.figures,
            trend_per_minute=self._trend.per_minute,
            loop_lag=self.loop.lag,
            max_loop_lag=self.loop.max_lag,
            long_steps=self.loop.long_steps,
            sessions=len(hub.sessions),
            subscribers=len(hub.subscribers),
            uptime=trio.current_time() - self._started_at,
            draining=hub.draining,
            alerts=self._alerts.firing,
            engine=hub.engine.health,
        )

    def _thresholds(self, config: Memory) -> Thresholds:
        return Thresholds.derive(
            warning_mb=config.warning_mb,
            critical_mb=config.critical_mb,
            recover_below=config.recover_below,
            limit=self._probe.read().cgroup_limit,
        )

    def _sample(self) -> int:
        used = self.used()
        self._trend.add(used / MIB, now=trio.current_time())
        return used

    def _bytes_used(self, reading: Reading) -> int:
        return bytes_used(
            rss=reading.rss,
            cgroup_used=reading.cgroup_used,
            limit=reading.cgroup_limit,
            thresholds=self.thresholds,
        )
