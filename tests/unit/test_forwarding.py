"""The client of a request, and the record of a proxy that nobody trusts."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import pytest
import structlog

from broadcasterd.config import Limits
from broadcasterd.server.forwarding import MAX_RECORDED, Forwarding
from tests.support.broadcast import in_force

Log = list[MutableMapping[str, object]]

TOLD = {"x-forwarded-for": "192.0.2.7"}


class Clock:
    """Stands still until it is put forward."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def forwarding(*trusted: str, clock: Clock | None = None) -> Forwarding:
    settings = in_force(Limits(trusted_proxies=trusted))
    return Forwarding(settings, clock or Clock())


@pytest.fixture
def log() -> Iterator[Log]:
    """Return what is logged."""
    with structlog.testing.capture_logs() as records:
        yield records


@pytest.mark.parametrize("fields", [TOLD, {"forwarded": "for=192.0.2.7"}])
def test_a_trusted_proxy_is_believed_without_a_word(fields: dict[str, str], log: Log) -> None:
    assert "192.0.2.7" == forwarding("127.0.0.0/8").client_of("127.0.0.1", fields)
    assert [] == log


@pytest.mark.parametrize("peer", ["203.0.113.9", "::ffff:203.0.113.9"])
def test_a_peer_without_these_fields_is_the_client(peer: str, log: Log) -> None:
    assert "203.0.113.9" == forwarding("127.0.0.0/8").client_of(peer, {"host": "a"})
    assert [] == log


@pytest.mark.parametrize(
    ("fields", "field"),
    [(TOLD, "X-Forwarded-For"), ({"forwarded": "for=192.0.2.7"}, "Forwarded")],
)
def test_a_proxy_that_is_not_trusted_is_recorded_with_the_setting(
    fields: dict[str, str], field: str, log: Log
) -> None:
    assert "203.0.113.9" == forwarding("10.0.0.0/8").client_of("::ffff:203.0.113.9", fields)
    said = [(each["peer"], each["field"], each["setting"]) for each in log]

    assert [("203.0.113.9", field, "limits.trusted_proxies")] == said


def test_a_peer_is_recorded_once_an_hour(log: Log) -> None:
    clock = Clock()
    some = forwarding(clock=clock)
    for now in (0.0, 1.0, 3599.0, 3600.0, 3601.0):
        clock.now = now
        for peer in ("203.0.113.9", "203.0.113.10"):
            some.client_of(peer, TOLD)

    assert ["203.0.113.9", "203.0.113.10"] * 2 == [each["peer"] for each in log]


def test_no_more_peers_are_remembered_than_a_limit() -> None:
    some = forwarding()
    for number in range(MAX_RECORDED + 100):
        some.client_of(f"10.0.{number // 256}.{number % 256}", TOLD)

    assert len(some._records) <= MAX_RECORDED
