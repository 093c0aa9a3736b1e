"""The reasons that clients read, and dashboards and alerts count by."""

from __future__ import annotations

import pytest

from broadcasterd.core.reasons import EndReason

TOLD = {
    "session_closed": False,
    "session_expired": False,
    "slow_consumer": True,
    "token_expired": True,
    "draining": True,
    "memory": True,
    "revoked": False,
}
"""What ``broadcaster.end`` may say, and whether it asks to come back: clients rely on these."""


@pytest.mark.parametrize(("name", "reconnect"), TOLD.items())
def test_what_a_client_is_told_keeps_its_name_and_meaning(name: str, *, reconnect: bool) -> None:
    assert EndReason(name).reconnect == reconnect


def test_only_what_is_over_or_denied_is_not_worth_coming_back_to() -> None:
    final = {reason for reason in EndReason if not reason.reconnect}

    assert final == {EndReason.SESSION_CLOSED, EndReason.SESSION_EXPIRED, EndReason.REVOKED}


def test_a_reason_is_its_name_wherever_it_is_written() -> None:
    assert "slow_consumer" == str(EndReason.SLOW_CONSUMER) == f"{EndReason.SLOW_CONSUMER}"


@pytest.mark.parametrize("reason", EndReason)
def test_a_reason_can_label_a_metric(reason: EndReason) -> None:
    assert reason.value == reason.name.lower()
    assert reason.value.isascii()
