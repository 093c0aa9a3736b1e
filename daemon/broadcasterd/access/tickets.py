"""Tickets: with one, a page that can send neither header nor cookie opens a stream.

A ticket stands in a URL, and URLs end up in logs. So it opens one stream of one session, once,
and soon.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from broadcasterd.access.grants import Grant
from broadcasterd.access.tally import Tally
from broadcasterd.errors import TooMany, Unavailable

TICKET_TTL_S = 30
"""The time from one request of a page to its next."""

MAX_TICKETS = 10_000
"""Tickets that were issued and not used yet: some 5 MB."""

MAX_TICKETS_PER_SUBJECT = 1000
"""Of them, so that no subject has them all."""

TICKET_BYTES = 24
"""Random bytes in a ticket: nobody guesses one of 10,000 among 2**192."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    session: str
    grant: Grant
    expires_at: float


class Tickets:
    """The tickets that were issued and not used yet.

    Only their hashes are kept, so that neither memory nor the time of a look-up reveals a
    ticket.

    Args:
        clock: seconds on a monotonic clock.

    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._of_subject = Tally()
        self._issued: dict[bytes, _Ticket] = {}  # the oldest first, which is the next to expire
        self._were_good: dict[bytes, None] = {}  # those that are not any more, oldest first

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, session: str, grant: Grant) -> str:
        """Return a ticket for one stream of ``session``, for as long as ``grant`` holds.

        Raises:
            Unavailable: there are ``MAX_TICKETS`` already. These stay valid.
            TooMany: so has the subject, by its own share.

        """
        self._forget_expired()
        if self._of_subject[grant.subject] >= MAX_TICKETS_PER_SUBJECT:
            msg = f"the token's subject has {MAX_TICKETS_PER_SUBJECT} unused tickets"
            raise TooMany(msg, retry_after=TICKET_TTL_S)
        if len(self._issued) >= MAX_TICKETS:
            raise Unavailable(f"there are {MAX_TICKETS} unused tickets", retry_after=TICKET_TTL_S)
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        only = Grant(
            grant.subject,
            subscribe=(session,),
            expires_at=grant.expires_at,
            issued_at=grant.issued_at,
        )
        self._issued[_hash(ticket)] = _Ticket(session, only, self._clock() + TICKET_TTL_S)
        self._of_subject.add(grant.subject)
        return ticket

    def redeem(self, ticket: str, session: str) -> Grant | None:
        """Use a ticket up; return what it grants, ``None`` if it does not open ``session``."""
        found = self._forget(_hash(ticket))
        if found is None or found.session != session or found.expires_at <= self._clock():
            return None
        return found.grant

    def was_issued(self, ticket: str) -> bool:
        """Whether this was a ticket, if not long ago: whoever comes with it again does not guess.

        A browser does, which reconnects by itself.
        """
        return _hash(ticket) in self._were_good

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._issued:
            oldest = next(iter(self._issued))
            if self._issued[oldest].expires_at > now:
                return
            self._forget(oldest)

    def _forget(self, key: bytes) -> _Ticket | None:
        ticket = self._issued.pop(key, None)
        if ticket is not None:
            self._of_subject.remove(ticket.grant.subject)
            self._were_good[key] = None
            if len(self._were_good) > MAX_TICKETS:
                del self._were_good[next(iter(self._were_good))]
        return ticket


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode(errors="replace")).digest()
