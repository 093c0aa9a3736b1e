"""Tickets, newer tokens and revocation, as functions of a grant."""

from __future__ import annotations

import msgspec
import pytest
import trio

from broadcasterd.access.grants import Grant
from broadcasterd.access.tickets import TICKET_TTL_S, Tickets
from broadcasterd.api.grants import MAX_TICKET_REQUEST_BYTES, issue_ticket, renew, revoke
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.hub import Hub
from broadcasterd.errors import Problem
from tests.support.broadcast import Recorder, make_hub, start_hub
from tests.support.following import Pieces

NOON = 1_764_000_000.0
ME = Grant("me", subscribe=("s", "t*"), expires_at=NOON + 60)


def body(content: bytes) -> Pieces:
    """Return a body of one piece."""
    rest = iter([content])

    async def take() -> bytes | None:
        return next(rest, None)

    return Pieces(take)


def hub_at_noon() -> Hub:
    """Return a hub that does not run, where it is noon."""
    return make_hub(clock=Clock(wall=lambda: NOON))


async def ticket_for(content: object, tickets: Tickets) -> dict[str, object]:
    """Ask for a ticket with this body."""
    raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
    head = Head("POST", "/v1/tickets", (), {}, "127.0.0.1", "1.1")
    return await issue_ticket(head, body(raw), grant=ME, tickets=tickets, hub=hub_at_noon())


async def test_a_ticket_opens_the_session_that_it_was_asked_for() -> None:
    tickets = Tickets(trio.current_time)
    told = await ticket_for({"session": "s"}, tickets)
    ticket = told.pop("ticket")

    assert {"session": "s", "expires_in": TICKET_TTL_S} == told
    assert Grant("me", subscribe=("s",), expires_at=ME.expires_at) == tickets.redeem(
        str(ticket), "s"
    )


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        ([], 422),
        ({}, 422),
        ({"session": 1}, 422),
        ({"session": "s", "ttl": 60}, 422),
        ({"session": "no name"}, 400),
        ({"session": "other"}, 403),
        (b" " * (MAX_TICKET_REQUEST_BYTES + 1), 413),
    ],
    ids=lambda value: str(value).strip()[:40],
)
async def test_any_other_request_is_refused(content: object, status: int) -> None:
    tickets = Tickets(trio.current_time)
    with pytest.raises(Problem) as refused:
        await ticket_for(content, tickets)

    assert status == refused.value.status
    assert 0 == len(tickets)


async def stream_of(hub: Hub, grant: Grant, session: str = "s") -> Recorder:
    """Open a stream that ends with its grant."""
    stream = Recorder(hub.open(session), grant=grant)
    stream.expires_at = hub.clock.moment(grant.expires_at)
    return stream


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Start a hub at noon."""
    return await start_hub(nursery, hub_at_noon())


@pytest.mark.parametrize(
    ("newer", "ends_at"), [(NOON + 90, NOON + 90), (NOON + 30, NOON + 60), (None, None)]
)
async def test_a_newer_grant_prolongs_a_stream_and_never_shortens_it(
    hub: Hub, newer: float | None, ends_at: float | None
) -> None:
    stream = await stream_of(hub, ME)
    told = renew(stream.stream_id, grant=Grant("me", ("s",), expires_at=newer), hub=hub)

    assert stream.stream_id == told["stream"]
    assert ends_at == (None if ends_at is None else pytest.approx(told["expires_at"], abs=1))
    assert (told["expires_at"] is None) == (ends_at is None)


@pytest.mark.parametrize(
    ("grant", "status"),
    [(Grant("other", ("*",)), 404), (Grant(None, ("*",)), 404), (Grant("me", ("else",)), 403)],
    ids=["another subject", "no subject", "another session"],
)
async def test_nobody_else_prolongs_it(hub: Hub, grant: Grant, status: int) -> None:
    stream = await stream_of(hub, ME)
    before = stream.expires_at
    with pytest.raises(Problem) as refused:
        renew(stream.stream_id, grant=grant, hub=hub)

    assert status == refused.value.status
    assert before == stream.expires_at


async def test_to_revoke_a_subject_ends_its_streams(hub: Hub) -> None:
    mine, others = await stream_of(hub, ME), await stream_of(hub, Grant("other", ("s",)))

    assert {"subject": "me", "ended": 1} == await revoke("me", hub=hub)
    assert (True, False) == (mine.closed, others.closed)
