"""JSON Schemas of the bodies of requests and answers; ``openapi.py`` puts them in place.

The objects of answers are left open: a client has to accept members that it does not know.
"""

from __future__ import annotations

import msgspec

from broadcasterd.api.grants import TicketRequest
from broadcasterd.api.posted import MAX_ARRAY_EVENTS, Posted
from broadcasterd.figures.watched import Watched
from broadcasterd.memory.breaker import State

Schema = dict[str, object]

REFERENCE = "#/components/schemas/{name}"


def reference(name: str) -> Schema:
    """Return the reference to one of :func:`components`."""
    return {"$ref": REFERENCE.format(name=name)}


def array(items: Schema, **bounds: int) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **bounds}


def record(required: Schema, optional: Schema | None = None) -> Schema:
    """Return the schema of an object by its members."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


def or_null(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "number", "minimum": 0}
MEGABYTES: Schema = {"type": "number", "minimum": 0}
MILLISECONDS: Schema = {"type": "number", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9]+$"}

EVENTS: Schema = {
    "oneOf": [reference("Posted"), array(reference("Posted"), maxItems=MAX_ARRAY_EVENTS)]
}

# Where a body is a stream, its schema describes each item, as readers see it.
LINE = reference("Posted")
STREAM_EVENT: Schema = record({"data": TEXT}, {"event": TEXT, "id": TEXT, "retry": COUNT})

_PROGRESS: Schema = {
    "session": TEXT,
    "accepted": COUNT,
    "first_id": or_null(ID),
    "last_id": or_null(ID),
    "subscribers": COUNT,
}

# Of a relayed stream: whether its last event was cut off, how often something was no UTF-8.
_REMARKS: Schema = {"incomplete": {"const": True}, "replaced": COUNT}

_STATUS: Schema = {"enum": ["healthy", "degraded", "unhealthy"]}
_BREAKER: Schema = {"enum": ["off", *(state.value for state in State)]}
_MEMORY = record(
    {
        "rss_mb": MEGABYTES,
        "used_mb": MEGABYTES,
        "accounted_mb": MEGABYTES,
        "clients_mb": MEGABYTES,
        "warning_mb": MEGABYTES,
        "critical_mb": MEGABYTES,
        "breaker": _BREAKER,
        "trend": record({"used_mb": array(MEGABYTES), "mb_per_minute": NUMBER}),
    },
    {"cgroup_limit_mb": MEGABYTES, "stalled_percent": NUMBER, "unfreeable_mb": MEGABYTES},
)
_ENGINE: Schema = {"kind": TEXT, "state": {"enum": ["up", "down"]}}
_LOOP = record({"lag_ms": NUMBER, "max_lag_ms": NUMBER, "long_steps": COUNT})
_COUNTS: Schema = {"type": "object", "additionalProperties": COUNT}
_QUANTILES = record({"count": COUNT, **dict.fromkeys(("p50", "p95", "p99", "max"), MILLISECONDS)})
_CHANGE = record({"time": TIME, "from": _BREAKER, "to": _BREAKER, "used_mb": MEGABYTES})


_STREAM = record(
    {
        "stream": TEXT,
        "peer": TEXT,
        "subject": or_null(TEXT),
        "age_s": SECONDS,
        **dict.fromkeys(("lag_events", "sent_events", "sent_bytes", "pending_bytes"), COUNT),
    }
)


def _of_windows(schema: Schema) -> Schema:
    """Return the schema of a figure over the last 10 s, minute and 10 min."""
    return record(dict.fromkeys(("10s", "1m", "10m"), schema))


_NAMED: dict[str, Schema] = {
    "Answer": record(_PROGRESS, {"duplicates": COUNT, **_REMARKS}),
    "Page": record(
        {
            "session": TEXT,
            "events": array(record({"id": ID, "event": TEXT, "data": TEXT, "time": TIME})),
            "next": ID,
        },
        {"gap": record({"asked": TEXT, "oldest": or_null(ID)})},
    ),
    "Session": record(
        {
            "session": TEXT,
            "subscribers": COUNT,
            "retained_events": COUNT,
            "retained_bytes": COUNT,
            "oldest_id": or_null(ID),
            "last_id": or_null(ID),
            "oldest_age_s": or_null(SECONDS),
            "age_s": SECONDS,
            "idle_s": SECONDS,
        }
    ),
    "Sessions": record(
        {
            "sessions": array(reference("Session")),
            "next": or_null(TEXT),
            "found": COUNT,
            "total": COUNT,
        }
    ),
    "Streams": record({"session": TEXT, "streams": array(_STREAM), "total": COUNT}),
    "Ticket": record({"ticket": TEXT, "session": TEXT, "expires_in": COUNT}),
    "Renewal": record({"stream": TEXT, "expires_at": or_null(NUMBER)}),
    "Revocation": record({"subject": TEXT, "ended": COUNT}),
    "Health": record(
        {
            "status": _STATUS,
            "memory": _MEMORY,
            "engine": record(_ENGINE, {"why": TEXT}),
            "loop": _LOOP,
            "sessions": COUNT,
            "subscribers": COUNT,
            "alerts": array(TEXT),
            "uptime_s": SECONDS,
            "version": TEXT,
        }
    ),
    "Stats": record(
        {
            "status": _STATUS,
            "uptime_s": SECONDS,
            "version": TEXT,
            "sessions": COUNT,
            "streams": COUNT,
            "connections": COUNT,
            "engine": record(
                {
                    **_ENGINE,
                    **dict.fromkeys(("disk_bytes", "commits", "committed_events"), COUNT),
                    "lost_events": COUNT,
                    "commit_ms": _QUANTILES,
                },
                {"why": TEXT},
            ),
            "alerts": array(
                record(
                    {
                        "name": TEXT,
                        "firing": {"type": "boolean"},
                        "firing_s": or_null(SECONDS),
                        "severity": {"enum": ["info", "warning", "error", "critical"]},
                        "metric": {"enum": [*Watched]},
                        "value": or_null(NUMBER),
                        "threshold": NUMBER,
                    }
                )
            ),
            "counters": record(
                {
                    **dict.fromkeys(("events", "duplicates", "deliveries", "gaps"), COUNT),
                    **dict.fromkeys(("delivered_bytes", "streams_opened"), COUNT),
                    "publishes": {"type": "object", "additionalProperties": _COUNTS},
                    **dict.fromkeys(("streams_ended", "refused", "failures"), _COUNTS),
                    **dict.fromkeys(
                        ("log_records", "breaker_transitions", "expired", "notices"), _COUNTS
                    ),
                }
            ),
            "performance": record(
                {
                    "rates": _of_windows({"type": "object", "additionalProperties": NUMBER}),
                    "error_rate": _of_windows({"type": "number", "minimum": 0, "maximum": 1}),
                    "latency_ms": record(
                        {
                            **dict.fromkeys(("publish", "fan_out", "loop_lag"), _QUANTILES),
                            "requests": {"type": "object", "additionalProperties": _QUANTILES},
                        }
                    ),
                    "errors": _COUNTS,
                    "loop": _LOOP,
                    "memory": _MEMORY,
                    "breaker": record({"state": _BREAKER, "history": array(_CHANGE)}),
                }
            ),
        }
    ),
    # RFC 9457, and the members that say how far a publisher came.
    "Problem": record(
        {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT},
        {**_PROGRESS, "duplicates": COUNT, "index": COUNT, "line": COUNT, "event": COUNT},
    ),
}


def components() -> dict[str, Schema]:
    """Return the named schemas: those of structs as msgspec has them, and those above."""
    _, structs = msgspec.json.schema_components([Posted, TicketRequest], ref_template=REFERENCE)
    return {**structs, **_NAMED}
