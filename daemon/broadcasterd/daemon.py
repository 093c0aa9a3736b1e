"""The daemon: its parts, and in what order they start, take other settings and stop.

``hub`` before ``server`` (requests need it), the supervisor beside them, all in one nursery: a
failure of any of the three ends the daemon, and the error goes up. A stop closes the listener,
tells every subscriber to come back, gives requests ``shutdown_grace`` seconds, and resets the
connections that are left.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from broadcasterd.access.tokens import KeyRing
from broadcasterd.alerts.notice import read_key
from broadcasterd.alerts.rules import Alerts
from broadcasterd.alerts.watch import Watch
from broadcasterd.alerts.webhooks import Webhooks
from broadcasterd.api.answer import Answer
from broadcasterd.api.auth import Guard
from broadcasterd.api.live import Live
from broadcasterd.api.routes import Api
from broadcasterd.api.stats import Stats
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.supervisor import Supervisor
from broadcasterd.broadcast.take_up import take_up
from broadcasterd.checks import check, check_exposure_of
from broadcasterd.config import Config, Settings
from broadcasterd.core.reasons import EndReason
from broadcasterd.engine.opening import open_engine
from broadcasterd.figures.counts import Counts
from broadcasterd.handover.transfer import Connections
from broadcasterd.host.memory import MemoryProbe
from broadcasterd.host.quality import Newest, Report, read_reports
from broadcasterd.host.systemd import state_directory
from broadcasterd.memory.breaker import MIB, Thresholds
from broadcasterd.meter import Meter
from broadcasterd.metrics import exposition
from broadcasterd.monitor import Monitor
from broadcasterd.observe.log import set_level
from broadcasterd.server.app import create_app
from broadcasterd.server.listen import ListeningSocket
from broadcasterd.server.serve import HttpServer

ABORT_GRACE_S = 1.0
"""Time for the tasks of connections that were reset to end by themselves."""

LAST_REQUESTS_S = 0.1
"""Whoever asks for something in this time is still answered, and told that the connection closes: a
client that knows that does not write to a connection while it is closed."""

Restore = Callable[[Hub, Connections], Awaitable[Sequence[tuple[str, float]]]]
"""Puts into the hub what another process left; returns the alerts that fired, and for how long."""


async def nothing_to_restore(_hub: Hub, _connections: Connections) -> tuple[()]:
    """Begin anew."""
    return ()


class Daemon:
    """The whole daemon, in one Trio run; signals, systemd and the log are its caller's affair.

    Args:
        config: all settings.
        keys: verify tokens.
        sockets: to listen on; closed by :meth:`run`.
        counts: what it counts in; the log's may be in it already.

    Attributes:
        settings: those in force.

    Raises:
        ConfigError: the engine cannot be opened.

    """

    def __init__(
        self,
        config: Config,
        keys: KeyRing,
        sockets: Sequence[ListeningSocket],
        counts: Counts | None = None,
    ) -> None:
        self._sockets = sockets
        self.settings = Settings(config)
        self.alerts = Alerts()
        self.monitor = Monitor(config.memory, MemoryProbe(), self.alerts)
        clock, counts = Clock(), counts or Counts()
        self.hub = Hub(
            self.settings,
            clock=clock,
            thresholds=self._thresholds(),
            counts=counts,
            engine=open_engine(self.settings, state_directory(os.environ), clock.unix_now, counts),
        )
        self.supervisor = Supervisor(self.hub, self.monitor.memory_host())
        self.guard = Guard(self.settings, keys, self.hub.clock, self.hub.revocations)
        self.api = Api(
            self.hub,
            self.guard,
            self.settings,
            vitals=lambda: self.monitor.vitals(self.hub),
            stats=self._stats,
            metrics=self._metrics,
            live=Live(self.hub, self._stats, self._quality),
        )
        self.app = create_app(self.api)
        self.server = HttpServer(self.app, self.api, sockets)
        newest = Newest(self._quality_report)
        self.meter = Meter(self.api, self.server, self.monitor, self.alerts, newest)
        self.webhooks = Webhooks(self.hub.counts, read_key(config.alerts))
        self.watch = Watch(
            self.settings,
            self.alerts,
            self.webhooks,
            read=self.meter.reading,
            memory=self._memory_mb,
            daemon=_name_of(sockets),
        )
        self._served = trio.Event()

    async def run(
        self,
        restore: Restore = nothing_to_restore,
        *,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; the start is told, with the URLs, once the port answers.

        Args:
            restore: called before the port answers, to put into the hub what another process left.
            task_status: told of the start.

        """
        async with trio.open_nursery() as root:
            await root.start(self.hub.run)
            await root.start(self.hub.engine.run)
            await root.start(self.webhooks.run)
            self.alerts.resume(await restore(self.hub, self.server), trio.current_time())
            await take_up(self.hub)
            urls: list[str] = await root.start(self._serve)
            root.start_soon(self.monitor.loop.run)
            root.start_soon(self.meter.run)
            root.start_soon(self.api.live.run)
            root.start_soon(self.supervisor.run)
            root.start_soon(self.watch.run)
            task_status.started(urls)

    async def _serve(self, *, task_status: trio.TaskStatus[list[str]]) -> None:
        await self.server.run(task_status=task_status)
        self._served.set()

    async def reconfigure(self, new: Config) -> None:
        """Put other settings in force, first in the parts that may refuse them.

        Raises:
            ConfigError: they cannot be used. Nothing was changed.

        """
        check_exposure_of(self._sockets, new)
        keys, webhook_key = check(new, self.guard.keys.secrets), read_key(new.alerts)
        self.server.load_certificate(new.server)
        self.settings.replace(new)
        self.server.reconfigure()
        self.guard.reconfigure(keys)
        set_level(new.log.level)
        self.monitor.reconfigure(new.memory)
        self.webhooks.key = webhook_key
        self.watch.reconfigure()
        await self.hub.reconfigure(self._thresholds())

    async def drain(self, *, movable_stay: bool = False) -> None:
        """Accept nothing more, tell subscribers to come back, and wait for requests under way.

        Streams and idle connections that can go on in another process may stay.
        """
        self.server.close_doors(keep_idle=movable_stay)
        with trio.move_on_after(LAST_REQUESTS_S):
            await self.wait_served()
        await self.server.stop_accepting()
        await self.hub.drain(movable_stay=movable_stay)
        await self.wait_served()

    async def wait_served(self) -> None:
        """Wait until no connection is left that the server has."""
        await self._served.wait()

    async def abort(self) -> None:
        """Tell every stream that is left, as far as that goes at once; reset every connection."""
        self.hub.subscribers.disconnect(EndReason.DRAINING)
        self.server.abort()
        with trio.move_on_after(ABORT_GRACE_S):
            await self._served.wait()

    def keys(self) -> dict[str, object]:
        """Return what the log says of the keys and the certificate in force: which, not what."""
        return {"keys": self.guard.keys.names() or None, "certificate": self.server.certificate}

    def status(self) -> str:
        """Return one line for an operator."""
        counts = f"{len(self.hub.sessions)} sessions, {len(self.hub.subscribers)} subscribers"
        line = f"{counts}, breaker {self.hub.pressure.state or 'off'}"
        if firing := self.alerts.firing:
            line = f"{line}, alerts: {', '.join(firing)}"
        return f"draining: {line}" if self.hub.draining else line

    def _stats(self) -> Stats:
        return self.meter.stats()

    def _quality(self) -> Sequence[Report]:
        return read_reports(self._quality_report())

    def _quality_report(self) -> Path | None:
        return self.settings.config.dashboard.quality_report

    def _metrics(self, accept: str) -> Answer:
        return exposition(self.meter.stats(), accept)

    def _memory_mb(self) -> tuple[float, float]:
        thresholds = self.monitor.thresholds
        return thresholds.warning / MIB, thresholds.critical / MIB

    def _thresholds(self) -> Thresholds | None:
        return self.monitor.thresholds if self.settings.config.memory.breaker else None


def _name_of(sockets: Sequence[socket.socket]) -> str:
    """Return the name of a daemon for people: its host, and its port where it has one."""
    ports = {sock.getsockname()[1] for sock in sockets}
    return ":".join([socket.gethostname(), *map(str, sorted(ports)[:1])])
