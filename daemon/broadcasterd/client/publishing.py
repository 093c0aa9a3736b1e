"""To publish: every event is sent until it is acknowledged, in order, and is broadcast once.

There is one request at a time. It carries what is there at that moment, and what comes meanwhile is
the next one's: an event goes out as soon as it is there, a thousand at once go in a few requests,
and never are more than those few unacknowledged. A request without an answer is made again. Each
event has an idempotency key, so that the daemon broadcasts what it had of it only once.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import accumulate
from typing import TypeAlias

import httpx
import msgspec
from typing_extensions import override

from broadcasterd.client.connection import (
    MIN_WAIT,
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
from broadcasterd.client.exchange import Ask, Call, Credentials, Renew, Wait, answer

Event: TypeAlias = Mapping[str, object] | bytes
"""An event to publish: an object of the contract, or its JSON."""

RETRY_FOR = 60.0  # seconds: a restart takes one, a reboot half a minute
FIRST_WAIT = 0.25  # seconds
MAX_PAUSE = 10.0  # seconds: nobody else is waiting as a publisher is, whose input may be held up
JITTER = 1.25  # of a wait that the daemon asked for: it asks everybody for the same

# Of one request. A key is good for as long as its event is retained, and a session retains 500
# events and 1 MiB, unless it is told otherwise.
MAX_EVENTS = 100
MAX_BYTES = 256 * 1024

# Writing may take as long as the daemon holds a publisher back, which it does on purpose.
_TIMEOUT = httpx.Timeout(30.0, write=None)
_FINAL = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, *UNUSABLE)
_TYPE = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was acknowledged so far.

    Attributes:
        session: its name, as the daemon has it.
        accepted: events that are broadcast.
        first_id: of the first of them; none where there is none.
        last_id: of the last.
        subscribers: streams that were open on the session at the last acknowledgement.
        duplicates: events whose keys, which they brought with them, were known already.

    """

    session: str = ""
    accepted: int = 0
    first_id: str | None = None
    last_id: str | None = None
    subscribers: int = 0
    duplicates: int = 0

    def as_json(self) -> str:
        """Return it as the daemon writes one: duplicates are named only where there are any."""
        members = asdict(self)
        if not self.duplicates:
            del members["duplicates"]
        return json.dumps(members, separators=(",", ":"))


class PublishFailed(RequestFailed):
    """The daemon refused an event, or could not be reached for too long.

    Attributes:
        receipt: what was acknowledged before.
        index: which of the events given it is about, from 0: the first that is not broadcast, as
            far as is known.
        line: the same of lines, from 1, where they were lines.

    """

    def __init__(self, why: str, receipt: Receipt, index: int) -> None:
        super().__init__(why)
        self.receipt = receipt
        self.index = index
        self.line: int | None = None

    @override
    def __str__(self) -> str:
        why = super().__str__()
        return why if self.line is None else f"{why}; line {self.line}, {self._before} before it"

    @property
    def _before(self) -> str:
        duplicates = self.receipt.duplicates
        return f"{self.receipt.accepted} accepted" + f", {duplicates} known" * bool(duplicates)


class Publishing:
    """What is published to one session: keys, what is acknowledged, and what to do next.

    Args:
        url: what `events_url` returned.
        credentials: of the requests.
        retry_for: how many seconds an event is sent again and again while it is not acknowledged,
            0 for one attempt. Beyond `sessions.event_ttl` (600 s) events may be broadcast twice.
        notify: called with a sentence for a person, before each wait.
        now: tells seconds of a clock that is not set.

    Attributes:
        receipt: what was acknowledged so far.

    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        retry_for: float = RETRY_FOR,
        notify: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.receipt = Receipt()
        self._url = url
        self._credentials = credentials
        self._retry_for = retry_for
        self._notify = notify
        self._now = now
        self._keys = f"{secrets.token_hex(8)}-"
        self._numbered = 0
        self._most = MAX_EVENTS

    def publish(self, events: Iterable[Event]) -> Call[Receipt]:
        """Publish events, each an object of the contract or its JSON; return when all are accepted.

        With none, the daemon is asked whether it would take any.

        Raises:
            PublishFailed: the daemon refused one, or could not be reached for too long. Those
                before it are broadcast; of those after it, some may be.
        """
        pending = [self._with_key(event) for event in events]
        done = failures = 0
        until = 0.0
        is_again = False  # whether some may be known, of an attempt that was not answered
        is_renewed = False  # whether the token was got for this very attempt
        while True:
            outcome = yield from self._attempt(self._next(pending[done:]))
            told = outcome.told
            self._add(told, is_again=is_again)
            if outcome.is_unauthorized and self._credentials.renewable and not is_renewed:
                done += min(told.accepted + told.duplicates, len(pending) - done)
                is_again = is_renewed = True
                yield Renew()
                continue
            if outcome.refused:
                index = told.accepted + told.duplicates if told.line is None else told.line - 1
                last = max(len(pending) - 1, 0)
                raise PublishFailed(outcome.refused, self.receipt, min(done + index, last))
            done += outcome.acknowledged
            is_renewed = False
            if outcome.pause is None:
                if done == len(pending):
                    return self.receipt
                failures, is_again = 0, False
                continue
            if outcome.acknowledged or not failures:
                failures, until = 0, self._now() + self._retry_for
            yield self._wait(outcome.pause, failures, until - self._now(), index=done)
            failures, is_again = failures + 1, True

    def _with_key(self, event: Mapping[str, object] | bytes) -> bytes:
        """Return an event's JSON with a key, its own where it brings one.

        The text is not written anew: numbers keep their digits. What is no object stays as it is:
        to refuse it is the daemon's affair.
        """
        text = event if isinstance(event, bytes) else json.dumps(event).encode()
        try:
            members = json.loads(text, parse_int=str)  # of any length
        except (ValueError, RecursionError):
            return text
        if not isinstance(members, dict) or members.get("idempotency_key") is not None:
            return text
        self._numbered += 1
        key = f'"idempotency_key":"{self._keys}{self._numbered}"'
        return text.rstrip().removesuffix(b"}") + f"{',' * bool(members)}{key}}}".encode()

    def _next(self, pending: Sequence[bytes]) -> Sequence[bytes]:
        """Return as many of these as one request may have, one at least."""
        part = pending[: self._most]
        sizes = accumulate(map(len, part))
        return part[: max(1, sum(size <= MAX_BYTES for size in sizes))]

    def _attempt(self, part: Sequence[bytes]) -> Call[_Outcome]:
        where = shown(self._url)
        post = Ask(
            method="POST",
            url=self._url,
            timeout=_TIMEOUT,
            headers=_TYPE,
            content=b"".join(event + b"\n" for event in part),
            follow_redirects=False,
        )
        try:
            response = answer((yield post))
        except _FINAL as error:
            return _Outcome(refused=f"{where}: {cause(error, self._url)}")
        except httpx.ReadTimeout:
            # All may be taken too slowly for an answer (limits.publish_rate), yet a part of it not.
            self._most = max(1, len(part) // 2)
            return _Outcome(pause=Pause(f"{where}: no answer came"))
        except httpx.TransportError as error:
            return _Outcome(pause=Pause(f"{where}: {cause(error, self._url)}"))
        told = _told_by(response)
        if response.status_code == HTTPStatus.OK and told.session is not None:
            return _Outcome(told, acknowledged=len(part))
        why = refusal(response)
        if response.next_request is not None:  # it is not followed: a token is for one place
            why = f"{why}: publish to {shown(str(response.next_request.url))}"
        if not is_passing(response.status_code):
            is_unauthorized = response.status_code == HTTPStatus.UNAUTHORIZED
            return _Outcome(told, refused=why, is_unauthorized=is_unauthorized)
        count = min(told.accepted + told.duplicates, len(part))
        return _Outcome(told, acknowledged=count, pause=Pause(why, retry_after(response)))

    def _add(self, told: _Told, *, is_again: bool) -> None:
        """Count what an answer acknowledges; what this publisher itself sent before is new."""
        before = self.receipt
        new = told.accepted + told.duplicates * is_again
        self.receipt = Receipt(
            session=told.session or before.session,
            accepted=before.accepted + new,
            first_id=before.first_id or told.first_id,
            last_id=told.last_id or before.last_id,
            subscribers=before.subscribers if told.session is None else told.subscribers,
            duplicates=before.duplicates + told.accepted + told.duplicates - new,
        )

    def _wait(self, pause: Pause, failures: int, left: float, *, index: int) -> Wait:
        """Return how long to wait for the next attempt, for which there are so many seconds left.

        Raises:
            PublishFailed: that is too late for it.
        """
        asked = pause.at_least * random.uniform(1.0, JITTER)  # noqa: S311 (not a secret)
        wait = max(min(backoff(FIRST_WAIT, failures, at_most=MAX_PAUSE), left), asked)
        if left < max(wait, MIN_WAIT):
            tried = f"; given up after {self._retry_for:g} s" if self._retry_for else ""
            raise PublishFailed(f"{pause.why}{tried}", self.receipt, index)
        self._notify(f"{pause.why}; next attempt in {wait:.1f} s")
        return Wait(wait)


def event_with(data: object, **members: object) -> dict[str, object]:
    """Return the event with these members, but for those that are ``None``."""
    return {"data": data} | {name: value for name, value in members.items() if value is not None}


class _Told(msgspec.Struct):
    """An answer's members that count, or a problem's: what it does not say is not acknowledged."""

    session: str | None = None
    accepted: int = 0
    duplicates: int = 0
    first_id: str | None = None
    last_id: str | None = None
    subscribers: int = 0
    line: int | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a request: how many of its events are acknowledged, and why no more are."""

    told: _Told = field(default_factory=_Told)
    acknowledged: int = 0
    pause: Pause | None = None
    refused: str = ""
    is_unauthorized: bool = False


def _told_by(response: httpx.Response) -> _Told:
    try:
        return msgspec.json.decode(response.content, type=_Told)
    except msgspec.DecodeError:
        return _Told()
