"""Notices on their way to webhooks. Nobody waits for a receiver; a bad one costs some memory.

Each receiver has a queue, and a task for as long as that is not empty: one that hangs holds up no
other. What a receiver is called is never logged: its URL may be a secret.
"""

from __future__ import annotations

import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from broadcasterd.alerts.notice import Notice, signed_headers
from broadcasterd.config import ConfigError, is_loopback
from broadcasterd.figures.counts import Counts

if TYPE_CHECKING:
    import httpx

log = structlog.stdlib.get_logger(__name__)

ATTEMPT_S = 10.0
"""From the connection to the status. Whoever takes longer is asked again later."""

MIN_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0
"""Twice as long after each failure, half of it at random: many daemons may have one receiver."""

GIVE_UP_AFTER_S = 3600.0
"""What is older is no news."""

QUEUED = 100
"""Notices that wait for one receiver, some 500 bytes each; the oldest is dropped for another."""

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""Statuses below 500 after which it is worth to try again."""


class _Waiting(NamedTuple):
    """A notice, its bytes, and since when it waits, on Trio's clock."""

    news: Notice
    body: bytes
    since: float


class Webhooks:
    """Sends notices, and tries again.

    Args:
        counts: what the daemon counts.
        key: signs, where there is one.
        connect: returns a client for a URL.

    Attributes:
        key: may be replaced; the next attempt is signed with it.

    """

    def __init__(
        self,
        counts: Counts,
        key: bytes | None = None,
        *,
        connect: Callable[[str], httpx.AsyncClient] | None = None,
    ) -> None:
        self.key = key
        self._connect = connect or _client
        self._counts = counts
        self._queues: dict[str, deque[_Waiting]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled; what is not sent by then is lost."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def send(self, url: str, news: Notice) -> None:
        """Have a notice sent, in its turn. Returns at once."""
        waiting = _Waiting(news, msgspec.json.encode(news), trio.current_time())
        queue = self._queues.get(url)
        if queue is None:
            if self._nursery is None:
                raise RuntimeError("run() has not begun")
            self._queues[url] = deque([waiting])
            self._nursery.start_soon(self._serve, url, name="webhook")
            return
        if len(queue) >= QUEUED:
            oldest = queue[1]  # the first is under way
            queue.remove(oldest)
            self._give_up(oldest.news, "too many wait for its receiver")
        queue.append(waiting)

    async def _serve(self, url: str) -> None:
        """Send what waits for a receiver, in order, until there is nothing."""
        queue = self._queues[url]
        try:
            async with self._connect(url) as client:
                while queue:
                    await self._deliver(client, url, queue[0])
                    queue.popleft()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is no reason to stop serving)
            while queue:
                self._give_up(queue.popleft().news, type(error).__name__)
        finally:
            del self._queues[url]

    async def _deliver(self, client: httpx.AsyncClient, url: str, waiting: _Waiting) -> None:
        """Send a notice as often as it takes; at last, give it up."""
        news, backoff = waiting.news, MIN_BACKOFF_S
        for attempt in count(1):
            headers = signed_headers(self.key, news.id, waiting.body, at=time.time())
            outcome = await _attempt(client, url, waiting.body, headers)
            if outcome.is_delivered:
                self._counts.notices_delivered += 1
                log.info("alert delivered", **_fields(news), attempts=attempt)
                return
            # The jitter is no secret.
            wait = max(outcome.retry_after, random.uniform(0.5, 1.0) * backoff)  # noqa: S311
            if outcome.is_final or trio.current_time() + wait > waiting.since + GIVE_UP_AFTER_S:
                self._give_up(news, outcome.why, attempt)
                return
            if attempt == 1:
                log.warning("alert delayed", **_fields(news), why=outcome.why)
            await trio.sleep(wait)
            backoff = min(2 * backoff, MAX_BACKOFF_S)

    def _give_up(self, news: Notice, why: str, attempts: int | None = None) -> None:
        self._counts.notices_lost += 1
        log.error("alert not delivered", **_fields(news), why=why, attempts=attempts)


# --- one attempt -----------------------------------------------------------------------------


class _Outcome(NamedTuple):
    """What came of an attempt.

    Attributes:
        why: what went wrong; nothing where it is delivered.
        is_final: whether another attempt would be in vain.
        retry_after: seconds that the receiver asks to wait.

    """

    why: str = ""
    is_final: bool = False
    retry_after: float = 0.0

    @property
    def is_delivered(self) -> bool:
        return not self.why


async def _attempt(
    client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str]
) -> _Outcome:
    """Send a notice once. Of the answer only the head is read: nobody knows how long it is."""
    try:
        with trio.fail_after(ATTEMPT_S):
            async with client.stream("POST", url, content=body, headers=headers) as response:
                status = response.status_code
                asked = response.headers.get("Retry-After", "")
    except trio.TooSlowError:
        return _Outcome(f"no answer within {ATTEMPT_S:.0f} s")
    except Exception as error:  # noqa: BLE001 (httpx raises more than its own: of names, of proxies)
        return _Outcome(_why(error))
    if status in range(200, 300):
        return _Outcome()
    is_final = status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING
    retry_after = min(float(asked), MAX_BACKOFF_S) if asked.isascii() and asked.isdigit() else 0.0
    return _Outcome(f"it answered {status}", is_final, retry_after)


def _why(error: BaseException) -> str:
    """Say what went wrong, without any text that a URL could be in."""
    for each in _causes(error):
        if isinstance(each, ssl.SSLError) and each.reason:
            return f"{type(error).__name__}: {each.reason}"
        if isinstance(each, OSError) and each.strerror:
            return f"{type(error).__name__}: {each.strerror}"
    return type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):  # of the addresses of a name
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__


def _fields(news: Notice) -> dict[str, object]:
    return {"alert": news.alert, "state": news.status, "action": news.action, "notice": news.id}


# --- the client ------------------------------------------------------------------------------


def prepare(urls: Iterable[str]) -> None:
    """Load what these need: it takes 50 ms and some megabytes, so only where there are any.

    Raises:
        ConfigError: it cannot be used, as certificates that the environment names.

    """
    for url in urls:
        try:
            _client(url)
        except Exception as error:
            raise ConfigError(
                f"alerts: the webhooks cannot be used here: {type(error).__name__}"
            ) from error


def _client(url: str) -> httpx.AsyncClient:
    """Return a client for one URL; proxies of the environment are for other machines."""
    import httpx  # noqa: PLC0415 (a daemon without webhooks does without it)

    return httpx.AsyncClient(
        timeout=ATTEMPT_S + 1,  # of each step; all of them together have less
        trust_env=not is_loopback(urlsplit(url).hostname or ""),
        verify=_authorities()
        if url.startswith("https:")
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )


@cache
def _authorities() -> ssl.SSLContext:
    """Return what HTTPS needs: to read all of the world's authorities takes 50 ms."""
    import httpx  # noqa: PLC0415 (see above)

    return httpx.create_ssl_context()
