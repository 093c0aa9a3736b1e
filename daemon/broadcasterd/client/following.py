"""To listen: where a listener is in a session's events, and what to do next. It does no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from httpx_sse import ServerSentEvent, SSEError

from broadcasterd.client.connection import (
    MAX_WAIT,
    UNUSABLE,
    Pause,
    RequestFailed,
    backoff,
    cause,
    is_passing,
    refusal,
    retry_after,
    shown,
)
from broadcasterd.client.exchange import Ask, Call, Credentials, Renew, Wait

DEFAULT_RETRY = 3.0  # seconds: the daemon's own default, until its `retry:` says otherwise
OWN_PREFIX = "broadcaster."  # of the events that the daemon makes itself: nobody can publish these

# A stream is silent for one heartbeat (15 s by default) at most; four missed ones mean that it is
# dead. A daemon with slower heartbeats costs a needless reconnect, which resumes where it was.
_TIMEOUT = httpx.Timeout(10.0, read=60.0)
# What another attempt would not change.
_FINAL = (
    SSEError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.TooManyRedirects,
    *UNUSABLE,
)
_HEADERS = {"Accept": "text/event-stream", "Cache-Control": "no-store"}

BROKEN = (httpx.HTTPError, SSEError, *UNUSABLE)
"""What a stream may end with, beside its end."""


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

    def json(self) -> object:
        """Return what its data is in JSON.

        Raises:
            ValueError: it is none.

        """
        return json.loads(self.data)

    def as_json(self) -> str:
        """Return id, event and data as one line of JSON."""
        fields = {"id": self.id, "event": self.event, "data": self.data}
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Received):
    """Events were lost: those after ``asked``, before ``oldest`` (``None``: nothing is left)."""

    asked: str | None
    oldest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Received):
    """The stream ends: why, and whether it is asked for again."""

    reason: str
    reconnect: bool


class Following:
    """A listener's place in the events of one session, across reconnects.

    Args:
        url: what `events_url` returned.
        credentials: of the requests.
        start: where to begin without an id: `start` (also when None), `now`, `last:N` or a time.
        last_event_id: begin after this event instead.
        notify: called with a sentence for a person, before each wait.

    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        start: str | None = None,
        last_event_id: str | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._start = start
        self._cursor = last_event_id
        self._notify = notify
        self._retry = DEFAULT_RETRY
        self._failures = 0  # in a row, without a stream between them
        self._is_expired = False  # the token of the last stream
        self._is_denied = False  # that of the last attempt
        self._is_renewed = False  # whether the token was got for this very attempt
        self._position_may_follow = False

    def ask(self) -> Ask:
        """Return the request for what follows."""
        resume = {} if self._cursor is None else {"Last-Event-ID": self._cursor}
        return Ask(
            url=self._url,
            timeout=_TIMEOUT,
            params={} if self._start is None else {"from": self._start},
            headers={**_HEADERS, **resume},
        )

    def is_over(self, response: httpx.Response) -> bool:
        """Tell an ended session from a stream that begins."""
        # Every start but `start` itself is answered with an id before any event (contract), so
        # that a client that is cut early resumes there. It looks like an event without data.
        self._position_may_follow = self._cursor is not None or self._start not in {None, "start"}
        if response.status_code == HTTPStatus.OK:
            self._failures = 0
            self._is_renewed = False
        return response.status_code == HTTPStatus.NO_CONTENT

    def refused(self, response: httpx.Response) -> Pause:
        """Return why to ask again later, of an answer that is no stream, and was read.

        Raises:
            RequestFailed: that would not change it.

        """
        why = refusal(response)
        is_unauthorized = response.status_code == HTTPStatus.UNAUTHORIZED
        if is_unauthorized and self._credentials.renewable and not self._is_renewed:
            self._is_denied = True
            return Pause(why)
        if not is_passing(response.status_code):
            raise RequestFailed(why)
        return Pause(why, at_least=retry_after(response))

    def broken(self, error: Exception) -> Pause:
        """Return why to ask again later, of one of `BROKEN`.

        Raises:
            RequestFailed: that would not change it.

        """
        why = f"{shown(self._url)}: {cause(error, self._url)}"
        if isinstance(error, _FINAL):
            raise RequestFailed(why) from error
        return Pause(why)

    def take(self, sse: ServerSentEvent) -> Received | None:
        """Return the event that the decoder's is; none where it only moves the place."""
        # The decoder repeats the last id on events without one: only a new id is an id.
        moved = bool(sse.id) and sse.id != self._cursor
        if moved:
            self._cursor = sse.id
        if sse.retry is not None and sse.retry >= 0:
            self._retry = min(sse.retry, 1000 * MAX_WAIT) / 1000
        # The decoder makes an empty event of every blank line, which by the standard is none.
        position_only = not moved or self._position_may_follow
        self._position_may_follow = False
        if position_only and not sse.data and sse.event == "message":
            return None
        event = _event(sse)
        match event:
            case Gap():  # where no event follows it, its position does, as an id
                self._position_may_follow = event.oldest is None
            case End():
                self._is_expired = event.reason == "token_expired"
        return event

    def come_back(self, pause: Pause) -> Call[None]:
        """Wait for the next attempt; get another token for it, where that is what it lacks."""
        needs_token = self._is_denied or self._is_expired
        if not self._is_denied:
            wait = backoff(self._retry, self._failures, at_least=pause.at_least)
            self._failures += 1
            self._notify(f"{pause.why}; next attempt in {wait:.1f} s")
            yield Wait(wait)
        if needs_token:
            yield Renew()
        self._is_renewed, self._is_denied, self._is_expired = needs_token, False, False


ENDED = Pause("the stream ended")


def _event(sse: ServerSentEvent) -> Received:
    said = _said(sse)
    plain = {"id": sse.id, "event": sse.event, "data": sse.data}
    match sse.event.removeprefix(OWN_PREFIX):
        case "gap" if said:
            return Gap(**plain, asked=_text(said, "asked"), oldest=_text(said, "oldest"))
        case "end" if said:
            reason, reconnect = _text(said, "reason") or "", said.get("reconnect") is not False
            return End(**plain, reason=reason, reconnect=reconnect)
    return Received(**plain)


def _said(sse: ServerSentEvent) -> dict[str, object]:
    """Return what the daemon said in an event of its own; nothing in any other."""
    if not sse.event.startswith(OWN_PREFIX):
        return {}
    try:
        said = json.loads(sse.data)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _text(said: dict[str, object], member: str) -> str | None:
    text = said.get(member)
    return text if isinstance(text, str) else None
