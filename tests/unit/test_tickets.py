"""Tickets: each opens one stream, once and soon."""

from __future__ import annotations

import pytest

from broadcasterd.access import tickets as module
from broadcasterd.access.grants import Action, Grant
from broadcasterd.access.tickets import TICKET_TTL_S, Tickets
from broadcasterd.errors import TooMany, Unavailable

GRANT = Grant("somebody", ("*",), ("*",), admin=True, expires_at=1764000000.0)


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(clock)


def test_a_ticket_grants_to_listen_to_its_session_and_no_more(tickets: Tickets) -> None:
    grant = tickets.redeem(tickets.issue("s", GRANT), "s")

    assert grant == Grant("somebody", ("s",), expires_at=1764000000.0)
    assert not any(grant.allows(action, "other") for action in Action)
    assert not grant.allows(Action.PUBLISH, "s")


def test_a_ticket_is_good_once(tickets: Tickets) -> None:
    ticket = tickets.issue("s", GRANT)

    assert tickets.redeem(ticket, "s") is not None
    assert tickets.redeem(ticket, "s") is None


def test_a_ticket_is_good_for_its_session_alone_and_a_wrong_try_uses_it_up(
    tickets: Tickets,
) -> None:
    ticket = tickets.issue("s", GRANT)

    assert tickets.redeem(ticket, "t") is None
    assert tickets.redeem(ticket, "s") is None


@pytest.mark.parametrize(("after", "good"), [(TICKET_TTL_S - 0.1, True), (TICKET_TTL_S, False)])
def test_a_ticket_expires(tickets: Tickets, clock: Clock, after: float, good: bool) -> None:  # noqa: FBT001
    ticket = tickets.issue("s", GRANT)
    clock.now += after

    assert (tickets.redeem(ticket, "s") is not None) == good


@pytest.mark.parametrize("guess", ["", "x", "\ud800", "ä"])
def test_what_was_never_issued_opens_nothing(tickets: Tickets, guess: str) -> None:
    tickets.issue("s", GRANT)

    assert tickets.redeem(guess, "s") is None


def test_no_two_tickets_are_the_same(tickets: Tickets) -> None:
    issued = {tickets.issue("s", GRANT) for _ in range(100)}

    assert len(issued) == 100
    assert all(len(ticket) >= 32 for ticket in issued)


def test_a_ticket_cannot_be_read_from_where_it_is_kept(tickets: Tickets) -> None:
    ticket = tickets.issue("s", GRANT)

    assert ticket not in repr(vars(tickets))


def test_there_is_a_limit_to_unused_tickets_and_expired_ones_make_room(
    tickets: Tickets, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS", 3)
    first = tickets.issue("s", GRANT)
    clock.now += 10
    others = [tickets.issue("s", GRANT) for _ in range(2)]
    with pytest.raises(Unavailable) as refused:
        tickets.issue("s", GRANT)

    assert refused.value.headers == {"Retry-After": str(TICKET_TTL_S)}

    clock.now += TICKET_TTL_S - 10

    assert tickets.issue("s", GRANT)
    assert len(tickets) == 3
    assert tickets.redeem(first, "s") is None
    assert all(tickets.redeem(ticket, "s") for ticket in others)


def test_a_used_ticket_makes_room(tickets: Tickets) -> None:
    tickets.redeem(tickets.issue("s", GRANT), "s")

    assert len(tickets) == 0


def test_of_used_tickets_the_last_ones_are_remembered(
    tickets: Tickets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS", 2)
    used = []
    for _ in range(3):
        used.append(tickets.issue("room", GRANT))
        tickets.redeem(used[-1], "room")

    assert [False, True, True] == [tickets.was_issued(ticket) for ticket in used]


def test_a_subject_has_a_share_of_all_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TICKETS_PER_SUBJECT", 2)
    tickets = Tickets(lambda: 0.0)
    greedy, modest = Grant("greedy", subscribe=("*",)), Grant("modest", subscribe=("*",))
    first = [tickets.issue("s", greedy) for _ in range(2)]

    with pytest.raises(TooMany):
        tickets.issue("s", greedy)
    assert tickets.redeem(tickets.issue("s", modest), "s")

    assert tickets.redeem(first[0], "s")
    tickets.issue("s", greedy)
    assert tickets.redeem(first[1], "s")
    tickets.issue("s", greedy)
