"""Quotas: how much of the daemon each client and each subject has, and may have.

A client is an address, or a /64 of IPv6; a subject is the one that a token was issued for.
Requests without a subject are counted by their client alone.
"""

from __future__ import annotations

from collections.abc import Callable

from broadcasterd.access.client_address import client_group
from broadcasterd.access.ratelimit import RateLimiter
from broadcasterd.access.tally import Tally
from broadcasterd.config import Limits, Settings

MAX_PUBLISHERS = 10_000
"""Subjects whose recent publishing is remembered: 2 MB at most."""


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
        limits = settings.limits
        self._published = RateLimiter(
            limits.publish_rate, limits.publish_burst, max_keys=MAX_PUBLISHERS, clock=clock
        )

    @property
    def limits(self) -> Limits:
        """The ``[limits]`` settings in force."""
        return self._settings.limits

    def reconfigure(self) -> None:
        """Go on with the settings now in force; streams and sessions above them stay."""
        self._published.reconfigure(self.limits.publish_rate, self.limits.publish_burst)

    def stream_opened(self, peer: str, subject: str | None) -> None:
        """Count a stream."""
        self.streams_of_client.add(client_group(peer))
        self.streams_of_subject.add(subject)

    def stream_ended(self, peer: str, subject: str | None) -> None:
        """Stop counting a stream."""
        self.streams_of_client.remove(client_group(peer))
        self.streams_of_subject.remove(subject)

    def used_up_by_streams(self, peer: str, subject: str | None) -> str | None:
        """Return the setting that allows no further stream of an address or a subject, if any."""
        if self.streams_of_client[client_group(peer)] >= self.limits.max_subscribers_per_address:
            return "max_subscribers_per_address"
        if self.streams_of_subject[subject] >= self.limits.max_subscribers_per_subject:
            return "max_subscribers_per_subject"
        return None

    def used_up_by_sessions(self, subject: str | None) -> str | None:
        """Return the setting that allows a subject to open no further session, if any."""
        if self.sessions_of_subject[subject] >= self.limits.max_sessions_per_subject:
            return "max_sessions_per_subject"
        return None

    def take_events(self, subject: str | None, events: int) -> float:
        """Let a subject publish so many events and return 0, or else return the seconds to wait."""
        return 0.0 if subject is None else self._published.take(subject, events)

    def wait_for_events(self, subject: str | None) -> float:
        """Return how long a subject has to wait until it may publish again, in seconds."""
        return 0.0 if subject is None else self._published.would_wait(subject)
