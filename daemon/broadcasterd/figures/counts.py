"""The one place that everything is counted in, but for what a part counts for its own sake.

A part gets the daemon's :class:`Counts`, and adds to an attribute. One that is made without, as in
tests, gets some of its own, which nobody reads: that is the null object. All counts are since the
start of the process, and only grow.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from broadcasterd.figures.histogram import Histogram


class Format(StrEnum):
    """The format of a published body; ``OTHER`` is none that is taken."""

    JSON = "json"
    NDJSON = "ndjson"
    EVENT_STREAM = "event-stream"
    TEXT = "text"
    OTHER = "other"


class Cause(StrEnum):
    """Why a request was turned away that may be right at another moment, or with another token."""

    TOKEN = "token"  # noqa: S105 (a cause, not a secret)
    RATE = "rate"
    LIMITS = "limits"
    BREAKER = "breaker"
    ENGINE = "engine"
    DRAINING = "draining"
    CONNECTIONS = "connections"


class Requests:
    """The requests of one route.

    Attributes:
        by_status: how many were answered, by HTTP status.
        durations: from the head of the request to its answer, or to the admission of a stream.

    Those to publish are counted by format instead: see :attr:`Counts.publishes`.

    """

    __slots__ = ("by_status", "durations")

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}  # a Counter takes twice as long to count
        self.durations = Histogram()


class Counts:
    """Everything that is counted.

    Attributes:
        events: that were put into a log.
        duplicates: events that were not, for their idempotency key was there.
        publishes: requests to publish, by format and HTTP status.
        published: from a body, or a piece of a stream, that is there to its receipt.
        fan_out: from an event's place in the log to the last of its sockets.
        streams_opened: also those that an earlier process began.
        commits: durations of an engine's commits; ``committed_events`` were in them.
        refused: requests that were turned away, by cause.
        failed_requests, failed_sessions, failed_streams: failures that were contained there.
        expired_events, expired_sessions: that were forgotten because of their age.
        gaps: news of a gap that streams were told.
        dropped_records: records of the log that found its queue full.
        left_out_records: of which too many came in a second.
        notices_delivered, notices_lost: news of alerts that a webhook took; that none did.
        unwritten_records: that journald did not take. The log's listener thread alone counts them.

    """

    __slots__ = (
        "commits",
        "committed_events",
        "dropped_records",
        "duplicates",
        "events",
        "expired_events",
        "expired_sessions",
        "failed_requests",
        "failed_sessions",
        "failed_streams",
        "fan_out",
        "gaps",
        "left_out_records",
        "notices_delivered",
        "notices_lost",
        "published",
        "publishes",
        "refused",
        "streams_opened",
        "unwritten_records",
    )

    def __init__(self) -> None:
        self.events = self.duplicates = 0
        self.publishes: dict[Format, dict[int, int]] = {form: {} for form in Format}
        self.published, self.fan_out = Histogram(), Histogram()
        self.commits, self.committed_events = Histogram(), 0
        self.streams_opened = 0
        self.refused: Counter[Cause] = Counter()
        self.failed_requests = self.failed_sessions = self.failed_streams = 0
        self.expired_events = self.expired_sessions = 0
        self.gaps = 0
        self.notices_delivered = self.notices_lost = 0
        self.dropped_records = self.left_out_records = self.unwritten_records = 0

    def turned_away(self, cause: Cause | None) -> None:
        """Count a request that was turned away; without a cause, the fault was its own."""
        if cause is not None:
            self.refused[cause] += 1
