"""Hypercorn and Quart-Trio as they come: to show that a defect which we work around is there.

When an upgrade mends one, the test that shows it fails, and our workaround can go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import hypercorn.trio
import trio
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from tests.support.http1 import Http1


@dataclass(frozen=True, slots=True)
class Stock:
    """A server in this Trio run, and how to stop it."""

    port: int
    stop: trio.Event
    stopped: trio.Event

    async def connect(self) -> Http1:
        """Open a connection. Its stream is for the test to close."""
        return Http1(await trio.open_tcp_stream("127.0.0.1", self.port))


Handler = Callable[[ASGIReceiveCallable, ASGISendCallable], Awaitable[None]]


def answering(handler: Handler) -> ASGIFramework:
    """Return an application without a framework, whose requests are answered by ``handler``."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            await handler(receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return app


@asynccontextmanager
async def stock(app: ASGIFramework, **settings: object) -> AsyncIterator[Stock]:
    """Serve ``app`` with Hypercorn's own Trio worker; ``settings`` are its configuration."""
    config = Config.from_mapping(
        {"bind": ["127.0.0.1:0"], "accesslog": None, "errorlog": None, **settings}
    )
    stop, stopped = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
            run = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
            await run(task_status=task_status)
            stopped.set()

        [url] = await nursery.start(serve)
        yield Stock(int(url.rpartition(":")[2]), stop, stopped)
        nursery.cancel_scope.cancel()
