"""Grants: the rights in a token's claims, and the names that a glob covers."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcasterd.access.grants import (
    EVERYONE,
    MAX_GLOB_CHARS,
    MAX_GLOBS,
    MAX_SUBJECT_CHARS,
    Action,
    Grant,
    matches,
)

SOME = st.text("ab.*", max_size=12)


@pytest.mark.parametrize(
    ("glob", "covered", "not_covered"),
    [
        ("a", ["a"], ["", "A", "aa", "b"]),
        ("*", ["", "a", "a.b:c~d-e"], []),
        ("chat:*", ["chat:", "chat:42", "chat:a:b"], ["chat", "xchat:42", "Chat:42"]),
        ("*:log", [":log", "a:log"], ["a:logs", "log"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("a*b*c", ["abc", "axbxc", "abcbc"], ["acb", "ac", "abcx"]),
        ("**", ["", "a"], []),
        ("", [""], ["a"]),
        (".", ["."], ["a"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
    ],
)
def test_a_glob_covers(glob: str, covered: list[str], not_covered: list[str]) -> None:
    assert [name for name in covered if not matches(glob, name)] == []
    assert [name for name in not_covered if matches(glob, name)] == []


@given(glob=SOME, name=st.text("ab.", max_size=16))
@example(glob="a*a*a", name="aa")
def test_a_star_is_any_run_of_characters(glob: str, name: str) -> None:
    by_the_book = ".*".join(re.escape(part) for part in glob.split("*"))

    assert matches(glob, name) == bool(re.fullmatch(by_the_book, name))


def test_a_hostile_glob_is_not_tried_again_and_again() -> None:
    # A matcher that goes back to an earlier star would not return in a lifetime.
    assert not matches("*a" * 60 + "*b*", "a" * 128)


def test_each_action_needs_its_own_globs() -> None:
    grant = Grant(subscribe=("in.*",), publish=("out",))

    assert grant.allows(Action.SUBSCRIBE, "in.1")
    assert not grant.allows(Action.SUBSCRIBE, "out")
    assert grant.allows(Action.PUBLISH, "out")
    assert not grant.allows(Action.PUBLISH, "in.1")
    assert not grant.allows(Action.ADMIN)
    assert not grant.allows(Action.ADMIN, "in.1")


def test_to_be_admin_is_not_to_listen_or_to_publish() -> None:
    grant = Grant(admin=True)

    assert grant.allows(Action.ADMIN)
    assert not grant.allows(Action.SUBSCRIBE, "a")
    assert not grant.allows(Action.PUBLISH, "a")


def test_without_a_session_only_admin_is_allowed() -> None:
    assert not EVERYONE.allows(Action.SUBSCRIBE)
    assert not EVERYONE.allows(Action.PUBLISH)
    assert EVERYONE.allows(Action.ADMIN)


def test_everyone_may_do_everything_for_ever() -> None:
    assert all(EVERYONE.allows(action, "any") for action in Action)
    assert EVERYONE.expires_at is None
    assert EVERYONE.subject is None


def test_claims_make_a_grant() -> None:
    granted = {"subscribe": ["a", "b*"], "publish": ["c"], "admin": True}
    claims = {"sub": "somebody", "exp": 1764000000, "iat": 1, "broadcaster": granted, "x": {}}

    assert Grant.from_claims(claims) == Grant(
        "somebody", ("a", "b*"), ("c",), admin=True, expires_at=1764000000.0, issued_at=1.0
    )


@pytest.mark.parametrize("claims", [{}, {"broadcaster": {}}, {"sub": None, "exp": None}])
def test_what_is_not_claimed_is_not_granted(claims: dict[str, object]) -> None:
    assert Grant.from_claims(claims) == Grant()


@pytest.mark.parametrize(
    "claims",
    [
        {"broadcaster": None},
        {"broadcaster": []},
        {"broadcaster": "*"},
        {"broadcaster": {"subscribe": "*"}},
        {"broadcaster": {"subscribe": None}},
        {"broadcaster": {"subscribe": [1]}},
        {"broadcaster": {"subscribe": [""]}},
        {"broadcaster": {"subscribe": ["a/b"]}},
        {"broadcaster": {"subscribe": ["a?"]}},
        {"broadcaster": {"subscribe": ["."]}},
        {"broadcaster": {"publish": [".."]}},
        {"broadcaster": {"subscribe": ["a\n"]}},
        {"broadcaster": {"publish": ["ä"]}},
        {"broadcaster": {"publish": ["a" * (MAX_GLOB_CHARS + 1)]}},
        {"broadcaster": {"publish": ["a"] * (MAX_GLOBS + 1)}},
        {"broadcaster": {"admin": 1}},
        {"broadcaster": {"admin": "true"}},
        {"broadcaster": {"subscribes": ["a"]}},
        {"sub": ""},
        {"sub": 7},
        {"sub": "cut \ud83d"},
        {"sub": "x" * (MAX_SUBJECT_CHARS + 1)},
        {"exp": "1764000000"},
        {"exp": True},
        {"exp": math.nan},
        {"exp": math.inf},
    ],
)
def test_claims_of_another_form_are_refused(claims: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the words are msgspec's)
        Grant.from_claims(claims)


def test_the_limits_of_claims_can_be_reached() -> None:
    globs = ["*" * MAX_GLOB_CHARS] * MAX_GLOBS
    assert "x" == Grant.from_claims({"sub": "x"}).subject
    claims = {"sub": "x" * MAX_SUBJECT_CHARS, "broadcaster": {"subscribe": globs}}

    assert Grant.from_claims(claims).allows(Action.SUBSCRIBE, "a")
