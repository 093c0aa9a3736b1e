"""Quotas: how much of the daemon each client and each subject has, and may have.

A client is an address, or a /64 of IPv6; a subject is the one that a token was issued for.
Requests without a subject are counted by their client alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from broadcasterd.access.client_address import client_group
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.tally import Tally
from broadcasterd.config import Limits, Settings

MAX_PUBLISHERS = 10_000
"""Subjects whose recent publishing is remembered: 4 MB at most."""


class Wait(NamedTuple):
    """How long a subject has to wait until it may publish, in seconds, and by which setting."""

    seconds: float
    setting: str


class Quotas:
    """Counts, kept as streams and sessions come and go.

    Args:
        settings: those in force.
        clock: seconds on a monotonic clock.

    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self.streams_of_client = Tally()
        self.streams_of_subject = Tally()
        self.sessions_of_subject = Tally()
        self.publishing_of_subject = Tally()
        self.pending_of_subject = Tally()
        limits = settings.limits
        self._events = RateLimiter(
            limits.publish_rate, limits.publish_burst, max_keys=MAX_PUBLISHERS, clock=clock
        )
        self._bytes = RateLimiter(
            limits.publish_rate_bytes,
            limits.publish_burst_bytes,
            max_keys=MAX_PUBLISHERS,
            clock=clock,
        )

    @property
    def limits(self) -> Limits:
        """The ``[limits]`` settings in force."""
        return self._settings.limits

    def reconfigure(self) -> None:
        """Go on with the settings now in force; streams and sessions above them stay."""
        limits = self.limits
        self._events.reconfigure(limits.publish_rate, limits.publish_burst)
        self._bytes.reconfigure(limits.publish_rate_bytes, limits.publish_burst_bytes)

    def stream_opened(self, peer: str, subject: str | None) -> bool:
        """Count a stream; return whether its address and its subject may have so many."""
        limits = self._settings.limits
        of_client = self.streams_of_client.add(client_group(peer))
        of_subject = self.streams_of_subject.add(subject)
        return (
            of_client <= limits.max_subscribers_per_address
            and of_subject <= limits.max_subscribers_per_subject
        )

    def stream_ended(self, peer: str, subject: str | None) -> None:
        """Stop counting a stream."""
        self.streams_of_client.remove(client_group(peer))
        self.streams_of_subject.remove(subject)

    def used_up_by_streams(self, peer: str, subject: str | None) -> str | None:
        """Return the setting that allows no further stream of an address or a subject, if any."""
        limits = self._settings.limits
        if self.streams_of_client[client_group(peer)] >= limits.max_subscribers_per_address:
            return "max_subscribers_per_address"
        if (
            subject is not None
            and self.streams_of_subject[subject] >= limits.max_subscribers_per_subject
        ):
            return "max_subscribers_per_subject"
        return None

    def used_up_by_sessions(self, subject: str | None) -> str | None:
        """Return the setting that allows a subject to open no further session, if any."""
        if self.sessions_of_subject[subject] >= self.limits.max_sessions_per_subject:
            return "max_sessions_per_subject"
        return None

    def take(self, subject: str | None, *, events: int, size: int) -> Wait | None:
        """Let a subject publish so many events, of so many bytes; or else return its wait."""
        if subject is None:
            return None
        if seconds := self._bytes.would_wait(subject, size):
            return Wait(seconds, "publish_rate_bytes")
        if seconds := self._events.take(subject, events):
            return Wait(seconds, "publish_rate")
        self._bytes.take(subject, size)
        return None

    def wait(self, subject: str | None) -> Wait | None:
        """Return the wait of a subject that may not publish anything now, and take nothing."""
        if subject is None:
            return None
        if seconds := self._events.would_wait(subject):
            return Wait(seconds, "publish_rate")
        if seconds := self._bytes.would_wait(subject):
            return Wait(seconds, "publish_rate_bytes")
        return None
