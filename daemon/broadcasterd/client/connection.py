"""What all clients share: connections, what an answer says, and how long to wait."""

from __future__ import annotations

import ipaddress
import os
import random
import re
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx

MIN_WAIT = 0.1  # seconds: whatever a daemon says, nobody comes back at once again and again
MAX_WAIT = 3600.0  # seconds: nor is a hint believed that would mean never
MAX_BACKOFF = 60.0  # seconds: long enough to spare a daemon in trouble, short enough to wait for
_MAX_DOUBLINGS = 16  # from the shortest wait to beyond the longest

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
# What httpx raises for a URL that it cannot use, beside its own errors: of a proxy, of a redirect,
# of a name that IDNA does not know, of a port that is none.
UNUSABLE = (httpx.InvalidURL, ImportError, ValueError, OverflowError)
_NUMBER = re.compile(r"^\[Errno -?[0-9]+\] ")  # it says nothing that the words do not

# A stream holds its connection for as long as it is open: their number is their owner's affair.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)

_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)


class RequestFailed(Exception):  # noqa: N818 (it is the daemon's answer, not an error in here)
    """The daemon refused, or could not be reached; the text is for a person."""


class Unavailable(RequestFailed):
    """It may be better at another moment."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Why to wait before the next attempt, and how long at least."""

    why: str
    at_least: float = 0.0  # seconds


def events_url(base: str, session: str) -> str:
    """Return the one URL that both publishes to and streams a session."""
    return f"{base.rstrip('/')}/v1/sessions/{quoted(session)}/events"


def quoted(session: str) -> str:
    """Return a session's name as a part of a path."""
    return quote(session, safe="~:")


def backoff(
    retry: float, failures: int, *, at_least: float = 0.0, at_most: float = MAX_BACKOFF
) -> float:
    """Return how many seconds to wait before the next attempt.

    The wait is never less than the daemon asked for (`retry`, `at_least`: seconds), within what is
    believed at all. It grows with each failure in a row up to `at_most`, and is jittered: the
    clients of a daemon that fell over do not come back as one.
    """
    first = min(max(retry, MIN_WAIT), MAX_WAIT)
    grown = first * 2.0 ** min(failures, _MAX_DOUBLINGS) * random.uniform(1.0, 1.5)  # noqa: S311 (not a secret)
    return min(max(min(grown, at_most), first, at_least), MAX_WAIT)


def is_passing(status: int) -> bool:
    """Tell a bad moment from a bad request."""
    return status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def retry_after(response: httpx.Response) -> float:
    """Return the seconds of `Retry-After`; its other form, a date, is not worth a clock."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def connect(kind: type[_Client], url: str, proxy: str | None) -> _Client:
    """Return a client that asks through ``proxy``, or through those of the environment.

    Those are for other machines: a daemon on loopback is asked directly.

    Raises:
        RequestFailed: a proxy cannot be used.
    """
    from_environment = proxy is None and not _is_loopback(url)
    try:
        return kind(
            proxy=proxy,
            trust_env=from_environment,
            # Of the environment, certificates count in any case (SSL_CERT_FILE).
            verify=httpx.create_ssl_context() if url.startswith("https:") else True,
            limits=_LIMITS,
        )
    except UNUSABLE as error:
        named = " and ".join(sorted(name for name in os.environ if name.upper() in _PROXIES))
        whose = f"the proxy of {named or 'the environment'}" if from_environment else "the proxy"
        why = cause(error).partition(". ")[0]
        raise RequestFailed(f"{shown(url)}: {whose} cannot be used: {why}") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 §6.3


def shown(url: str) -> str:
    """Return a URL without a name and password in it."""
    return re.sub(r"(?<=//)[^/@]*@", "", url)


def refusal(response: httpx.Response) -> str:
    """Repeat the daemon's words: its problem document (RFC 9457), or as much as there is."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    whose = f"{status} from {shown(str(response.request.url))}"
    try:
        problem = response.json()
    except ValueError:
        return whose
    if not isinstance(problem, dict):
        return whose
    told = [str(problem[member]) for member in ("title", "detail") if problem.get(member)]
    return ": ".join([whose, *(text for text in told if text != response.reason_phrase)])


def cause(error: Exception, url: str = "") -> str:
    """Say what went wrong without error numbers, and what it means where a scheme is wrong."""
    text = _NUMBER.sub("", _told_by_system(error)) or type(error).__name__
    if "WRONG_VERSION_NUMBER" in text:
        return "no TLS is spoken there (is it http:// ?)"
    is_cut = "without sending a response" in text or "reset by peer" in text
    if is_cut and url.startswith("http:"):
        return f"{text} (is it https:// ?)"
    return text


def _told_by_system(error: BaseException) -> str:
    """Return what the system or OpenSSL said: in Trio, the error itself leaves that out."""
    told = str(error)
    if not told or told.startswith("all attempts to connect"):
        while (deeper := error.__cause__ or error.__context__) is not None:
            error = deeper.exceptions[0] if isinstance(deeper, BaseExceptionGroup) else deeper
        if isinstance(error, ssl.SSLError):
            return str(error)
        if isinstance(error, OSError) and error.errno is not None:
            return os.strerror(error.errno)
    return told
