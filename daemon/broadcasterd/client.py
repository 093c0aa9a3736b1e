"""The HTTP client of `publish` and `tail`: their requests, and how they take the answers.

It is synchronous, and independent of the daemon's own code: it knows the contract and nothing else.
It never prints and never exits; the command line does both.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import httpx
from httpx_sse import EventSource, SSEError, connect_sse

DEFAULT_RETRY = 3.0  # seconds: the daemon's own default, until its `retry:` says otherwise
OWN_PREFIX = "broadcaster."  # of the events that the daemon makes itself: nobody can publish these
MIN_WAIT = 0.1  # seconds: whatever a daemon says, nobody comes back at once again and again
MAX_WAIT = 3600.0  # seconds: nor is a hint believed that would mean never
MAX_BACKOFF = 60.0  # seconds: long enough to spare a daemon in trouble, short enough to wait for
_MAX_DOUBLINGS = 16  # from the shortest wait to beyond the longest

# A stream is silent for one heartbeat (15 s by default) at most; four missed ones mean that it is
# dead. A daemon with slower heartbeats costs a needless reconnect, which resumes where it was.
_STREAM_TIMEOUT = httpx.Timeout(10.0, read=60.0)
# Writing may take as long as the daemon holds a publisher back, which it does on purpose.
_PUBLISH_TIMEOUT = httpx.Timeout(30.0, write=None)


_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
# What httpx raises for a URL that it cannot use, beside its own errors: of a proxy, of a redirect,
# of a name that IDNA does not know, of a port that is none.
_UNUSABLE = (httpx.InvalidURL, ImportError, ValueError, OverflowError)
# What another attempt would not change.
_FINAL = (
    SSEError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
    httpx.TooManyRedirects,
    *_UNUSABLE,
)


_NUMBER = re.compile(r"^\[Errno -?[0-9]+\] ")  # it says nothing that the words do not


class RequestFailed(Exception):  # noqa: N818 (it is the daemon's answer, not an error in here)
    """The daemon refused, or could not be reached; the text is for a person."""


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


def events_url(base: str, session: str) -> str:
    """Return the one URL that both publishes to and streams a session."""
    return f"{base.rstrip('/')}/v1/sessions/{quote(session, safe='~:')}/events"


def publish(
    url: str,
    body: bytes | Iterator[bytes],
    *,
    content_type: str,
    token: str | None = None,
    proxy: str | None = None,
) -> str:
    """Send events and return the daemon's answer, a JSON text.

    An iterator is sent as its parts come, in one request. A redirect is not followed: what was
    sent would have to be sent again, and an iterator cannot.

    Raises:
        RequestFailed: the daemon refused, or the connection failed.
    """
    headers = _authorization(token) | {"Content-Type": content_type}
    with _client(url, proxy, _PUBLISH_TIMEOUT) as client:
        try:
            response = client.post(url, content=body, headers=headers)
        except (httpx.HTTPError, *_UNUSABLE) as error:
            raise RequestFailed(f"{_shown(url)}: {_cause(error, url)}") from error
    if response.next_request is not None:
        elsewhere = _shown(str(response.next_request.url))
        raise RequestFailed(f"{_refusal(response)}: publish to {elsewhere}")
    if response.status_code != HTTPStatus.OK:
        raise RequestFailed(_refusal(response))
    return response.text


def backoff(retry: float, failures: int, *, at_least: float = 0.0) -> float:
    """Return how many seconds to wait before the next attempt.

    The wait is never less than the daemon asked for (`retry`, `at_least`: seconds), within what is
    believed at all. It grows with each failure in a row up to `MAX_BACKOFF`, and is jittered: the
    clients of a daemon that fell over do not come back as one.
    """
    first = min(max(retry, MIN_WAIT), MAX_WAIT)
    grown = first * 2.0 ** min(failures, _MAX_DOUBLINGS) * random.uniform(1.0, 1.5)  # noqa: S311 (not a secret)
    return min(max(min(grown, MAX_BACKOFF), first, at_least), MAX_WAIT)


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
        with _client(self._url, self._proxy, _STREAM_TIMEOUT) as client:
            client.follow_redirects = True
            while (pause := (yield from self._attempt(client))) is not None:
                delay = backoff(self._retry, self._failures, at_least=pause.at_least)
                self._failures += 1
                self._notify(f"{pause.why}; next attempt in {delay:.1f} s")
                self._sleep(delay)

    def _attempt(self, client: httpx.Client) -> Generator[Received, None, _Pause | None]:
        """Yield what one connection brings; return why to pause, or None at the session's end."""
        headers = _authorization(self._token)
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
                if not _is_passing(response.status_code):
                    raise RequestFailed(_refusal(response))
                return _Pause(_refusal(response), at_least=_retry_after(response))
        except _FINAL as error:
            raise RequestFailed(f"{_shown(self._url)}: {_cause(error, self._url)}") from error
        except httpx.TransportError as error:
            return _Pause(f"{_shown(self._url)}: {_cause(error, self._url)}")

    def _stream(self, source: EventSource) -> Generator[Received, None, _Pause | None]:
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
        return _Pause("the stream ended")


@dataclass(frozen=True, slots=True)
class _Pause:
    why: str
    at_least: float = 0.0  # seconds


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _is_passing(status: int) -> bool:
    """Tell a bad moment from a bad request."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of `Retry-After`; its other form, a date, is not worth a clock."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _client(url: str, proxy: str | None, timeout: httpx.Timeout) -> httpx.Client:
    """Return a client that asks through ``proxy``, or through those of the environment.

    Those are for other machines: a daemon on loopback is asked directly.

    Raises:
        RequestFailed: a proxy cannot be used.
    """
    from_environment = proxy is None and not _is_loopback(url)
    try:
        return httpx.Client(
            timeout=timeout,
            proxy=proxy,
            trust_env=from_environment,
            # Of the environment, certificates count in any case (SSL_CERT_FILE).
            verify=httpx.create_ssl_context() if url.startswith("https:") else True,
        )
    except _UNUSABLE as error:
        named = " and ".join(sorted(name for name in os.environ if name.upper() in _PROXIES))
        whose = f"the proxy of {named or 'the environment'}" if from_environment else "the proxy"
        why = _cause(error).partition(". ")[0]
        raise RequestFailed(f"{_shown(url)}: {whose} cannot be used: {why}") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 §6.3


def _shown(url: str) -> str:
    """Return a URL without a name and password in it."""
    return re.sub(r"(?<=//)[^/@]*@", "", url)


def _refusal(response: httpx.Response) -> str:
    """Repeat the daemon's words: its problem document (RFC 9457), or as much as there is."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    whose = f"{status} from {_shown(str(response.request.url))}"
    try:
        problem = response.json()
    except ValueError:
        return whose
    if not isinstance(problem, dict):
        return whose
    told = [str(problem[member]) for member in ("title", "detail") if problem.get(member)]
    return ": ".join([whose, *(text for text in told if text != response.reason_phrase)])


def _cause(error: Exception, url: str = "") -> str:
    """Say what went wrong without error numbers, and what it means where a scheme is wrong."""
    text = _NUMBER.sub("", str(error)) or type(error).__name__
    if "WRONG_VERSION_NUMBER" in text:
        return "no TLS is spoken there (is it http:// ?)"
    is_cut = "without sending a response" in text or "reset by peer" in text
    if is_cut and url.startswith("http:"):
        return f"{text} (is it https:// ?)"
    return text
