"""The figures that a rule for an alert may watch, by the names that the configuration has.

``docs/alerts.md`` says what each is; ``meter.py`` reads it.
"""

from __future__ import annotations

from enum import StrEnum


class Watched(StrEnum):
    """A figure. Those with ``per_s``, ``rate`` or ``p99`` are of the last minute."""

    USED_MB = "used_mb"
    RSS_MB = "rss_mb"
    ACCOUNTED_MB = "accounted_mb"
    CLIENTS_MB = "clients_mb"
    USED_MB_PER_MINUTE = "used_mb_per_minute"
    STALLED_PERCENT = "stalled_percent"
    SESSIONS = "sessions"
    STREAMS = "streams"
    CONNECTIONS = "connections"
    SESSIONS_SHARE = "sessions_share"
    STREAMS_SHARE = "streams_share"
    CONNECTIONS_SHARE = "connections_share"
    LOOP_LAG_MS = "loop_lag_ms"
    HEALTH_P99_MS = "health_p99_ms"
    PUBLISH_P99_MS = "publish_p99_ms"
    FAN_OUT_P99_MS = "fan_out_p99_ms"
    ENGINE_DOWN = "engine_down"
    ERROR_RATE = "error_rate"
    ERRORS_PER_S = "errors_per_s"
    REQUESTS_PER_S = "requests_per_s"
    REFUSALS_PER_S = "refusals_per_s"
    PUBLISHES_PER_S = "publishes_per_s"
    PUBLISHES_REFUSED_PER_S = "publishes_refused_per_s"
    EVENTS_PER_S = "events_per_s"
    DELIVERIES_PER_S = "deliveries_per_s"
    DELIVERED_BYTES_PER_S = "delivered_bytes_per_s"
    FAILED_TESTS_SHARE = "failed_tests_share"
    HOOKS_SECONDS = "hooks_seconds"
