"""The client of a program with an event loop: Trio's, or asyncio's."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Self

import anyio
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from httpx_sse import EventSource, ServerSentEvent

from broadcasterd.client.connection import connect, events_url
from broadcasterd.client.exchange import AsyncExchange, AsyncToken, Credentials
from broadcasterd.client.figures import (
    Health,
    SessionFigures,
    Stats,
    end_session,
    get_health,
    get_sessions,
    get_stats,
    get_stats_as_json,
)
from broadcasterd.client.following import BROKEN, ENDED, End, Following, Received
from broadcasterd.client.publishing import (
    MAX_EVENTS,
    RETRY_FOR,
    Event,
    PublishFailed,
    Publishing,
    Receipt,
    event_with,
)


class AsyncClient:
    """A context: inside it asks one daemon, for any number of tasks.

    Args:
        url: where the daemon is.
        token: sent as a bearer token; or what returns one (an async function, too), which is called
            at first, and when the daemon takes the last one no more.
        retry_for: how many seconds an event is sent again and again while it is not acknowledged,
            0 for one attempt. Beyond `sessions.event_ttl` (600 s) events may be broadcast twice.
        proxy: asked through, also for a daemon on loopback.
        notify: called with a sentence for a person, before each wait.

    Raises:
        RequestFailed: at once, a proxy cannot be used; of a call, the daemon refuses, and would go
            on to. What ``token`` raises ends a call as well.
        Unavailable: of a call that looks, the daemon cannot be reached, or is in trouble.

    """

    def __init__(
        self,
        url: str,
        *,
        token: AsyncToken = None,
        retry_for: float = RETRY_FOR,
        proxy: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._base = url.rstrip("/")
        self._retry_for = retry_for
        self._notify = notify
        self._credentials = Credentials(token)
        self._http = connect(httpx.AsyncClient, url, proxy)
        self._exchange = AsyncExchange(self._http, self._credentials)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    # --- to publish --------------------------------------------------------------------------

    async def publish(
        self,
        session: str,
        data: object,
        *,
        event: str | None = None,
        ttl: float | None = None,
        retry: int | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Publish an event; return when the daemon has it.

        Arguments and errors are those of `Client.publish`.
        """
        members = {"ttl": ttl, "retry": retry, "idempotency_key": idempotency_key}
        return await self.publish_many(session, [event_with(data, event=event, **members)])

    async def publish_many(self, session: str, events: Iterable[Event]) -> Receipt:
        """Publish events in order, in as few requests as they fit in; return when all are accepted.

        Raises:
            PublishFailed: the daemon refused one, or could not be reached for too long. Those
                before its ``index`` are broadcast; of those after it, some may be.

        """
        return await self._exchange.run(self._publishing(session).publish(events))

    async def stream(self, session: str, events: AsyncIterable[Event]) -> Receipt:
        """Publish each event as soon as it is made; return when all are accepted.

        What is made while the daemon is being asked goes with the next request. No more than a
        hundred events are made ahead: a daemon that is away, or holds its publishers back, holds
        the source back.

        Args:
            session: its name.
            events: an async generator, for example; it is closed in any case.

        Raises:
            PublishFailed: as in `publish_many`.
            Exception: what the source raised, after what it made before was accepted.

        """
        publishing = self._publishing(session)
        ahead, made = anyio.create_memory_object_stream[Event](MAX_EVENTS)
        failure: Exception | None = None

        async def read() -> None:
            nonlocal failure
            try:
                await _pass_on(events, ahead)
            except Exception as error:  # noqa: BLE001 (raised below, when what it made is accepted)
                failure = error

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            with made:
                try:
                    await self._publish_as_made(publishing, made)
                except PublishFailed as error:
                    failure = error
                    group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return publishing.receipt

    async def _publish_as_made(
        self, publishing: Publishing, made: MemoryObjectReceiveStream[Event]
    ) -> None:
        done = 0
        async for first in made:
            batch = [first, *_there(made)]
            try:
                await self._exchange.run(publishing.publish(batch))
            except PublishFailed as failed:
                failed.index += done
                raise
            done += len(batch)
        if not done:
            await self._exchange.run(publishing.publish([]))

    async def end(self, session: str) -> None:
        """End a session, if there is one: its listeners are told not to come back."""
        await self._exchange.run(end_session(self._base, session, self._credentials))

    def _publishing(self, session: str) -> Publishing:
        return Publishing(
            events_url(self._base, session),
            self._credentials,
            retry_for=self._retry_for,
            notify=self._notify,
        )

    # --- to listen ---------------------------------------------------------------------------

    def subscribe(
        self, session: str, *, start: str | None = None, last_event_id: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Received]]:
        """Return a context with the events of a session, across reconnects, each exactly once.

        Arguments, errors and what ends the iteration are those of `Client.subscribe`.
        """
        following = Following(
            events_url(self._base, session),
            self._credentials,
            start=start,
            last_event_id=last_event_id,
            notify=self._notify,
        )
        return aclosing(self._follow(following))

    async def _follow(self, following: Following) -> AsyncGenerator[Received, None]:
        while True:
            await self._exchange.get_ready()
            try:
                async with aclosing(await self._exchange.open(following.ask())) as response:
                    if following.is_over(response):
                        return
                    if response.status_code == HTTPStatus.OK:
                        pause = ENDED
                        async with _events_of(response) as stream:
                            async for sse in stream:
                                event = following.take(sse)
                                if event is not None:
                                    yield event
                                if isinstance(event, End) and not event.reconnect:
                                    return
                    else:
                        await response.aread()
                        pause = following.refused(response)
            except BROKEN as error:
                pause = following.broken(error)
            await self._exchange.run(following.come_back(pause))

    # --- to look -----------------------------------------------------------------------------

    async def sessions(self) -> AsyncIterator[SessionFigures]:
        """Yield each open session, by name. It takes an admin's token."""
        cursor: str | None = ""
        while cursor is not None:
            page = await self._exchange.run(get_sessions(self._base, self._credentials, cursor))
            for session in page.sessions:
                yield session
            cursor = page.next

    async def health(self) -> Health:
        """Return the answer of ``/health``, also of a daemon that says that it is unhealthy."""
        return await self._exchange.run(get_health(self._base, self._credentials))

    async def stats(self) -> Stats:
        """Return the answer of ``/stats``. It takes an admin's token."""
        return await self._exchange.run(get_stats(self._base, self._credentials))

    async def stats_as_json(self) -> str:
        """Return the same as it came."""
        return await self._exchange.run(get_stats_as_json(self._base, self._credentials))


@asynccontextmanager
async def _events_of(
    response: httpx.Response,
) -> AsyncGenerator[AsyncIterator[ServerSentEvent], None]:
    """Decode a response while inside; it is closed in the end, with all that reads from it."""
    stream = EventSource(response).aiter_sse()
    try:
        yield stream
    finally:
        # What reads are generators in layers that do not close each other: an end ends them all.
        await response.aclose()
        with suppress(*BROKEN):
            async for _ in stream:
                pass


async def _pass_on(events: AsyncIterable[Event], ahead: MemoryObjectSendStream[Event]) -> None:
    with ahead:
        try:
            async for event in events:
                await ahead.send(event)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()


def _there(made: MemoryObjectReceiveStream[Event]) -> Iterator[Event]:
    """Yield what is there already, and waits for nobody."""
    with suppress(anyio.WouldBlock, anyio.EndOfStream):
        while True:
            yield made.receive_nowait()
