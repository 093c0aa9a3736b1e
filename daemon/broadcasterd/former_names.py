"""Settings of in-process broadcasters that people come from, and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "max_queue_size": "sessions.max_lag_events",
    "max_history_per_session": "sessions.max_history_events",
    "max_subscriber_idle_time": "sessions.heartbeat_interval",
    "enable_metrics": "memory.breaker",
    "memory_warning_threshold_mb": "memory.warning_mb",
    "memory_critical_threshold_mb": "memory.critical_mb",
}
"""Keys of a file, in whatever section."""

VARIABLES: Mapping[str, str] = {
    "SSE_MAX_QUEUE_SIZE": "BROADCASTERD_SESSIONS__MAX_LAG_EVENTS",
    "SSE_MAX_HISTORY_PER_SESSION": "BROADCASTERD_SESSIONS__MAX_HISTORY_EVENTS",
    "SSE_EVENT_TTL": "BROADCASTERD_SESSIONS__EVENT_TTL",
    "SSE_SESSION_TTL": "BROADCASTERD_SESSIONS__SESSION_TTL",
    "SSE_CLEANUP_INTERVAL": "BROADCASTERD_SESSIONS__CLEANUP_INTERVAL",
    "SSE_MEMORY_WARNING_MB": "BROADCASTERD_MEMORY__WARNING_MB",
    "SSE_MEMORY_CRITICAL_MB": "BROADCASTERD_MEMORY__CRITICAL_MB",
    "REQUIRE_SSE_AUTH": "BROADCASTERD_AUTH__MODE",
    "AUTH_REQUIRE_SSE_AUTH": "BROADCASTERD_AUTH__MODE",
}
"""Variables of the environment that no other program has."""
