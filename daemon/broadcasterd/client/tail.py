"""`tail`: the events of one session, across reconnects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from httpx_sse import EventSource, SSEError, connect_sse

from broadcasterd.client.connection import (
    MAX_WAIT,
    UNUSABLE,
    Pause,
    RequestFailed,
    authorization,
    backoff,
    cause,
    connect,
    is_passing,
    refusal,
    retry_after,
    shown,
)

DEFAULT_RETRY = 3.0  # seconds: the daemon's own default, until its `retry:` says otherwise
OWN_PREFIX = "broadcaster."  # of the events that the daemon makes itself: nobody can publish these

# A stream is silent for one heartbeat (15 s by default) at most; four missed ones mean that it is
# dead. A daemon with slower heartbeats costs a needless reconnect, which resumes where it was.
_STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)
# What another attempt would not change.
_FINAL = (
    SSEError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.TooManyRedirects,
    *UNUSABLE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One event as it came."""

    id: str
    event: str
    data: str

    @property
    def by_daemon(self) -> bool:
        """Whether the daemon made it itself."""
        return self.event.startswith(OWN_PREFIX)

    @property
    def final(self) -> bool:
        """Whether the daemon said not to come back."""
        return self._said("end").get("reconnect") is False

    @property
    def loses_all(self) -> bool:
        """Whether it tells of a gap, and no event follows: then its position does, as an id."""
        return self._said("gap").get("oldest", "") is None

    def _said(self, name: str) -> dict[str, object]:
        """Return what the daemon said in its own event of this name; nothing in any other."""
        if self.event != f"{OWN_PREFIX}{name}":
            return {}
        try:
            said = json.loads(self.data)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def as_json(self) -> str:
        """Return id, event and data as one line of JSON."""
        fields = {"id": self.id, "event": self.event, "data": self.data}
        return json.dumps(fields, ensure_ascii=False)


class Tail:
    """The events of one session, across reconnects, each exactly once; iterate over it once.

    The iteration ends when the session has ended. Any other end of a stream (the network, a
    restart, a daemon in trouble) is told to `notify`, and the stream is tried again from the last
    event's id.

    Args:
        url: what `events_url` returned.
        start: where to begin without an id: `start` (also when None), `now`, `last:N` or a time.
        last_event_id: begin after this event instead.
        token: sent as a bearer token.
        proxy: asked through, also for a daemon on loopback.
        notify: called with a sentence for a person, before each wait.
        sleep: waits; takes seconds.

    Raises:
        RequestFailed: on iteration, when the daemon's answer will not change by asking again.
    """

    def __init__(
        self,
        url: str,
        *,
        start: str | None = None,
        last_event_id: str | None = None,
        token: str | None = None,
        proxy: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url
        self._start = start
        self._cursor = last_event_id
        self._token = token
        self._proxy = proxy
        self._notify = notify
        self._sleep = sleep
        self._retry = DEFAULT_RETRY
        self._failures = 0  # in a row, without a stream between them

    def __iter__(self) -> Iterator[Received]:
        with connect(self._url, self._proxy, _STREAM_TIMEOUT) as client:
            client.follow_redirects = True
            while (pause := (yield from self._attempt(client))) is not None:
                delay = backoff(self._retry, self._failures, at_least=pause.at_least)
                self._failures += 1
                self._notify(f"{pause.why}; next attempt in {delay:.1f} s")
                self._sleep(delay)

    def _attempt(self, client: httpx.Client) -> Generator[Received, None, Pause | None]:
        """Yield what one connection brings; return why to pause, or None at the session's end."""
        headers = authorization(self._token)
        if self._cursor is not None:
            headers["Last-Event-ID"] = self._cursor
        params = {} if self._start is None else {"from": self._start}
        try:
            with connect_sse(client, "GET", self._url, params=params, headers=headers) as source:
                response = source.response
                if response.status_code == HTTPStatus.NO_CONTENT:
                    return None
                if response.status_code == HTTPStatus.OK:
                    self._failures = 0
                    return (yield from self._stream(source))
                response.read()
                if not is_passing(response.status_code):
                    raise RequestFailed(refusal(response))
                return Pause(refusal(response), at_least=retry_after(response))
        except _FINAL as error:
            raise RequestFailed(f"{shown(self._url)}: {cause(error, self._url)}") from error
        except httpx.TransportError as error:
            return Pause(f"{shown(self._url)}: {cause(error, self._url)}")

    def _stream(self, source: EventSource) -> Generator[Received, None, Pause | None]:
        # Every start but `start` itself is answered with an id before any event (contract), so
        # that a client that is cut early resumes there. It looks like an event without data.
        position_may_follow = self._cursor is not None or self._start not in {None, "start"}
        for sse in source.iter_sse():
            # The decoder repeats the last id on events without one: only a new id is an id.
            moved = bool(sse.id) and sse.id != self._cursor
            if moved:
                self._cursor = sse.id
            if sse.retry is not None and sse.retry >= 0:
                self._retry = min(sse.retry, 1000 * MAX_WAIT) / 1000
            # The decoder makes an empty event of every blank line, which by the standard is none.
            position_only = not moved or position_may_follow
            position_may_follow = False
            if position_only and not sse.data and sse.event == "message":
                continue
            event = Received(id=sse.id, event=sse.event, data=sse.data)
            position_may_follow = event.loses_all
            yield event
            if event.final:
                return None
        return Pause("the stream ended")
