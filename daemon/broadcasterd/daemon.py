"""The root nursery: what runs, in what order it starts, how it is reloaded, and how it stops.

``hub`` before ``server`` (requests need it), the supervisor beside them. SIGHUP reads the
configuration anew; ``reconfigure`` tells each part. A stop closes the listener, tells every
subscriber to come back, gives requests ``shutdown_grace`` seconds, and resets what is left. A
failure of any of the three ends the daemon: the error goes up.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

import structlog
import trio

from broadcasterd import __version__
from broadcasterd.access.tokens import KeyRing
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.supervisor import supervise
from broadcasterd.config import Config, ConfigError
from broadcasterd.core.reasons import EndReason
from broadcasterd.handover.restart import Restart
from broadcasterd.host.service import Service
from broadcasterd.host.systemd import HandedOver, Notifier, take_listen_fds, watchdog_period
from broadcasterd.observe.log import logging_as
from broadcasterd.parts import Parts, check_exposure_of, load_keys
from broadcasterd.reload import Reloader
from broadcasterd.server.listen import adopt, bind
from broadcasterd.server.serve import HttpServer

log = structlog.stdlib.get_logger(__name__)

ABORT_GRACE_S = 1.0
"""What the tasks of connections that were reset need to end by themselves."""

OnReady = Callable[[list[str]], None]


def main(
    config: Config,
    *,
    load: Callable[[], Config] | None = None,
    on_ready: OnReady | None = None,
    takeover: bool = True,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second one ends the drain.

    On SIGTERM, all that can be is handed over to the next process. SIGINT is an end for good.

    Args:
        config: all settings.
        load: reads them anew, on SIGHUP; raises ConfigError where they cannot be used.
        on_ready: called once with the URLs, when the port answers.
        takeover: see :func:`~broadcasterd.server.app.create_app`.

    Raises:
        ConfigError: the keys that verify tokens cannot be used, or the settings do not go with the
            sockets or the journal that are there.
        OSError: the address cannot be bound, or a TLS file cannot be read.
        ExceptionGroup: a task that the daemon cannot do without failed; it was logged.

    """
    run = partial(
        serve,
        config,
        keys=load_keys(config),
        load=load or (lambda: config),
        on_ready=on_ready,
        takeover=takeover,
    )
    with logging_as(config.log):
        try:
            trio.run(run, strict_exception_groups=True)
        except ExceptionGroup as error:
            log.critical("the daemon failed", exc_info=error)
            raise


async def serve(
    config: Config,
    *,
    keys: KeyRing,
    load: Callable[[], Config],
    on_ready: OnReady | None,
    takeover: bool,
) -> None:
    """Run the daemon in this Trio run; see :func:`main`."""
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    restart = Restart(take_listen_fds(os.environ), notifier, os.environ)
    parts = Parts(config, keys, listen(config, restart.others), takeover=takeover)
    hub, server, monitor = parts.hub, parts.server, parts.monitor
    service = Service(
        notifier,
        watchdog=watchdog_period(os.environ),
        status=lambda: _status(hub),
        progress=lambda: hub.counters["supervisor_steps"],
    )
    reloader = Reloader(config, load=load, apply=parts.reconfigure)
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as stops,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        async with trio.open_nursery() as root:
            await root.start(hub.run)
            await restart.restore(hub)
            served = trio.Event()
            urls: list[str] = await root.start(_serve_until_closed, server, served)
            root.start_soon(monitor.loop.run)
            root.start_soon(supervise, hub, monitor.memory_host())
            _warn_of(config)
            spare_the_garbage_collector()
            log.info("ready", urls=urls, version=__version__, python=sys.version.split()[0])
            await service.ready()
            root.start_soon(service.run)
            root.start_soon(_reload_on, hangups, reloader, service)
            if on_ready is not None:
                on_ready(urls)
            is_restart = await anext(stops) == signal.SIGTERM
            grace_s = reloader.config.server.shutdown_grace
            stay = is_restart and restart.keeps_streams(hub)
            log.info("draining", streams=len(hub.subscribers), restart=is_restart, grace_s=grace_s)
            await service.stopping()
            with trio.move_on_after(grace_s) as grace:
                root.start_soon(_end_grace, stops, grace)
                await server.stop_accepting()
                await hub.drain(movable_stay=stay)
                await served.wait()
            if is_restart:
                await restart.hand_over(hub)
            hub.subscribers.disconnect(EndReason.DRAINING)
            server.abort()
            with trio.move_on_after(ABORT_GRACE_S):
                await served.wait()
            root.cancel_scope.cancel()
    log.info("stopped")


def listen(config: Config, handed: Sequence[HandedOver] = ()) -> list[socket.socket]:
    """Return the sockets that systemd handed over, or else those of the settings.

    Raises:
        ConfigError: a socket that was handed over lets in whom the settings do not.
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


def _warn_of(config: Config) -> None:
    if not config.memory.breaker:
        log.warning("the memory breaker is off: nothing bounds what events may take")
    if config.auth.mode == "none":
        log.warning('auth.mode = "none": whoever reaches the port may do anything')


def spare_the_garbage_collector() -> None:
    """Let it look less often, and not at what lives as long as the daemon.

    Each of its full passes visits every object and stops the loop meanwhile: 20 ms for a thousand
    sessions. What it is needed for, the cycles that a request leaves behind, is nearly all found
    by the passes over what is young, and just as well in thousands.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 10, 100)


async def _serve_until_closed(
    server: HttpServer, served: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await server.run(task_status=task_status)
    served.set()


async def _reload_on(hangups: AsyncIterator[int], reloader: Reloader, service: Service) -> None:
    async for _ in hangups:
        await service.reloading()
        why = await reloader.reload()
        service.remark = f"the last reload was refused: {why}" if why else ""
        await service.ready()


def _status(hub: Hub) -> str:
    """Return what ``systemctl status`` shows."""
    counts = f"{len(hub.sessions)} sessions, {len(hub.subscribers)} subscribers"
    line = f"{counts}, breaker {hub.pressure.state or 'off'}"
    return f"draining: {line}" if hub.draining else line


async def _end_grace(signals: AsyncIterator[int], grace: trio.CancelScope) -> None:
    await anext(signals)
    log.warning("stopped again: the grace is over")
    grace.cancel()
