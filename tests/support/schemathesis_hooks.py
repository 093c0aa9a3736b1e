"""Facts of the interface that schemathesis cannot know; it imports this module by its name."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, SerializationContext

PAGED = {"limit", "wait"}


@schemathesis.serializer("application/x-ndjson")
def as_line(context: SerializationContext, value: object) -> bytes:
    """Send an event as a line, twice: it is a stream."""
    return f"{json.dumps(value)}\n".encode() * 2


@schemathesis.serializer("text/event-stream")
def as_block(context: SerializationContext, value: object) -> bytes:
    """Send an event as the fields of a block, and anything else as it is."""
    fields = value.items() if isinstance(value, dict) else [("data", value)]
    lines = "".join(f"{name}: {field}\n" for name, field in fields)
    return f"{lines}\n".encode(errors="surrogatepass")


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, object]) -> None:
    """Ask for a page where the request says how large, or how long to wait for it."""
    if PAGED & (case.query or {}).keys():
        case.headers["Accept"] = "application/json"


@schemathesis.hook
def map_body(context: HookContext, body: object) -> object:
    """Write no whole number as a float: to JSON Schema 1.0 is an integer, to the daemon not."""
    if isinstance(body, list):
        return [map_body(context, item) for item in body]
    if isinstance(body, dict) and isinstance(retry := body.get("retry"), float):
        return {**body, "retry": int(retry)}
    return body
