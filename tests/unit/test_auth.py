"""The guard: the tokens that a request may carry, and the answers to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from broadcasterd.access.grants import EVERYONE, Action, Grant
from broadcasterd.access.tokens import KeyRing, TokenFault
from broadcasterd.api.auth import BAD_TICKET, Guard, token_expired
from broadcasterd.api.request import Head
from broadcasterd.broadcast.clock import Clock as HubClock
from broadcasterd.config import Settings, from_mapping
from broadcasterd.errors import Problem
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

GOOD = sign(claims(subscribe=("s*",), sub="somebody"))
OTHER = sign(claims(subscribe=("s*",), sub="other"))
BAD = sign(claims(subscribe=("s*",)), SECRET[::-1])
COOKIE = "broadcaster_token"


class Clock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Guard]


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Make:
    """Return a function that makes a guard with these settings."""

    def make(auth: Mapping[str, object] | None = None, **sections: Mapping[str, object]) -> Guard:
        config = from_mapping({"auth": jwt_mode(tmp_path, **(auth or {})), **sections})
        return Guard(Settings(config), KeyRing.load(config.auth), HubClock(monotonic=clock))

    return make


def head(
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    query: Mapping[str, str] | None = None,
    peer: str = "192.0.2.1",
) -> Head:
    fields = {name.lower(): value for name, value in (headers or {}).items()}
    return Head(method, "/", tuple((query or {}).items()), fields, peer, "1.1")


def cookie(token: str) -> dict[str, str]:
    return {"Cookie": f"a=b; {COOKIE}={token}; c=d"}


def refusal(ask: Callable[..., object], *args: object, **kwargs: object) -> Problem:
    with pytest.raises(Problem) as caught:
        ask(*args, **kwargs)
    return caught.value


def challenge(problem: Problem) -> tuple[str, str]:
    """Return the error and its description; the field is of the form of RFC 6750."""
    found = re.fullmatch(
        r'Bearer realm="broadcasterd"(?:, error="(\w+)", error_description="([^"\\]+)")?',
        problem.headers["WWW-Authenticate"],
    )
    assert found is not None
    return found[1] or "", found[2] or ""


# --- where a token may be --------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        bearer(GOOD),
        {"Authorization": f"bEaReR   {GOOD} "},
        cookie(GOOD),
        {"Cookie": f"{COOKIE}={GOOD}"},
        {"Cookie": f"x;=;;  {COOKIE}={GOOD};{COOKIE}2={BAD}"},
        bearer(GOOD) | cookie(GOOD),
        bearer(GOOD) | {"Cookie": f"{COOKIE}="},
        bearer(GOOD) | {"Cookie": f"{COOKIE.upper()}={BAD}"},
    ],
)
def test_a_good_token_is_found(make: Make, headers: dict[str, str]) -> None:
    assert make().authenticate(head(headers)).subject == "somebody"


def test_the_cookie_has_the_name_that_is_configured(make: Make) -> None:
    guard = make({"cookie": "jwt"})

    assert guard.authenticate(head({"Cookie": f"jwt={GOOD}"})).subject == "somebody"
    assert challenge(refusal(guard.authenticate, head(cookie(GOOD)))) == ("", "")


def test_a_token_in_the_query_is_looked_at_only_where_that_is_allowed(make: Make) -> None:
    asked = head(query={"token": GOOD})

    assert make({"allow_query_token": True}).authenticate(asked).subject == "somebody"
    assert refusal(make().authenticate, asked).status == 401


@pytest.mark.parametrize("headers", [{}, {"Cookie": "a=b"}, {"Cookie": f"{COOKIE}="}])
def test_without_a_token_the_challenge_names_no_error(make: Make, headers: dict[str, str]) -> None:
    problem = refusal(make().authenticate, head(headers))

    assert problem.status == 401
    assert problem.headers == {"WWW-Authenticate": 'Bearer realm="broadcasterd"'}


OTHER_SCHEMES = ["", "Basic dXNlcjpwYXNz", f"Basic {GOOD}", GOOD, 'Digest username="Bearer x"']


@pytest.mark.parametrize("credentials", OTHER_SCHEMES)
def test_credentials_of_another_scheme_are_no_token(make: Make, credentials: str) -> None:
    problem = refusal(make().authenticate, head({"Authorization": credentials}))

    assert (problem.status, challenge(problem)) == (401, ("", ""))


@pytest.mark.parametrize("credentials", OTHER_SCHEMES)
def test_credentials_of_another_scheme_may_be_beside_a_token(make: Make, credentials: str) -> None:
    guard = make()
    other = {"Authorization": credentials}
    grant = guard.authenticate(head(bearer(GOOD)))
    ticket = guard.tickets.issue("news", grant)

    assert guard.authenticate(head(other | cookie(GOOD))).subject == "somebody"
    assert (
        guard.authorize_stream(head(other, query={"ticket": ticket}), "news").subject == "somebody"
    )


def test_the_same_token_twice_is_one(make: Make) -> None:
    twice = {"Authorization": f"Bearer {GOOD}, Bearer {GOOD}"}

    assert make().authenticate(head(twice)).subject == "somebody"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (bearer(BAD), {}),
        (bearer(""), {}),
        ({"Authorization": f"Bearer {GOOD}, Bearer {BAD}"}, {}),
        (cookie(BAD), {}),
        ({}, {"token": BAD}),
        ({}, {"token": ""}),
        (bearer(BAD) | cookie(GOOD), {}),
        (bearer(GOOD) | cookie(BAD), {}),
        (bearer(GOOD), {"token": BAD}),
        (cookie(GOOD), {"token": BAD}),
        ({"Cookie": f"{COOKIE}={GOOD}; {COOKIE}={BAD}"}, {}),
    ],
)
def test_nothing_bad_is_passed_over(
    make: Make, headers: dict[str, str], query: dict[str, str]
) -> None:
    problem = refusal(make({"allow_query_token": True}).authenticate, head(headers, query=query))

    assert problem.status == 401
    assert challenge(problem)[0] == "invalid_token"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        (bearer(GOOD) | cookie(OTHER), {}),
        (bearer(GOOD), {"token": OTHER}),
        (cookie(GOOD), {"token": OTHER}),
        ({"Cookie": f"{COOKIE}={GOOD}; {COOKIE}={OTHER}"}, {}),
    ],
)
def test_two_good_tokens_are_one_too_many(
    make: Make, headers: dict[str, str], query: dict[str, str]
) -> None:
    problem = refusal(make({"allow_query_token": True}).authenticate, head(headers, query=query))

    assert problem.status == 400
    assert challenge(problem)[0] == "invalid_request"


def test_why_a_token_is_refused_is_told_and_the_token_is_not(make: Make) -> None:
    problem = refusal(make().authenticate, head(bearer(sign(claims(ttl=-1)))))

    assert challenge(problem) == ("invalid_token", TokenFault.EXPIRED.value)
    assert problem.detail == TokenFault.EXPIRED


def test_without_tokens_everybody_may_do_everything_whatever_he_sends(make: Make) -> None:
    guard = make({"mode": "none"})

    assert guard.authenticate(head(bearer(BAD))) is EVERYONE
    assert guard.authorize_stream(head(query={"ticket": "x"}), "s") is EVERYONE
    assert guard.authorize(head(method="DELETE"), Action.ADMIN) is EVERYONE


def test_new_keys_take_the_place_of_the_old(make: Make, tmp_path: Path) -> None:
    guard = make()
    (tmp_path / "secret").write_text(SECRET[::-1])
    auth = from_mapping({"auth": {"secret_file": str(tmp_path / "secret")}}).auth
    guard.reconfigure(KeyRing.load(auth))

    assert guard.authenticate(head(bearer(BAD))).subscribe == ("s*",)
    assert refusal(guard.authenticate, head(bearer(GOOD))).status == 401


def test_the_secret_of_before_is_good_for_its_time_and_not_a_moment_longer(tmp_path: Path) -> None:
    """That a token was verified before makes no difference."""
    config = from_mapping({"auth": jwt_mode(tmp_path, previous_secret_ttl=60)})
    first = KeyRing.load(config.auth)
    (tmp_path / "secret").write_text(SECRET[::-1])
    wall = Clock()
    guard = Guard(Settings(config), first, HubClock(monotonic=Clock(), wall=wall))
    guard.reconfigure(KeyRing.load(config.auth, first.secrets))
    end = guard.keys.good_until

    for wall.now in (end - 60, end - 0.001):
        assert "somebody" == guard.authenticate(head(bearer(GOOD))).subject
    for wall.now in (end, end + 60, end - 1):
        assert 401 == refusal(guard.authenticate, head(bearer(GOOD))).status
        assert guard.authenticate(head(bearer(BAD))).subscribe == ("s*",), "it is the new one's"


# --- what it covers --------------------------------------------------------------------------


def test_a_token_that_does_not_cover_it_is_403_with_what_was_needed(make: Make) -> None:
    problem = refusal(make().authorize, head(bearer(GOOD)), Action.PUBLISH, session="s1")

    assert problem.status == 403
    assert challenge(problem) == (
        "insufficient_scope",
        "the token does not cover publish on session s1",
    )


def test_one_of_several_actions_is_enough(make: Make) -> None:
    guard, asked = make(), head(bearer(GOOD))

    guard.authorize(asked, Action.ADMIN, Action.SUBSCRIBE, session="s1")

    assert refusal(guard.authorize, asked, Action.ADMIN, session="s1").status == 403


def test_who_is_not_let_in_does_not_hear_what_is_wrong_with_the_name(make: Make) -> None:
    guard = make()

    assert refusal(guard.authorize, head(), Action.SUBSCRIBE, session="/").status == 401
    assert refusal(guard.authorize, head(bearer(GOOD)), Action.SUBSCRIBE, session="/").status == 400


def test_the_answer_to_an_expiry_is_that_of_an_expired_token() -> None:
    assert token_expired().status == 401
    assert challenge(token_expired()) == ("invalid_token", TokenFault.EXPIRED.value)


# --- tickets ---------------------------------------------------------------------------------


def test_a_ticket_opens_a_stream_of_its_session_once(make: Make) -> None:
    guard = make()
    asked = head(query={"ticket": guard.tickets.issue("s1", Grant("somebody", ("s*",)))})

    assert guard.authorize_stream(asked, "s1") == Grant("somebody", ("s1",))

    again = refusal(guard.authorize_stream, asked, "s1")

    assert again.status == 401
    assert challenge(again) == ("invalid_token", BAD_TICKET)


def test_a_ticket_next_to_a_token_is_one_too_many_and_is_kept(make: Make) -> None:
    guard = make()
    query = {"ticket": guard.tickets.issue("s1", Grant("somebody", ("s*",)))}
    both = refusal(guard.authorize_stream, head(bearer(GOOD), query=query), "s1")

    assert both.status == 400
    assert challenge(both)[0] == "invalid_request"
    assert guard.authorize_stream(head(query=query), "s1").subscribe == ("s1",)


def test_a_ticket_does_not_outlive_its_token(make: Make) -> None:
    guard = make()
    ticket = guard.tickets.issue("s1", Grant("somebody", ("s*",), expires_at=1.0))
    problem = refusal(guard.authorize_stream, head(query={"ticket": ticket}), "s1")

    assert challenge(problem) == ("invalid_token", TokenFault.EXPIRED.value)


def test_a_ticket_is_for_streams_alone(make: Make) -> None:
    guard = make()
    asked = head(query={"ticket": guard.tickets.issue("s1", Grant("somebody", ("s*",)))})

    assert refusal(guard.authorize, asked, Action.SUBSCRIBE, session="s1").status == 401


# --- failures --------------------------------------------------------------------------------


LIMIT = {"max_failures_per_minute": 3}


def test_too_many_bad_tokens_of_an_address_are_429_until_it_has_waited(
    make: Make, clock: Clock
) -> None:
    guard = make(limits=LIMIT)
    *refused, last = [refusal(guard.authenticate, head(bearer(BAD))) for _ in range(5)]

    assert [401, 401, 401, 429] == [each.status for each in refused]
    assert 20 <= int(last.headers["Retry-After"]) <= 21

    clock.now += int(last.headers["Retry-After"])

    assert guard.authenticate(head(bearer(GOOD))).subject == "somebody"
    assert refusal(guard.authenticate, head(bearer(BAD))).status == 401
    assert refusal(guard.authenticate, head(bearer(BAD))).status == 429


@pytest.mark.parametrize("limit", [3, 6])
def test_a_reload_forgets_no_bad_token(make: Make, limit: int) -> None:
    guard = make(limits=LIMIT)
    for _ in range(3):
        refusal(guard.authenticate, head(bearer(BAD)))
    config = guard._settings.config
    limits = msgspec.structs.replace(config.limits, max_failures_per_minute=limit)
    guard._settings.replace(msgspec.structs.replace(config, limits=limits))
    guard.reconfigure(guard.keys)
    more = [refusal(guard.authenticate, head(bearer(BAD))).status for _ in range(4)]

    assert [401] * (limit - 3) + [429] * (7 - limit) == more


def test_bad_tickets_count_as_bad_tokens(make: Make) -> None:
    guard, guess = make(limits=LIMIT), head(query={"ticket": "x"})
    statuses = [refusal(guard.authorize_stream, guess, "s").status for _ in range(4)]

    assert statuses == [401, 401, 401, 429]


def test_other_addresses_are_not_held_to_account(make: Make) -> None:
    guard = make(limits=LIMIT)
    for _ in range(4):
        refusal(guard.authenticate, head(bearer(BAD)))

    assert guard.authenticate(head(bearer(GOOD), peer="192.0.2.2")).subject == "somebody"


def test_to_come_without_a_token_or_with_a_small_one_is_no_failure(make: Make) -> None:
    guard = make(limits=LIMIT)
    for _ in range(9):
        assert refusal(guard.authenticate, head()).status == 401
        assert refusal(guard.authorize, head(bearer(GOOD)), Action.ADMIN).status == 403

    assert guard.authenticate(head(bearer(GOOD))).subject == "somebody"
    assert len(guard._failures) == 0


# --- tokens that were verified before --------------------------------------------------------


class Counted:
    """Keys that count how often a token is verified with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        original = KeyRing.verify

        def verify(ring: KeyRing, token: str) -> Grant:
            self.times += 1
            return original(ring, token)

        monkeypatch.setattr(KeyRing, "verify", verify)


def test_a_token_is_verified_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = make()
    counted = Counted(monkeypatch)
    for _ in range(5):
        assert "somebody" == guard.authenticate(head(bearer(GOOD))).subject
        assert "other" == guard.authenticate(head(bearer(OTHER))).subject
    assert 2 == counted.times

    guard.reconfigure(guard.keys)
    guard.authenticate(head(bearer(GOOD)))
    assert 3 == counted.times, "the settings may be others"
    guard.revocations.revoke("somebody", time.time())
    refusal(guard.authenticate, head(bearer(GOOD)))
    assert 3 == counted.times


def test_bad_tokens_lock_no_good_one_out(make: Make) -> None:
    guard = make(limits=LIMIT)
    guard.authenticate(head(bearer(GOOD)))
    for _ in range(100):
        refusal(guard.authenticate, head(bearer(BAD)))

    assert "somebody" == guard.authenticate(head(bearer(GOOD))).subject
    assert "other" == guard.authenticate(head(bearer(OTHER))).subject, "it was never seen before"
    assert 429 == refusal(guard.authenticate, head({**bearer(GOOD), **cookie(BAD)})).status


# --- other sites' pages ----------------------------------------------------------------------

HOST = {"Host": "Events.example:8000"}
CORS = {"cors_origins": ["https://app.example", "*"]}


@pytest.mark.parametrize(
    "origin", ["https://app.example", "http://events.example:8000", "https://EVENTS.example:8000"]
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_cookie_changes_something_for_pages_that_are_known(
    make: Make, method: str, origin: str
) -> None:
    asked = head(HOST | cookie(GOOD) | {"Origin": origin}, method=method)

    assert make(server=CORS).authenticate(asked).subject == "somebody"


@pytest.mark.parametrize(
    "headers",
    [
        HOST,
        {},
        HOST | {"Origin": "null"},
        {"Origin": "null"},
        HOST | {"Origin": ""},
        HOST | {"Origin": "https://evil.example"},
        HOST | {"Origin": "https://events.example"},
        HOST | {"Origin": "https://events.example:8000.evil.example"},
        HOST | {"Origin": "https://app.example.evil.example"},
    ],
)
def test_a_cookie_changes_nothing_for_any_other_page(make: Make, headers: dict[str, str]) -> None:
    asked = head(headers | cookie(GOOD), method="POST")

    assert refusal(make(server=CORS).authenticate, asked).status == 403


def test_to_look_with_a_cookie_is_harmless(make: Make) -> None:
    evil = HOST | cookie(GOOD) | {"Origin": "https://evil.example"}

    assert make().authenticate(head(evil)).subject == "somebody"


@pytest.mark.parametrize("beside", [{}, cookie(GOOD)])
def test_a_token_that_the_page_itself_sent_needs_no_origin(
    make: Make, beside: dict[str, str]
) -> None:
    asked = head(HOST | bearer(GOOD) | beside | {"Origin": "https://evil.example"}, method="POST")

    assert make().authenticate(asked).subject == "somebody"


def test_a_bad_cookie_is_401_whoever_asks(make: Make) -> None:
    assert refusal(make().authenticate, head(HOST | cookie(BAD), method="POST")).status == 401


# --- revocation, used tickets, EventSource ------------------------------------------------------


def test_what_a_subject_had_when_it_was_revoked_is_denied_and_what_it_gets_then_is_good(
    make: Make,
) -> None:
    guard = make()
    issued = {name: claims(subscribe=("s",), sub="somebody") for name in ("old", "new")}
    old = sign({**issued["old"], "iat": int(time.time()) - 10})
    new = sign({**issued["new"], "iat": int(time.time())})
    assert "somebody" == guard.authenticate(head(bearer(old))).subject
    guard.revocations.revoke("somebody", time.time() - 5)  # and time has passed since

    for denied in (old, sign(issued["old"])):  # the latter does not say when it was issued
        refused = refusal(guard.authenticate, head(bearer(denied)))
        assert (401, TokenFault.REVOKED) == (refused.status, refused.detail)
    assert "somebody" == guard.authenticate(head(bearer(new))).subject
    assert "other" == guard.authenticate(head(bearer(OTHER))).subject


def test_a_ticket_is_denied_as_the_token_is_that_it_was_issued_for(make: Make) -> None:
    guard = make()
    tickets = [
        guard.tickets.issue("s", Grant("me", subscribe=("s",), issued_at=issued_at))
        for issued_at in (None, 1000.0, 1001.0)
    ]
    guard.revocations.revoke("me", 1000.0)

    for ticket in tickets[:2]:
        refused = refusal(guard.authorize_stream, head(query={"ticket": ticket}), "s")
        assert (401, TokenFault.REVOKED) == (refused.status, refused.detail)
    assert "me" == guard.authorize_stream(head(query={"ticket": tickets[2]}), "s").subject


def test_a_ticket_that_was_good_once_is_no_guess(make: Make) -> None:
    guard = make(limits=LIMIT)
    ticket = head(query={"ticket": guard.tickets.issue("s", Grant("me", subscribe=("s",)))})
    guard.authorize_stream(ticket, "s")

    assert [401] * 9 == [refusal(guard.authorize_stream, ticket, "s").status for _ in range(9)]
    assert 0 == len(guard._failures)


def test_an_event_source_is_never_told_429(make: Make) -> None:
    guard = make(limits=LIMIT)
    accepts = {"Accept": "text/event-stream"}
    for fields in (bearer(BAD), bearer(BAD), bearer(BAD), bearer(BAD)):
        refusal(guard.authenticate, head(fields))

    assert 401 == refusal(guard.authorize_stream, head({**accepts, **bearer(BAD)}), "s").status


# --- pages of other sites, where no token is asked for ------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Host": "localhost:8000"},
        {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"},
        {"Host": "events.example", "Origin": "https://events.example"},
        {"Host": "localhost:8000", "Origin": "http://localhost:5173"},
        {"Host": "localhost:8000", "Origin": "https://app.example"},
    ],
    ids=str,
)
def test_without_tokens_local_hosts_and_those_that_are_listed_are_served(
    fields: Mapping[str, str], make: Make
) -> None:
    listed = {"allowed_hosts": ["events.example"], "cors_origins": ["https://app.example"]}
    guard = make({"mode": "none"}, server=listed)

    assert EVERYONE == guard.authenticate(head(fields))


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (421, {"Host": "evil.example"}),
        (421, {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}),
        (403, {"Host": "localhost:8000", "Origin": "https://evil.example"}),
        (403, {"Host": "localhost:8000", "Origin": "null"}),
    ],
    ids=str,
)
def test_without_tokens_a_page_of_another_site_is_refused(
    status: int, fields: Mapping[str, str], make: Make
) -> None:
    guard = make({"mode": "none"})

    assert status == refusal(guard.authenticate, head(fields)).status
