"""The tasks of one connection, and how they are told what comes for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import NoReturn

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.task_group import TaskGroup, _handle
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPDisconnectEvent,
    Scope,
)
from typing_extensions import override


class Tasks(TaskGroup):
    """A connection's tasks. No application holds up its connection, or is left uninformed.

    Upstream, what comes for one that has ended waits for room in a queue that nobody reads; and
    so does the news that the client is gone, which whoever brings it may not live to deliver.

    Attributes:
        on_taken: is told of a stream, and of so many bytes that its application took of the body.

    """

    on_taken: Callable[[int, int], Awaitable[None]]

    @override
    async def spawn_app(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Run the application for one request; return what takes the messages for it."""
        # What is in it is bounded in bytes: by the window of the stream, which opens as it is read.
        queue, messages = trio.open_memory_channel[ASGIReceiveEvent](inf)
        stream_id = _stream_of(send)

        async def run_app(
            scope: Scope,
            receive: ASGIReceiveCallable,
            send: ASGISendCallable,
            *threads: Callable[..., object],
        ) -> None:
            with messages:
                await app(scope, receive, send, *threads)

        async def put(message: ASGIReceiveEvent) -> None:
            if message["type"] == "http.disconnect":
                queue.close()
            else:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    queue.send_nowait(message)

        async def receive() -> ASGIReceiveEvent:
            try:
                message = await messages.receive()
            except trio.EndOfChannel:
                return HTTPDisconnectEvent(type="http.disconnect")
            if message["type"] == "http.request" and message["more_body"]:
                await self.on_taken(stream_id, len(message["body"]))
            return message

        # Upstream offers two ways into a thread, for WSGI, which is not spoken here.
        self.spawn(_handle, run_app, config, scope, receive, send, _no_thread, _no_thread)
        return put


def _stream_of(send: Callable[[ASGISendEvent | None], Awaitable[None]]) -> int:
    """Return the id of the stream whose application sends so."""
    stream = getattr(send, "__self__", None)
    assert isinstance(stream, HTTPStream)  # noqa: S101 (Hypercorn has it send so)
    return stream.stream_id


def _no_thread(*_: object) -> NoReturn:
    raise AssertionError("no thread touches state")
