"""Tokens that were verified already: a signature is worth checking once, not at each request.

What is kept of a token is a digest with a key of this process, and what it grants: nothing that is
in memory, or that the time of a look-up tells, is a token. Who has other keys or settings begins
anew, with none.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from broadcasterd.access.grants import Grant

MAX_TOKENS = 4096
"""Some 3 MB of tokens of an ordinary size."""

MAX_TOKEN_CHARS = 1024
"""A larger one grants more than a few lines, all of which would be kept: it is verified again."""

DIGEST_BYTES = 16
"""Without the key, nobody looks for two tokens that have the same."""


class VerifiedTokens:
    """The grants of the tokens that were verified last, each until it expires.

    Args:
        now: Unix time in seconds.
        max_tokens: how many are kept. Beyond it, the one that was verified first is forgotten.

    """

    def __init__(self, now: Callable[[], float], *, max_tokens: int = MAX_TOKENS) -> None:
        self._max_tokens = max_tokens
        self._now = now
        self._key = secrets.token_bytes(hashlib.blake2b.MAX_KEY_SIZE)
        self._grants: dict[bytes, Grant] = {}  # the one that was verified first comes first

    def __len__(self) -> int:
        return len(self._grants)

    def find(self, token: str) -> Grant | None:
        """Return what a token grants that was verified and has not expired since."""
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = self._digest(token)
        grant = self._grants.get(digest)
        if grant is None or grant.expires_at is None or self._now() < grant.expires_at:
            return grant
        del self._grants[digest]
        return None

    def remember(self, token: str, grant: Grant) -> None:
        """Keep what a token grants that was verified just now."""
        if len(token) > MAX_TOKEN_CHARS:
            return
        if len(self._grants) >= self._max_tokens:
            del self._grants[next(iter(self._grants))]
        self._grants[self._digest(token)] = grant

    def _digest(self, token: str) -> bytes:
        text = token.encode(errors="surrogatepass")  # no two tokens are one
        return hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=self._key).digest()
