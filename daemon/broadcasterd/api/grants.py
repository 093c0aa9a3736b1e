"""Grants of streams: tickets that open one, newer tokens that prolong it, an end by subject."""

from __future__ import annotations

from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from broadcasterd.access.grants import MAX_SUBJECT_CHARS, Action, Grant
from broadcasterd.access.tickets import TICKET_TTL_S, Tickets
from broadcasterd.api import live
from broadcasterd.api.auth import require
from broadcasterd.api.bodies import whole_body
from broadcasterd.api.json_body import Reader, check_utf8, without_bom
from broadcasterd.api.request import Head
from broadcasterd.broadcast.hub import Hub
from broadcasterd.core.session_name import NAME_PATTERN, check_session_name
from broadcasterd.errors import BadRequest, Problem

MAX_TICKET_REQUEST_BYTES = 1024
"""Room for a session's name, and for the JSON around it."""


class TicketRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a ticket."""

    # The name is checked after the token; the pattern is for the description of the interface.
    session: Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME_PATTERN}$"})]


_ticket_request = Reader(TicketRequest, "a request for a ticket", {"session": "a string"})


async def issue_ticket(
    head: Head, body: AsyncIterable[bytes], *, grant: Grant, tickets: Tickets, hub: Hub
) -> dict[str, object]:
    """Exchange a token's grant for a ticket that opens one stream of one session.

    Raises:
        Problem: the grant does not cover that session; the body is no such request; or there are
            too many tickets.

    """
    with hub.bodies.holding() as held:
        whole = await whole_body(
            body,
            head,
            grant=grant,
            hub=hub,
            max_body_bytes=MAX_TICKET_REQUEST_BYTES,
            held=held,
        )
    check_utf8(whole)
    asked, _ = _ticket_request.one(without_bom(whole))
    session = asked.session
    require(grant, Action.SUBSCRIBE, session=check_session_name(session))
    ticket = tickets.issue(session, grant)
    return {"ticket": ticket, "session": session, "expires_in": TICKET_TTL_S}


def renew(stream_id: str, *, grant: Grant, hub: Hub) -> dict[str, object]:
    """Let a stream last for as long as a newer grant, if that is longer.

    Returns:
        The stream, and when it will end: Unix time in seconds, ``None`` for never.

    Raises:
        Problem: the grant does not cover the stream's session (403), or its subject has no such
            stream (404, whether somebody else has it or not).

    """
    stream = hub.subscribers.by_id.get(stream_id)
    if stream is None or stream.subject != grant.subject:
        raise Problem(HTTPStatus.NOT_FOUND, "the token's subject has no open stream of this id")
    if stream.feed.name == live.PATH:
        require(grant, Action.ADMIN)
    else:
        require(grant, Action.SUBSCRIBE, session=stream.feed.name)
    stream.expires_at = max(stream.expires_at, hub.clock.moment(grant.expires_at))
    at = hub.clock.unix_time(stream.expires_at)
    return {"stream": stream_id, "expires_at": None if at is None else round(at, 3)}


def subject_of(head: Head) -> str:
    """Return the subject that a query names: any, also one that a path could not.

    Raises:
        BadRequest: it names none.

    """
    subject = head.parameter("subject")
    if subject is None or len(subject) > MAX_SUBJECT_CHARS:
        msg = f"subject: expected the sub of tokens, of 1 to {MAX_SUBJECT_CHARS} characters"
        raise BadRequest(msg)
    return subject


async def revoke(subject: str, *, hub: Hub) -> dict[str, object]:
    """End all that the tokens of a subject hold open; deny them, and its tickets, from now on.

    A token that is issued afterwards is good.

    Raises:
        EngineDown: it is in force here, and may be forgotten, or unknown elsewhere.

    """
    return {"subject": subject, "ended": await hub.revoke(subject)}
