"""The rotation of the secret: the one in force, and those before it that are still good.

Tokens that were signed a moment ago outlive the secret that signed them, for as long as
``auth.previous_secret_ttl`` says. It is a question of Unix time, since it goes on in the next
process.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from typing_extensions import override

MAX_PREVIOUS = 8
"""A token that names no key is tried with each."""


class Previous(Struct, frozen=True):
    """A secret that was in force until another took its place, at ``replaced_at`` (Unix time)."""

    secret: bytes
    replaced_at: float

    @override
    def __repr__(self) -> str:
        return f"Previous(replaced_at={self.replaced_at})"


class Secrets(Struct, frozen=True):
    """The secret in force, if there is one, and those before it, newest first."""

    current: bytes | None = None
    previous: tuple[Previous, ...] = ()

    @override
    def __repr__(self) -> str:
        return f"Secrets(previous={self.previous})"

    def followed_by(self, current: bytes | None, *, ttl: float, now: float) -> Secrets:
        """Return what is good once the secret is read anew, whether or not it is another one.

        Args:
            current: the secret from now on.
            ttl: seconds that a previous one is good for, whatever they were before.
            now: Unix time.

        """
        left = self.previous
        if self.current is not None:
            left = (Previous(self.current, now), *left)
        good: dict[bytes, Previous] = {}  # of a secret that was in force twice, the later time
        for each in left:
            # A clock that was set back makes nothing last longer.
            at = min(each.replaced_at, now)
            if each.secret != current and now < at + ttl:
                good.setdefault(each.secret, msgspec.structs.replace(each, replaced_at=at))
        return Secrets(current, tuple(good.values())[:MAX_PREVIOUS])


NO_SECRETS = Secrets()
