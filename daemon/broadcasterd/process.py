"""The daemon as a process: how it starts, reloads and stops, by signals and with systemd."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio

from broadcasterd import __version__
from broadcasterd.access.tokens import KeyRing
from broadcasterd.checks import check, check_exposure_of, check_tls_stays
from broadcasterd.config import Config, ConfigError
from broadcasterd.daemon import Daemon
from broadcasterd.figures.counts import Counts
from broadcasterd.handover.kept_configuration import unpack, unpack_before
from broadcasterd.handover.restart import Restart
from broadcasterd.host.control import serve_control
from broadcasterd.host.failed_starts import FailedStarts
from broadcasterd.host.service import Service
from broadcasterd.host.systemd import HandedOver, Notifier, take_listen_fds, watchdog_period
from broadcasterd.observe.log import Reopen, logging_as
from broadcasterd.reload import Reloader, Reloads
from broadcasterd.server.listen import ListeningSocket, adopt, bind
from broadcasterd.stop import stop

log = structlog.stdlib.get_logger(__name__)

OnReady = Callable[[list[str]], None]


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
            await stop(daemon, service, stops, restart if is_restart else None)
            root.cancel_scope.cancel()
    log.info("stopped")


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
