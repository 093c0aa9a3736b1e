"""Revoked subjects: what they had is denied, and what they get afterwards is not."""

from __future__ import annotations

import pytest

from broadcasterd.access import revocations as module
from broadcasterd.access.grants import Grant
from broadcasterd.access.revocations import Revocations

NOON = 1_764_000_000.0


@pytest.fixture
def revocations() -> Revocations:
    found = Revocations()
    found.revoke("me", NOON)
    return found


@pytest.mark.parametrize("issued_at", [None, NOON - 1, NOON])
def test_a_grant_of_before_is_denied(revocations: Revocations, issued_at: float | None) -> None:
    assert revocations.denies(Grant("me", issued_at=issued_at))


@pytest.mark.parametrize(
    "grant", [Grant("me", issued_at=NOON + 1), Grant("other"), Grant(None)], ids=str
)
def test_others_and_newer_ones_are_not(revocations: Revocations, grant: Grant) -> None:
    assert not revocations.denies(grant)


def test_the_one_that_was_revoked_first_is_forgotten_where_there_are_too_many(
    revocations: Revocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REVOKED", 2)
    revocations.revoke("other", NOON - 5)

    assert [("me", NOON), ("other", NOON - 5)] == list(revocations)

    revocations.revoke("third", NOON)

    assert [("other", NOON - 5), ("third", NOON)] == list(revocations)


@pytest.mark.parametrize(("at", "is_new"), [(NOON - 1, False), (NOON, False), (NOON + 1, True)])
def test_the_later_time_counts(revocations: Revocations, at: float, *, is_new: bool) -> None:
    assert is_new is revocations.revoke("me", at)
    assert [("me", max(NOON, at))] == list(revocations)
