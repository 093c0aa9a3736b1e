"""The daemon: its parts, and how they start, reload and stop.

``hub`` before ``server`` (requests need it), the supervisor beside them, all in one nursery: a
failure of any of the three ends the daemon, and the error goes up. A stop closes the listener,
tells every subscriber to come back, gives requests ``shutdown_grace`` seconds, and resets the
connections that are left.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import msgspec
import structlog
import trio

from broadcasterd import __version__
from broadcasterd.access.rotation import NO_SECRETS, Secrets
from broadcasterd.access.tokens import KeyRing
from broadcasterd.alerts import webhooks
from broadcasterd.alerts.notice import read_key
from broadcasterd.alerts.rules import Alerts
from broadcasterd.alerts.watch import Watch
from broadcasterd.alerts.webhooks import Webhooks
from broadcasterd.api.answer import Answer
from broadcasterd.api.auth import Guard
from broadcasterd.api.live import Live
from broadcasterd.api.routes import Api
from broadcasterd.api.stats import Stats
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.supervisor import Supervisor
from broadcasterd.config import Config, ConfigError, Settings, check_exposure, receivers
from broadcasterd.core.reasons import EndReason
from broadcasterd.figures.counts import Counts
from broadcasterd.handover.kept_configuration import unpack, unpack_before
from broadcasterd.handover.restart import Restart
from broadcasterd.handover.transfer import Connections
from broadcasterd.host.control import serve_control
from broadcasterd.host.credentials import credentials_directory
from broadcasterd.host.failed_starts import FailedStarts
from broadcasterd.host.memory import MemoryProbe
from broadcasterd.host.quality import Report, read_reports
from broadcasterd.host.service import Service
from broadcasterd.host.systemd import HandedOver, Notifier, take_listen_fds, watchdog_period
from broadcasterd.memory.breaker import MIB, Thresholds
from broadcasterd.meter import Meter
from broadcasterd.metrics import exposition
from broadcasterd.monitor import Monitor
from broadcasterd.observe.log import Reopen, logging_as, set_level
from broadcasterd.observe.log_file import check_log_file
from broadcasterd.reload import Reloader, Reloads
from broadcasterd.server.app import create_app
from broadcasterd.server.certificate import check_certificate
from broadcasterd.server.listen import ListeningSocket, adopt, bind
from broadcasterd.server.serve import HttpServer

log = structlog.stdlib.get_logger(__name__)

ABORT_GRACE_S = 1.0
"""Time for the tasks of connections that were reset to end by themselves."""

OnReady = Callable[[list[str]], None]


HAND_OVER_AFTER_S = 1.0
"""Requests that are under way have so long before streams are handed over: most take milliseconds,
and whoever holds one up is not to hold up the streams, which a kill would lose."""

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
        self.hub = Hub(self.settings, thresholds=self._thresholds(), counts=counts)
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
        self.meter = Meter(self.api, self.server, self.monitor, self.alerts)
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
            await root.start(self.webhooks.run)
            self.alerts.resume(await restore(self.hub, self.server), trio.current_time())
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
        return read_reports(self.settings.config.dashboard.quality_report)

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


# --- as a process ----------------------------------------------------------------------------


def main(load: Callable[[], Config], *, on_ready: OnReady | None = None) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second signal ends the drain.

    SIGHUP has it reload, and SIGUSR1 open its log file anew.

    SIGTERM hands all that can be over to the next process. SIGINT is an end for good.

    Where the files of a service are bad, it goes on with the configuration that it last ran with.

    Args:
        load: reads all settings, at the start and on SIGHUP; raises ConfigError where they cannot
            be used.
        on_ready: called once with the URLs, when the port answers.

    Raises:
        ConfigError: the settings or their files cannot be used, or do not go with the sockets or
            the journal that are there.
        OSError: the address cannot be bound.
        ExceptionGroup: a task that the daemon cannot do without failed; it was logged.

    """
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    restart = Restart(take_listen_fds(os.environ), notifier, os.environ)
    failed = FailedStarts(restart.runtime_directory)
    try:
        start = _prepare(load, restart.configuration)
        counts = Counts()
        with logging_as(start.config.log, counts) as reopen_log:
            run = partial(
                serve,
                start,
                restart,
                notifier,
                failed,
                counts,
                load=load,
                reopen_log=reopen_log,
                on_ready=on_ready,
            )
            try:
                trio.run(run, strict_exception_groups=True)
            except ExceptionGroup as error:
                log.critical("the daemon failed", exc_info=error)
                raise
    except (ConfigError, OSError):
        time.sleep(failed.another())
        raise


@dataclass(frozen=True, slots=True)
class Start:
    """What a start begins with; ``refused`` is what is wrong with the files, where that is kept."""

    config: Config
    keys: KeyRing
    refused: str = ""


def _prepare(load: Callable[[], Config], kept: bytes | None) -> Start:
    """Read everything that a start needs, or else take the configuration that was kept."""
    before = unpack_before(kept)
    try:
        config = load()
        check_tls_stays(config, before.certificate)
        return Start(config, check(config, before.secrets))
    except ConfigError as error:
        if kept is None:
            raise
        try:
            config = unpack(kept)
            keys = check(config, before.secrets)
            return Start(config, keys, refused="; ".join(str(error).splitlines()))
        except (ConfigError, OSError):
            raise error from None


def _load(load: Callable[[], Config], restart: Restart) -> Config:
    """Read settings that a start would take: a restart may come at any time."""
    config = load()
    check_tls_stays(config, unpack_before(restart.configuration).certificate)
    check(config)
    return config


async def serve(
    start: Start,
    restart: Restart,
    notifier: Notifier,
    failed: FailedStarts,
    counts: Counts,
    *,
    load: Callable[[], Config],
    reopen_log: Reopen,
    on_ready: OnReady | None,
) -> None:
    """Run the daemon in this Trio run; see :func:`main`."""
    config = start.config
    with (  # before the port answers: whoever may ask it to stop finds it listening
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as stops,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
        trio.open_signal_receiver(signal.SIGUSR1) as rotations,
    ):
        daemon = Daemon(config, start.keys, listen(config, restart.others), counts)
        service = Service(
            notifier,
            watchdog=watchdog_period(os.environ),
            status=daemon.status,
            progress=lambda: daemon.supervisor.steps,
        )

        async def keep() -> None:
            config, secrets = daemon.settings.config, daemon.guard.keys.secrets
            await restart.keep_configuration(config, secrets)

        reloader = Reloader(
            config, load=partial(_load, load, restart), apply=daemon.reconfigure, keys=daemon.keys
        )
        reloads = Reloads(partial(_reload, reloader, service, keep))
        async with trio.open_nursery() as root:
            urls: list[str] = await root.start(daemon.run, restart.restore)
            _warn_of(config)
            if start.refused:
                service.remark = f"the configuration is that of before: {start.refused}"
                log.error("start with the configuration of before", why=start.refused)
            spare_the_garbage_collector()
            python = sys.version.split()[0]
            log.info("ready", urls=urls, version=__version__, python=python, **daemon.keys())
            if restart.runtime_directory is not None:
                try:
                    await root.start(serve_control, restart.runtime_directory, reloads.ask)
                except OSError as error:
                    log.warning(
                        "only SIGHUP can ask for a reload", why=error.strerror or str(error)
                    )
            await service.ready()
            failed.forget()
            if not start.refused:
                await keep()
            root.start_soon(service.run)
            root.start_soon(reloads.run)
            root.start_soon(_reload_on, hangups, reloads)
            root.start_soon(_reopen_log_on, rotations, reopen_log, config.log.file)
            if on_ready is not None:
                on_ready(urls)
            is_restart = await anext(stops) == signal.SIGTERM
            await _stop(daemon, service, stops, restart if is_restart else None)
            root.cancel_scope.cancel()
    log.info("stopped")


async def _stop(
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


def listen(config: Config, handed: Sequence[HandedOver] = ()) -> list[ListeningSocket]:
    """Return the sockets that systemd handed over, or else those of the settings.

    Raises:
        ConfigError: a socket that was handed over is more exposed than the settings allow.
        OSError: the address cannot be bound.

    """
    sockets = []
    for each in handed:
        sock = adopt(each.fd)
        if sock is None:
            log.warning("a descriptor is no listening TCP socket: closed", name=each.name)
            os.close(each.fd)
        else:
            sockets.append(sock)
    if not sockets:
        return bind(config.server)
    log.info("the sockets are systemd's: server.host, .port and .backlog are ignored")
    try:
        check_exposure_of(sockets, config)
    except ConfigError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def check(config: Config, before: Secrets = NO_SECRETS) -> KeyRing:
    """Read all that settings name, as a start does; return the keys that verify tokens.

    Args:
        config: the settings.
        before: the secrets that were in force until now.

    Raises:
        ConfigError: a key, a certificate or the log file cannot be used, or nobody would have to
            prove anything.

    """
    check_exposure(config)
    check_certificate(config.server)
    read_key(config.alerts)
    webhooks.prepare(url for _, url in receivers(config.alerts))
    check_log_file(config.log)
    return KeyRing.load(config.auth, before)


def check_tls_stays(config: Config, before: str | None) -> None:
    """Refuse to serve in the clear because a credential is missing; settings alone may say so.

    Args:
        config: the settings.
        before: the certificate of the process before.

    Raises:
        ConfigError: it was a credential, and nothing is in its place.

    """
    directory = credentials_directory(os.environ)
    if config.server.tls_certificate is not None or before is None or directory is None:
        return
    if Path(before).parent == directory:
        raise ConfigError(
            f'server.tls_certificate = "{before}": is missing, or empty; expected a certificate, as'
            " until now. To serve without TLS, stop the service, and start it"
        )


def check_exposure_of(sockets: Sequence[socket.socket], config: Config) -> None:
    """Refuse settings that do not go with where the daemon really listens.

    Raises:
        ConfigError: see :func:`~broadcasterd.config.check_exposure`.

    """
    for sock in sockets:
        server = msgspec.structs.replace(config.server, host=sock.getsockname()[0])
        check_exposure(msgspec.structs.replace(config, server=server))


def spare_the_garbage_collector() -> None:
    """Have the collector look less often, and not at objects that live as long as the daemon.

    A full pass visits every object and stops the loop meanwhile: 20 ms for a thousand sessions. The
    cycles that requests leave behind are found by the passes over young objects, and thousands at a
    time are found as well as hundreds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 100)


def _warn_of(config: Config) -> None:
    if not config.memory.breaker:
        log.warning("the memory breaker is off: nothing bounds what events may take")
    if config.auth.mode == "none":
        log.warning('auth.mode = "none": whoever reaches the port may do anything')


async def _reload_on(hangups: AsyncIterator[int], reloads: Reloads) -> None:
    async for _ in hangups:
        await reloads.ask()


async def _reload(reloader: Reloader, service: Service, keep: Callable[[], Awaitable[None]]) -> str:
    """Reload, and tell systemd; return what was wrong, or nothing."""
    await service.reloading()
    why = await reloader.reload()
    service.remark = f"the last reload was refused: {why}" if why else ""
    if not why:
        await keep()
    await service.ready()
    return why


async def _reopen_log_on(
    rotations: AsyncIterator[int], reopen_log: Reopen, file: Path | None
) -> None:
    async for _ in rotations:
        reopen_log()
        log.info("log reopened", file=None if file is None else str(file))


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
