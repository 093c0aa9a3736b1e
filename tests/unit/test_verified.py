"""Verified tokens are remembered: for how long, how many, and as what."""

from __future__ import annotations

import gc

import pytest

from broadcasterd.access.grants import Grant
from broadcasterd.access.verified import MAX_TOKEN_CHARS, VerifiedTokens

ALICE = Grant("alice", publish=("a",))
BOB = Grant("bob", expires_at=200.0)


class WallClock:
    """A clock that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


def test_what_was_not_verified_is_not_known(clock: WallClock) -> None:
    tokens = VerifiedTokens(clock)
    tokens.remember("a", ALICE)

    assert tokens.find("b") is None
    assert tokens.find("") is None
    assert tokens.find("a ") is None
    assert tokens.find("\ud800") is None
    assert ALICE is tokens.find("a")


def test_a_token_is_forgotten_when_it_expires(clock: WallClock) -> None:
    tokens = VerifiedTokens(clock)
    tokens.remember("a", ALICE)
    tokens.remember("b", BOB)
    clock.now = 199.9
    assert BOB is tokens.find("b")
    clock.now = 200.0

    assert tokens.find("b") is None
    assert 1 == len(tokens)
    assert ALICE is tokens.find("a"), "it never expires"


def test_there_is_a_limit_on_how_many_are_kept(clock: WallClock) -> None:
    tokens = VerifiedTokens(clock, max_tokens=3)
    for name in "abcd":
        tokens.remember(name, Grant(name))

    assert 3 == len(tokens)
    assert tokens.find("a") is None
    assert [Grant(name) for name in "bcd"] == [tokens.find(name) for name in "bcd"]


def test_a_token_of_any_size_takes_its_place_once(clock: WallClock) -> None:
    tokens = VerifiedTokens(clock, max_tokens=3)
    for _ in range(5):
        tokens.remember("a", ALICE)
    tokens.remember("b" * MAX_TOKEN_CHARS, BOB)
    tokens.remember("c" * (MAX_TOKEN_CHARS + 1), BOB)

    assert 2 == len(tokens)
    assert BOB == tokens.find("b" * MAX_TOKEN_CHARS)
    assert tokens.find("c" * (MAX_TOKEN_CHARS + 1)) is None


def test_nothing_that_is_kept_is_a_token(clock: WallClock) -> None:
    tokens = VerifiedTokens(clock)
    token = "eyJhbGciOi".join("xyz")
    tokens.remember(token, ALICE)
    [kept] = [found for found in gc.get_referents(tokens._grants) if isinstance(found, bytes)]

    assert token not in repr(vars(tokens))
    assert kept != VerifiedTokens(clock)._digest(token), "another process has another key"
