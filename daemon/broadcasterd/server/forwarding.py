"""The client of each request: its peer, or the client for whom a trusted proxy speaks.

A proxy that nobody trusts makes all its clients one: they share its limits, and the log has its
address instead of theirs. Nothing fails, so it is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
import trio

from broadcasterd.access.client_address import client_address, is_trusted, parse_networks
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.config import Settings

log = structlog.stdlib.get_logger(__name__)

RECORDS_PER_S = 1 / 3600
"""A record of a peer once an hour: it sends the field with every request."""

MAX_RECORDED = 1000
"""Peers of whom it is known when they were recorded last."""


class Forwarding:
    """Knows whose word counts.

    Args:
        settings: those in force.
        clock: seconds on a monotonic clock.

    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = trio.current_time) -> None:
        self._settings = settings
        self._records = RateLimiter(RECORDS_PER_S, 1, max_keys=MAX_RECORDED, clock=clock)
        self.reconfigure()

    def reconfigure(self) -> None:
        """Go on with the settings now in force."""
        self._trusted = parse_networks(self._settings.limits.trusted_proxies)

    def client_of(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of a request's client.

        Args:
            peer: the other end of its connection.
            headers: its header fields, by name in lower case.

        """
        if "x-forwarded-for" in headers:
            self._check(peer, "X-Forwarded-For")
        elif "forwarded" in headers:
            self._check(peer, "Forwarded")
        elif not peer.startswith("::ffff:"):  # the usual case costs nothing
            return peer
        return client_address(peer, headers, self._trusted)

    def _check(self, peer: str, field: str) -> None:
        if is_trusted(peer, self._trusted) or self._records.take(peer) > 0:
            return
        log.warning(
            "a proxy is not trusted: its clients count as one",
            peer=client_address(peer, {}, ()),  # as an operator writes it: no ::ffff:192.0.2.7
            field=field,
            setting="limits.trusted_proxies",
        )
