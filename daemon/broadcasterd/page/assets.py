"""The page's files, and the client for others': each with its type, validator and policy."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec

INDEX = "index.html"
STATIC = Path(__file__).parent / "static"
CLIENT = Path(__file__).parent / "client.js"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    # No text ever becomes markup: what events and sessions are called is others' to choose.
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy of all of them."""

_ASKS_FOR_TOKENS, _IS_OPEN = b'data-auth="jwt"', b'data-auth="none"'


class Asset(msgspec.Struct, frozen=True):
    """A file of the page: its bytes, and the fields that it is sent with."""

    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        """Its validator (RFC 9110 §8.8.3)."""
        return self.headers["ETag"]


@cache
def assets(*, is_open: bool) -> dict[str, Asset]:
    """Return the files by name; the index says whether the daemon asks for tokens."""
    found = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}
    if is_open:
        found[INDEX] = found[INDEX].replace(_ASKS_FOR_TOKENS, _IS_OPEN)
    return {name: _asset(body, _TYPES[Path(name).suffix]) for name, body in found.items()}


@cache
def client_script() -> Asset:
    """Return the client for the pages of others: ``/client.js``."""
    return _asset(CLIENT.read_bytes(), _TYPES[CLIENT.suffix])


def _asset(body: bytes, kind: str) -> Asset:
    return Asset(
        body,
        {
            "Content-Type": kind,
            "Content-Security-Policy": POLICY,
            # Asked for each time, and mostly 304: a deployment is seen at once.
            "Cache-Control": "no-cache",
            "ETag": f'"{sha256(body).hexdigest()[:32]}"',
        },
    )
