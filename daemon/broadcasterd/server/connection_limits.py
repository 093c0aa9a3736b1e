"""Room for connections: in all, and of one client.

A connection takes a place when it is accepted, and gives it back when its socket closes, in whose
hands that may be. A connection that finds no place is reset at once, before anything is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import inf
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

import structlog
import trio

from broadcasterd.access.client_address import (
    client_address,
    client_group,
    is_trusted,
    parse_networks,
)
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.tally import Tally
from broadcasterd.config import Settings

log = structlog.stdlib.get_logger(__name__)

RESERVED_DESCRIPTORS = 64
"""For all but connections: listening sockets, epoll, the log, and the files of /proc and the
cgroup that the supervisor reads. Without them the daemon fails, not a client."""

RECORDS_PER_S = 1 / 60
"""Every refusal is counted; those of one client are recorded once a minute."""

MAX_RECORDED = 1000
"""Clients of whom it is known when they were recorded last."""


class Place:
    """A connection's place."""

    __slots__ = ("_group", "_places")

    def __init__(self, places: ConnectionLimits, group: str | None) -> None:
        self._places: ConnectionLimits | None = places
        self._group = group

    def give_back(self) -> None:
        """Let somebody else have it. Idempotent."""
        if self._places is not None:
            self._places.gave_back(self._group)
            self._places = None


class ConnectionLimits:
    """All the places there are.

    Args:
        settings: those in force; who has a place keeps it, whatever they become.
        clock: seconds on a monotonic clock.

    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = trio.current_time) -> None:
        self._settings = settings
        self._of_client = Tally()
        self._fitting = inf  # places that the open files allow
        self._records = RateLimiter(RECORDS_PER_S, 1, max_keys=MAX_RECORDED, clock=clock)
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self.reconfigure()

    def reconfigure(self) -> None:
        """Go on with the settings now in force."""
        self._trusted = parse_networks(self._settings.limits.trusted_proxies)

    def fit_descriptors(self) -> None:
        """Allow ourselves as many open files as it takes; or else have fewer places.

        The soft limit is low for the sake of select(2), which nothing here uses.
        """
        wanted = self._settings.limits.max_connections + RESERVED_DESCRIPTORS
        self._fitting = inf
        soft, hard = getrlimit(RLIMIT_NOFILE)
        if soft == RLIM_INFINITY or soft >= wanted:
            return
        if hard == RLIM_INFINITY or hard > soft:
            soft = wanted if hard == RLIM_INFINITY else min(wanted, hard)
            setrlimit(RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            self._fitting = max(1, soft - RESERVED_DESCRIPTORS)
            log.warning(
                "fewer connections than limits.max_connections: too few open files are allowed",
                connections=self._fitting,
                open_files=soft,
            )

    def take(self, address: str) -> Place | None:
        """Return a place for a connection from ``address``; ``None`` if there is none.

        A trusted proxy speaks for many clients, and has no limit of its own.
        """
        group = self._group_of(address)
        limits = self._settings.limits
        if self.taken >= min(limits.max_connections, self._fitting):
            self._refuse("max_connections", peer=address)
            return None
        if self._of_client[group] >= limits.max_connections_per_address:
            self._refuse("max_connections_per_address", peer=address, key=group or "")
            return None
        return self._place(group)

    def keep(self, address: str) -> Place:
        """Return a place for a connection that had one in the process before, whatever there is."""
        return self._place(self._group_of(address))

    def _group_of(self, address: str) -> str | None:
        return None if is_trusted(address, self._trusted) else client_group(address)

    def _place(self, group: str | None) -> Place:
        self.taken += 1
        self._of_client.add(group)
        return Place(self, group)

    def gave_back(self, group: str | None) -> None:
        """Note that a place is free again. Only places call this, once each."""
        self.taken -= 1
        self._of_client.remove(group)

    def accept_failed(self, error: OSError) -> None:
        """Count and record that the system would not let us have a connection."""
        self.refused["accept"] += 1
        if self._records.take("accept") == 0.0:
            log.error("connections cannot be accepted", error=error.strerror, now=self.taken)

    def _refuse(self, limit: str, *, peer: str, key: str = "") -> None:
        self.refused[limit] += 1
        if self._records.take(f"{limit} {key}") == 0.0:
            log.warning(
                "connections are refused",
                limit=f"limits.{limit}",
                peer=client_address(peer, {}, ()),  # as an operator writes it: no ::ffff:192.0.2.7
                now=self.taken,
                refused=self.refused[limit],
            )
