"""Header fields that every response has, whoever made it.

Not among them is ``Strict-Transport-Security``: it binds every service of a host name, on every
port (RFC 6797 §8.3), and so is its operator's to promise.
"""

from __future__ import annotations

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
