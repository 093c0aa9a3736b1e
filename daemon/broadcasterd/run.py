"""The root nursery: what runs, in what order it starts, and how it stops.

``hub`` before ``server`` (requests need it), the supervisor beside them. A stop closes the
listener, tells every subscriber to come back, gives requests ``shutdown_grace`` seconds, and
resets what is left. A failure of any of the three ends the daemon: the error goes up.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable

import structlog
import trio

from broadcasterd import __version__
from broadcasterd.broadcast.hub import Hub
from broadcasterd.broadcast.supervisor import supervise
from broadcasterd.config import Config
from broadcasterd.edge.app import create_app
from broadcasterd.edge.server import Server, bind
from broadcasterd.host.memory import MemoryProbe
from broadcasterd.monitor import Monitor
from broadcasterd.observe.log import logging_to_stderr
from broadcasterd.reasons import EndReason

log = structlog.stdlib.get_logger(__name__)

ABORT_GRACE_S = 1.0
"""What the tasks of connections that were reset need to end by themselves."""

OnReady = Callable[[list[str]], None]


def main(config: Config, *, on_ready: OnReady | None = None, takeover: bool = True) -> None:
    """Run the daemon until SIGTERM or SIGINT; a second one ends the drain.

    Args:
        config: all settings.
        on_ready: called once with the URLs, when the port answers.
        takeover: see :func:`~broadcasterd.edge.app.create_app`.

    Raises:
        OSError: the address cannot be bound, or a TLS file cannot be read.
        ExceptionGroup: a task that the daemon cannot do without failed; it was logged.

    """
    with logging_to_stderr(config.log):
        try:
            trio.run(serve, config, on_ready, takeover, strict_exception_groups=True)
        except ExceptionGroup as error:
            log.critical("the daemon failed", exc_info=error)
            raise


async def serve(config: Config, on_ready: OnReady | None = None, takeover: bool = True) -> None:  # noqa: FBT001, FBT002 (trio.run passes positions)
    """Run the daemon in this Trio run; see :func:`main`."""
    monitor = Monitor(config.memory, MemoryProbe())
    hub = Hub(config.sessions, thresholds=monitor.thresholds if config.memory.breaker else None)
    app = create_app(hub, config, vitals=lambda: monitor.vitals(hub), takeover=takeover)
    server = Server(app, config.server, bind(config.server))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as root:
            await root.start(hub.run)
            served = trio.Event()
            urls: list[str] = await root.start(_serve_until_closed, server, served)
            root.start_soon(monitor.loop.run)
            root.start_soon(supervise, hub, monitor.memory_host())
            if not config.memory.breaker:
                log.warning("the memory breaker is off: nothing bounds what events may take")
            spare_the_garbage_collector()
            log.info("ready", urls=urls, version=__version__, python=sys.version.split()[0])
            if on_ready is not None:
                on_ready(urls)
            await anext(signals)
            log.info("draining", streams=len(hub.streams), grace_s=config.server.shutdown_grace)
            with trio.move_on_after(config.server.shutdown_grace) as grace:
                root.start_soon(_end_grace, signals, grace)
                await server.stop_accepting()
                await hub.drain()
                await served.wait()
            hub.cut(EndReason.DRAINING)
            server.abort()
            with trio.move_on_after(ABORT_GRACE_S):
                await served.wait()
            root.cancel_scope.cancel()
    log.info("stopped")


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
    server: Server, served: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await server.run(task_status=task_status)
    served.set()


async def _end_grace(signals: AsyncIterator[int], grace: trio.CancelScope) -> None:
    await anext(signals)
    log.warning("stopped again: the grace is over")
    grace.cancel()
