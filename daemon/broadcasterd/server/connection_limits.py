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
from typing_extensions import override

from broadcasterd.access.client_address import (
    client_address,
    client_group,
    is_trusted,
    parse_networks,
)
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.tally import Tally
from broadcasterd.config import Settings
from broadcasterd.memory.account import Account, Holding
from broadcasterd.memory.holdings import CONNECTION_BYTES

log = structlog.stdlib.get_logger(__name__)

RESERVED_DESCRIPTORS = 64
"""For all but connections: listening sockets, epoll, the log, and the files of /proc and the
cgroup that the supervisor reads. Without them the daemon fails, not a client."""

RECORDS_PER_S = 1 / 60
"""Every refusal is counted; those of one client are recorded once a minute."""

MAX_RECORDED = 1000
"""Clients of whom it is known when they were recorded last."""


class Place(Holding):
    """A connection's place, and the bytes that the connection makes us hold."""

    __slots__ = ("_group", "_places")

    def __init__(self, places: ConnectionLimits, group: str | None, account: Account) -> None:
        super().__init__(account)
        self._places: ConnectionLimits | None = places
        self._group = group

    @override
    def take(self, size: int) -> None:
        """Take ``size`` bytes more; nothing, where the connection is gone already."""
        if self._places is not None:
            super().take(size)

    def give_back(self) -> None:
        """Let somebody else have it, and the memory. Idempotent."""
        if self._places is not None:
            self.hold(0)
            self._places.gave_back(self._group)
            self._places = None


class ConnectionLimits:
    """All the places there are.

    Args:
        settings: those in force; who has a place keeps it, whatever they become.
        account: has the bytes of all connections.
        is_crowded: whether clients take all the memory that they may.
        clock: seconds on a monotonic clock.

    """

    def __init__(
        self,
        settings: Settings,
        account: Account | None = None,
        *,
        is_crowded: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._settings = settings
        self._account = Account() if account is None else account
        self._is_crowded = is_crowded
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
        if self.taken >= limits.max_connections or self.taken >= self._fitting:
            self._refuse("limits.max_connections", peer=address)
            return None
        if self._is_crowded():
            self._refuse("memory.critical_mb", peer=address)
            return None
        if self._of_client[group] >= limits.max_connections_per_address:
            self._refuse("limits.max_connections_per_address", peer=address, key=group or "")
            return None
        place = self._place(group)
        place.hold(CONNECTION_BYTES)
        return place

    def keep(self, address: str, *, is_stream: bool) -> Place:
        """Return a place for a connection that had one in the process before, whatever there is.

        What a stream takes is counted by the hub.
        """
        place = self._place(self._group_of(address))
        place.hold(0 if is_stream else CONNECTION_BYTES)
        return place

    def _group_of(self, address: str) -> str | None:
        if self._trusted and is_trusted(address, self._trusted):
            return None
        return client_group(address)

    def _place(self, group: str | None) -> Place:
        self.taken += 1
        self._of_client.add(group)
        return Place(self, group, self._account)

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
                limit=limit,
                peer=client_address(peer, {}, ()),  # as an operator writes it: no ::ffff:192.0.2.7
                now=self.taken,
                refused=self.refused[limit],
            )
