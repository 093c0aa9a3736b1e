"""The rights of pages of other origins, as the configuration gives them (Fetch §3.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from broadcasterd.config import Server

MAX_AGE_S = 600
"""How long a browser may remember a preflight."""

MAX_ASKED_CHARS = 1024
"""Names of fields that a page asks for and is told again; more than any page sends."""

SENT = ("Authorization", "Content-Type", "Last-Event-ID", "Cache-Control")
"""Fields that pages send: the token's, the body's, and those of polyfills of EventSource."""

EXPOSED = "Retry-After, WWW-Authenticate"
"""Fields that a page has to read: when to come back, and why its token was not good."""

_NAMES = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_LABELS = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"


def is_preflight(method: str, headers: Mapping[str, str], server: Server) -> bool:
    """Whether a browser asks before its request, and any origin is allowed."""
    asks = "access-control-request-method" in headers
    return bool(server.cors_origins) and method == "OPTIONS" and asks


def shared_with(method: str, headers: Mapping[str, str], server: Server) -> dict[str, str]:
    """Return the fields that let a page of the request's origin read the answer.

    ``*`` among the origins is any, and lets none of them bring a cookie.
    """
    if not server.cors_origins:
        return {}
    fields = {"Vary": "Origin"}
    origin = headers.get("origin")
    is_listed = origin is not None and is_allowed(origin, server.cors_origins)
    if origin is not None and is_listed:
        fields["Access-Control-Allow-Origin"] = origin
        fields["Access-Control-Allow-Credentials"] = "true"
    elif "*" in server.cors_origins:
        fields["Access-Control-Allow-Origin"] = "*"
    else:
        return fields
    if method != "OPTIONS":
        fields["Access-Control-Expose-Headers"] = EXPOSED
        return fields
    fields["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
    asked = headers.get("access-control-request-headers", "")
    # A page that brings no cookie can do nothing with a field that a program could not do as well.
    echoes = not is_listed and len(asked) <= MAX_ASKED_CHARS and _NAMES.fullmatch(asked)
    names = asked if echoes else ", ".join([*SENT, *server.cors_headers])
    fields["Access-Control-Allow-Headers"] = names
    fields["Access-Control-Max-Age"] = str(MAX_AGE_S)
    return fields


@lru_cache(maxsize=256)  # pages of a few origins ask all the time
def is_allowed(origin: str, allowed: tuple[str, ...]) -> bool:
    """Whether an origin is listed by its name, or by a ``*.`` that stands for any subdomain."""
    sent = normal(origin)
    return any(_pattern(each).fullmatch(sent) for each in allowed if each != "*")


def is_of_host(origin: str, host: str) -> bool:
    """Whether an origin is that of the host that a request was made to.

    Its scheme is not compared: whether a proxy speaks TLS with the browser is not known here.
    """
    scheme, _, authority = normal(origin).partition("://")
    return bool(authority) and normal(f"{scheme}://{host}") == f"{scheme}://{authority}"


def normal(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, without its scheme's own port."""
    scheme, colon, host = origin.lower().partition("://")
    return f"{scheme}{colon}{host.removesuffix(_DEFAULT_PORTS.get(scheme, ''))}"


def _pattern(allowed: str) -> re.Pattern[str]:
    return re.compile(re.escape(normal(allowed)).replace(r"//\*", f"//{_LABELS}"))
