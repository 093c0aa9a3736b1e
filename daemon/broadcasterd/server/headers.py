"""Header fields that every response has, whoever made it; and the one that every request has.

Not among them is ``Strict-Transport-Security``: it binds every service of a host name, on every
port (RFC 6797 §8.3), and so is its operator's to promise.
"""

from __future__ import annotations

import re

MAX_HOST_CHARS = 262
"""A name of 253 characters, a dot, a colon, and a port (RFC 1035 §2.3.4)."""

_LABEL = r"[-A-Za-z0-9_~%!$&'()*+,;=]{1,63}"
_HOST = re.compile(rf"(\[[0-9A-Fa-f:.]+\]|({_LABEL}(\.{_LABEL})*\.?)?)(:[0-9]{{0,5}})?")

RawHeaders = list[tuple[bytes, bytes]]

SECURITY_HEADERS: RawHeaders = [
    # What is here is what its type says: a browser must not guess otherwise and run it.
    (b"x-content-type-options", b"nosniff"),
    # A path holds the name of a session, and a query may hold a ticket.
    (b"referrer-policy", b"no-referrer"),
    # Shown as a page, an answer loads nothing, runs nothing, and is framed by nobody.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Other sites cannot load an answer as an image or a script. What server.cors_origins allows
    # goes on to work: this is not looked at where CORS is (Fetch §3.6).
    (b"cross-origin-resource-policy", b"same-origin"),
]


def secure(headers: RawHeaders) -> None:
    """Add what is missing. A response that needs another policy (a page) brings its own."""
    present = {name for name, _ in headers}
    headers.extend(field for field in SECURITY_HEADERS if field[0] not in present)


def is_host(text: str) -> bool:
    """Whether a text can be a ``Host`` or ``:authority``: a name of the DNS, or an address."""
    return len(text) <= MAX_HOST_CHARS and _HOST.fullmatch(text) is not None
