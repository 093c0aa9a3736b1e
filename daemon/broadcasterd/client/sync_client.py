"""The client of a program that has no event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from http import HTTPStatus
from types import TracebackType
from typing import Self

import httpx
from httpx_sse import EventSource

from broadcasterd.client.connection import connect, events_url
from broadcasterd.client.exchange import Credentials, Exchange, Token
from broadcasterd.client.figures import (
    Health,
    SessionFigures,
    Stats,
    end_session,
    get_health,
    get_sessions,
    get_stats,
)
from broadcasterd.client.following import BROKEN, ENDED, End, Following, Received
from broadcasterd.client.lines import Source, event_of, lines_as_they_come
from broadcasterd.client.publishing import (
    RETRY_FOR,
    Event,
    PublishFailed,
    Publishing,
    Receipt,
    event_with,
)


class Client:
    """A context: inside it asks one daemon, in one thread at a time.

    Args:
        url: where the daemon is.
        token: sent as a bearer token; or what returns one, which is called at first, and when the
            daemon takes the last one no more.
        retry_for: how many seconds an event is sent again and again while it is not acknowledged,
            0 for one attempt. Beyond `sessions.event_ttl` (600 s) events may be broadcast twice.
        proxy: asked through, also for a daemon on loopback.
        notify: called with a sentence for a person, before each wait.
        sleep: waits; takes seconds.
        now: tells seconds of a clock that is not set.

    Raises:
        RequestFailed: at once, a proxy cannot be used; of a call, the daemon refuses, and would go
            on to. What ``token`` raises ends a call as well.
        Unavailable: of a call that looks, the daemon cannot be reached, or is in trouble.

    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        retry_for: float = RETRY_FOR,
        proxy: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = url.rstrip("/")
        self._retry_for = retry_for
        self._notify = notify
        self._now = now
        self._credentials = Credentials(token)
        self._http = connect(httpx.Client, url, proxy)
        self._exchange = Exchange(self._http, self._credentials, sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # --- to publish --------------------------------------------------------------------------

    def publish(
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

        Args:
            session: its name.
            data: a text, or anything that JSON can say.
            event: the event's name; without it, it is a plain message.
            ttl: seconds that it is replayed, if less than the daemon says.
            retry: the reconnection time of listeners from now on, in milliseconds.
            idempotency_key: the same key again is not broadcast twice; without it, a retry is safe
                all the same, but another call is another event.

        Raises:
            PublishFailed: the daemon refused it, or could not be reached for too long.

        """
        members = {"ttl": ttl, "retry": retry, "idempotency_key": idempotency_key}
        return self.publisher(session).publish(event_with(data, event=event, **members))

    def publish_many(self, session: str, events: Iterable[Event]) -> Receipt:
        """Publish events in order, in as few requests as they fit in; return when all are accepted.

        Raises:
            PublishFailed: as in `publish`; its ``index`` says where.

        """
        return self.publisher(session).publish(*events)

    def stream(self, session: str, events: Iterable[Event]) -> Receipt:
        """Publish each event as soon as it is made; return when all are accepted.

        Nothing more is made until the daemon has the last one.

        Raises:
            PublishFailed: as in `publish`.

        """
        publisher = self.publisher(session)
        for number, event in enumerate(events):
            try:
                publisher.publish(event)
            except PublishFailed as failed:
                failed.index = number
                raise
        return publisher.receipt

    def publisher(self, session: str) -> Publisher:
        """Return what publishes to one session, and counts what it did."""
        publishing = Publishing(
            events_url(self._base, session),
            self._credentials,
            retry_for=self._retry_for,
            notify=self._notify,
            now=self._now,
        )
        return Publisher(self._exchange, publishing)

    def end(self, session: str) -> None:
        """End a session, if there is one: its listeners are told not to come back."""
        self._exchange.run(end_session(self._base, session, self._credentials))

    # --- to listen ---------------------------------------------------------------------------

    def subscribe(
        self, session: str, *, start: str | None = None, last_event_id: str | None = None
    ) -> AbstractContextManager[Iterator[Received]]:
        """Return a context with the events of a session, across reconnects, each exactly once.

        The iteration ends when the daemon says that it is not worth coming back. Any other end of a
        stream (the network, a restart, a daemon in trouble) is told to `notify`, and the stream is
        asked for again from the last event on, for ever. Of what the daemon says itself, a `Gap`
        tells that events were lost, and an `End` why a stream ends.

        Args:
            session: its name.
            start: where to begin without an id: ``start`` (everything retained, also when
                ``None``), ``now``, ``last:N`` or a time.
            last_event_id: begin after this event instead.

        Raises:
            RequestFailed: on iteration, when the daemon's answer will not change by asking again.

        """
        following = Following(
            events_url(self._base, session),
            self._credentials,
            start=start,
            last_event_id=last_event_id,
            notify=self._notify,
        )
        return closing(self._follow(following))

    def _follow(self, following: Following) -> Generator[Received, None, None]:
        while True:
            self._exchange.get_ready()
            try:
                with closing(self._exchange.open(following.ask())) as response:
                    if following.is_over(response):
                        return
                    if response.status_code == HTTPStatus.OK:
                        pause = ENDED
                        for sse in EventSource(response).iter_sse():
                            event = following.take(sse)
                            if event is not None:
                                yield event
                            if isinstance(event, End) and not event.reconnect:
                                return
                    else:
                        response.read()
                        pause = following.refused(response)
            except BROKEN as error:
                pause = following.broken(error)
            self._exchange.run(following.come_back(pause))

    # --- to look -----------------------------------------------------------------------------

    def sessions(self) -> Iterator[SessionFigures]:
        """Yield each open session, by name. It takes an admin's token."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._exchange.run(get_sessions(self._base, self._credentials, cursor))
            yield from page.sessions
            cursor = page.next

    def health(self) -> Health:
        """Return the answer of ``/health``, also of a daemon that says that it is unhealthy."""
        return self._exchange.run(get_health(self._base, self._credentials))

    def stats(self) -> Stats:
        """Return the answer of ``/stats``. It takes an admin's token."""
        return self._exchange.run(get_stats(self._base, self._credentials))


class Publisher:
    """Publishes to one session: what `Client.publisher` returns.

    Args:
        exchange: asks the daemon.
        publishing: knows what.

    """

    def __init__(self, exchange: Exchange, publishing: Publishing) -> None:
        self._exchange = exchange
        self._publishing = publishing

    @property
    def receipt(self) -> Receipt:
        """What was acknowledged so far."""
        return self._publishing.receipt

    def publish(self, *events: Event) -> Receipt:
        """Publish events in order; return when all are accepted.

        With none, the daemon is asked whether it would take any.

        Raises:
            PublishFailed: the daemon refused one, or could not be reached for too long. Those
                before it are broadcast; of those after it, some may be.

        """
        return self._exchange.run(self._publishing.publish(events))

    def publish_lines(
        self, source: Source, *, event: str | None = None, ndjson: bool = False
    ) -> Receipt:
        """Publish each line of a source as it comes; return at its end, when all are accepted.

        What is not acknowledged yet is not read on from, so that a pipe's writer is held back.

        Args:
            source: what is read, such as ``sys.stdin.buffer``.
            event: the events' name; without it they are plain messages.
            ndjson: whether each line is an event in JSON, instead of its data.

        Raises:
            PublishFailed: as in `publish`; ``line`` says where.
            RequestFailed: a line is too long for any daemon.

        """
        before = 0
        is_asked = False
        for lines in lines_as_they_come(source):
            indexes = [n for n, line in enumerate(lines) if line.strip() or not ndjson]
            some = [lines[n] if ndjson else event_of(lines[n], event) for n in indexes]
            try:
                if some:
                    self.publish(*some)
                    is_asked = True
            except PublishFailed as failed:
                failed.line = before + indexes[failed.index] + 1
                raise
            before += len(lines)
        return self.receipt if is_asked else self.publish()
