"""Authentication and authorization: each request for a session, stream or subject passes the guard.

A request may carry one token (in ``Authorization``, in the cookie, or where that is allowed in
the query), or for a stream a ticket. Credentials of another scheme than Bearer are for somebody
else, such as a proxy, and no token. All that it carries has to be good: a bad token is never
passed over for a better one, and there is no anonymous access to fall back to.

====== ================================================================================
401    no token (``Bearer realm=…`` alone), or a bad one (``error="invalid_token"``)
400    two tokens that are not the same (``error="invalid_request"``)
403    a good one that does not cover this (``error="insufficient_scope"``)
429    one more bad one, after too many from this address; good ones are let in
====== ================================================================================

Where ``auth.mode`` is ``none``, the pages of other sites are all that is kept out: 421 where the
browser thinks that it asks another host, 403 for a page of another origin.
"""

from __future__ import annotations

from http import HTTPStatus

import structlog

from broadcasterd.access.client_address import client_group, is_loopback
from broadcasterd.access.grants import EVERYONE, Action, Grant
from broadcasterd.access.hosts import is_local, is_ours
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.revocations import Revocations
from broadcasterd.access.tickets import Tickets
from broadcasterd.access.tokens import InvalidToken, KeyRing, TokenFault
from broadcasterd.access.verified import VerifiedTokens
from broadcasterd.api.cors import is_allowed, is_of_host
from broadcasterd.api.fields import bearer_tokens, cookies
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock
from broadcasterd.config import Settings
from broadcasterd.core.session_name import check_session_name
from broadcasterd.errors import Denied, Problem, TooMany

log = structlog.stdlib.get_logger(__name__)

MAX_FAILING_ADDRESSES = 10_000
"""Addresses whose failures are remembered: some 2 MB."""

STREAM_TYPE = "text/event-stream"
"""What an EventSource accepts."""

BAD_TICKET = "the ticket is unknown, has expired, was used, or is for another session"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_ANOTHER = frozenset({"origin", "forwarded", "x-forwarded-for", "x-real-ip", "via"})


class Guard:
    """Decides who may do what.

    Args:
        settings: those in force.
        keys: verify the tokens.
        clock: the daemon's.
        revocations: those in force; by default, none.

    Attributes:
        keys: those in force.
        tickets: those that were issued and not used yet.
        revocations: subjects whose older tokens are denied.

    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        clock: Clock,
        revocations: Revocations | None = None,
    ) -> None:
        self.tickets = Tickets(clock.now)
        self._settings = settings
        self._clock = clock
        self.revocations = Revocations() if revocations is None else revocations
        self._use(keys)
        per_minute = settings.limits.max_failures_per_minute
        self._failures = RateLimiter(
            per_minute / 60, per_minute, max_keys=MAX_FAILING_ADDRESSES, clock=clock.now
        )

    def reconfigure(self, keys: KeyRing) -> None:
        """Go on with other keys, and the settings now in force.

        Open streams and tickets stay, and bad tokens are not forgotten.
        """
        self._use(keys)
        per_minute = self._settings.limits.max_failures_per_minute
        self._failures.reconfigure(per_minute / 60, per_minute)

    def _use(self, keys: KeyRing) -> None:
        self.keys = keys
        self._keys_good_until = keys.good_until
        self._verified = VerifiedTokens(self._clock.unix_now)

    @property
    def _is_open(self) -> bool:
        return self._settings.auth.mode == "none"

    def authorize(self, head: Head, *actions: Action, session: str | None = None) -> Grant:
        """Return the grant of the request's token, if it covers one of ``actions``.

        Raises:
            Problem: 401, 400 or 429 as :meth:`authenticate`; then 400 for a name that no session
                can have; then 403. The answer is the same whether there is such a session or not.

        """
        grant = self.authenticate(head)
        if session is not None:
            check_session_name(session)
        require(grant, *actions, session=session)
        return grant

    def authorize_stream(self, head: Head, session: str) -> Grant:
        """Return the grant of a request to listen: its token's, or its ticket's, which is used up.

        Raises:
            Problem: as :meth:`authorize`.

        """
        ticket = head.parameter("ticket")
        if ticket is None or self._is_open:
            return self.authorize(head, Action.SUBSCRIBE, session=session)
        if any(self._tokens(head)):
            raise _two_tokens()
        grant = self.tickets.redeem(ticket, session)
        if grant is None:
            if self.tickets.was_issued(ticket):
                raise self._refused(head, BAD_TICKET, is_guess=False)
            raise self._refused(head, BAD_TICKET)
        if grant.expires_at is not None and grant.expires_at <= self._clock.unix_now():
            raise self._refused(head, TokenFault.EXPIRED)
        self._check_revoked(grant, head)
        return grant

    def trusts_machine(self, head: Head) -> bool:
        """Whether a request needs no token because this machine itself makes it.

        Not a page that somebody looks at here, nor a proxy that says for whom it asks.
        """
        return (
            self._settings.auth.metrics_from_loopback
            and is_loopback(head.peer)
            and is_ours(head.headers.get("host", ""), ())
            and not head.headers.keys() & _OF_ANOTHER
        )

    def authenticate(self, head: Head) -> Grant:
        """Return the grant of the request's token.

        Raises:
            Problem: 401 without a token or with a bad one, 400 with two, 429 after too many bad
                ones, 403 where the token is in the cookie and another site's page may ask. Where
                no token is asked for, 421 or 403 for such a page.

        """
        if self._is_open:
            self._check_page(head)
            return EVERYONE
        sent, ambient = self._tokens(head)
        tokens = sent + ambient
        if not tokens:
            raise unauthorized(None)
        grant = self._verify(tokens[0], head)
        if len(tokens) > 1 and (others := set(tokens[1:]) - {tokens[0]}):
            self._verify(others.pop(), head)
            raise _two_tokens()
        if not sent:
            self._check_origin(head)
        return grant

    def _verify(self, token: str, head: Head) -> Grant:
        """Return what a token grants. One that was verified before costs nobody anything.

        A good one is let in, whatever bad ones came from its address: others may be behind it.
        """
        if self._keys_good_until <= (now := self._clock.unix_now()):
            self._use(self.keys.at(now))
        if (known := self._verified.find(token)) is not None:
            self._check_revoked(known, head)
            return known
        try:
            grant = self.keys.verify(token)
        except InvalidToken as error:
            raise self._refused(head, error.fault) from error
        self._check_revoked(grant, head)
        self._verified.remember(token, grant)
        return grant

    def _check_revoked(self, grant: Grant, head: Head) -> None:
        """Deny what was good once: it is no guess."""
        if self.revocations.denies(grant):
            raise self._refused(head, TokenFault.REVOKED, is_guess=False)

    def _tokens(self, head: Head) -> tuple[list[str], list[str]]:
        """Return the tokens that the client sent, and those that a browser sends by itself."""
        field = head.headers.get("authorization")
        sent = [] if field is None else bearer_tokens(field)
        if head.query and self._settings.auth.allow_query_token:
            sent += [value for name, value in head.query if name == "token"]
        if (field := head.headers.get("cookie")) is None:
            return sent, []
        return sent, cookies(field, self._settings.auth.cookie)

    def _check_failures(self, head: Head) -> None:
        if wait := self._failures.would_wait(client_group(head.peer)):
            raise TooMany(
                "too many bad tokens came from this address (limits.max_failures_per_minute)",
                retry_after=wait,
            )

    def _check_origin(self, head: Head) -> None:
        """Refuse a request of another site's page, to which the browser itself adds the cookie."""
        origin = head.headers.get("origin", "")
        if head.method in _SAFE_METHODS:
            return
        if is_allowed(origin, self._settings.server.cors_origins):
            return
        if not is_of_host(origin, head.headers.get("host", "")):
            raise Denied(
                HTTPStatus.FORBIDDEN,
                "a token in a cookie changes something only for pages of this host and of"
                " server.cors_origins: the Origin of this request is neither",
            )

    def _check_page(self, head: Head) -> None:
        """Refuse a request of another site's page, where there is no token to tell who asks."""
        server = self._settings.server
        host, origin = head.headers.get("host", ""), head.headers.get("origin")
        if not is_ours(host, server.allowed_hosts) and host.partition(":")[0] != server.host:
            why = (
                f"auth.mode is none, and server.allowed_hosts does not name {host!r}: any page can"
                " make its own name point here"
            )
            problem = Denied(HTTPStatus.MISDIRECTED_REQUEST, why)
        elif (
            origin is None
            or origin.partition("://")[2].lower() == host.lower()
            or origin in server.cors_origins
            or "*" in server.cors_origins
            or is_local(origin)
        ):
            return
        else:
            why = (
                "auth.mode is none: the Origin of this request is neither this host, nor this"
                " machine, nor in server.cors_origins"
            )
            problem = Denied(HTTPStatus.FORBIDDEN, why)
        log.info("a page of another site was refused", peer=head.peer, status=problem.status)
        raise problem

    def _refused(self, head: Head, why: str, *, is_guess: bool = True) -> Problem:
        """Count a guess; return the answer, which tells nothing where there were too many.

        Except to an EventSource, which nothing but 401 tells to get a better one.
        """
        if is_guess:
            if STREAM_TYPE not in head.headers.get("accept", ""):
                self._check_failures(head)
            self._failures.take(client_group(head.peer))
        log.info("token refused", peer=head.peer, why=str(why))
        return unauthorized(why)


def require(grant: Grant, *actions: Action, session: str | None = None) -> None:
    """Check that a grant covers one of ``actions``.

    Raises:
        Problem: 403.

    """
    for action in actions:
        if grant.allows(action, session):
            return
    where = "" if session is None else f" on session {session}"
    why = f"the token does not cover {' or '.join(actions)}{where}"
    raise Denied(HTTPStatus.FORBIDDEN, why, headers=_challenge("insufficient_scope", why))


def unauthorized(why: str | None) -> Problem:
    """Return the answer to a request with a bad token, or without one where ``why`` is ``None``."""
    if why is None:
        return Denied(HTTPStatus.UNAUTHORIZED, "this needs a token", headers=_challenge())
    return Denied(HTTPStatus.UNAUTHORIZED, why, headers=_challenge("invalid_token", why))


def token_expired() -> Problem:
    """Return the answer to a request whose token expired, or was revoked, while it went on."""
    return unauthorized(TokenFault.EXPIRED)


def _two_tokens() -> Problem:
    why = "a request carries one token, or one ticket: this one has more than one"
    return Problem(HTTPStatus.BAD_REQUEST, why, headers=_challenge("invalid_request", why))


def _challenge(error: str | None = None, description: str = "") -> dict[str, str]:
    """Return ``WWW-Authenticate`` (RFC 6750 §3); without a token, it names no error."""
    challenge = 'Bearer realm="broadcasterd"'
    if error is not None:
        challenge += f', error="{error}", error_description="{description}"'
    return {"WWW-Authenticate": challenge}
