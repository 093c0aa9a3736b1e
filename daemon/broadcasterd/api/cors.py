"""The rights of pages of other origins, as the configuration gives them (Fetch §3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_AGE_S = 600
"""How long a browser may remember a preflight."""


def is_preflight(method: str, headers: Mapping[str, str], allowed: Sequence[str]) -> bool:
    """Whether a browser asks before its request, and any origin is allowed.

    ``allowed`` are origins; ``*`` is any, and lets none of them bring a cookie.
    """
    return bool(allowed) and method == "OPTIONS" and "access-control-request-method" in headers


def shared_with(method: str, headers: Mapping[str, str], allowed: Sequence[str]) -> dict[str, str]:
    """Return the fields that let a page of the request's origin read the answer."""
    if not allowed:
        return {}
    fields = {"Vary": "Origin"}
    origin = headers.get("origin")
    if origin is not None and origin in allowed:
        fields["Access-Control-Allow-Origin"] = origin
        fields["Access-Control-Allow-Credentials"] = "true"
    elif "*" in allowed:
        fields["Access-Control-Allow-Origin"] = "*"
    else:
        return fields
    if method == "OPTIONS":
        fields["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        fields["Access-Control-Allow-Headers"] = (
            "Authorization, Content-Type, Last-Event-ID, Cache-Control"
        )
        fields["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return fields
