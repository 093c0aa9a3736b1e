"""Grants: the sessions that a token's holder may listen and publish to, and until when.

A glob is a session name in which each ``*`` stands for any run of characters, also for none:
``chat:*`` covers ``chat:42`` and ``chat:``. A name has no parts, so one kind of star is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_GLOBS = 100
"""A token has no more of either kind: each request looks at them in turn."""

MAX_GLOB_CHARS = 256
"""A session name has at most 128 characters."""

MAX_SUBJECT_CHARS = 256
"""OpenID Connect allows 255 (Core §2)."""


class Action(StrEnum):
    """The actions that a request may want to do."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Grant:
    """The rights of a token's holder.

    Attributes:
        subject: the one that the token was issued for (``sub``), if it names any.
        subscribe: globs of the sessions to listen to.
        publish: globs of the sessions to publish to, and to close.
        admin: whether the holder may look at all sessions and end a subject's streams. This
            does not imply the other two.
        expires_at: Unix time in seconds; ``None`` is never.
        issued_at: Unix time in seconds at which the token says that it was issued (``iat``).

    """

    subject: str | None = None
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    admin: bool = False
    expires_at: float | None = None
    issued_at: float | None = None

    @classmethod
    def from_claims(cls, claims: Mapping[str, object]) -> Grant:
        """Return what the claims of a verified token grant; without ``broadcaster``, nothing.

        Raises:
            ValueError: ``sub``, ``exp`` or ``broadcaster`` is not what it must be.

        """
        found = msgspec.convert(claims, _Claims)
        if found.sub is not None and _has_half(found.sub):
            raise ValueError("sub: expected text that UTF-8 can hold")
        for name, time in (("exp", found.exp), ("iat", found.iat)):
            if time is not None and not math.isfinite(time):
                raise ValueError(f"{name}: expected a finite number")
        granted = found.broadcaster
        return cls(
            found.sub, granted.subscribe, granted.publish, granted.admin, found.exp, found.iat
        )

    def allows(self, action: Action, session: str | None = None) -> bool:
        """Whether the grant covers an action; every action but ``ADMIN`` concerns a session."""
        if action is Action.ADMIN:
            return self.admin
        globs = self.subscribe if action is Action.SUBSCRIBE else self.publish
        if session is None:
            return False
        return "*" in globs or session in globs or any(matches(glob, session) for glob in globs)


EVERYONE = Grant(subscribe=("*",), publish=("*",), admin=True)
"""The grant of everyone where no tokens are asked for."""


def _has_half(text: str) -> bool:
    """Whether a text has half of a surrogate pair: no log, and no file, could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def matches(glob: str, name: str) -> bool:
    """Whether ``glob`` covers ``name``.

    The parts between stars are looked for from left to right, each once, so that a hostile glob
    cannot make this try again and again.
    """
    first, *rest = glob.split("*")
    if not rest:
        return name == glob
    *middle, last = rest
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


# A name's characters and the star, and no dots alone: such a glob could never match, which is a
# mistake that its author should hear of.
_Glob = Annotated[str, Meta(pattern=r"^(?!\.\.?\Z)[A-Za-z0-9._~:*-]+\Z", max_length=MAX_GLOB_CHARS)]
_Globs = Annotated[tuple[_Glob, ...], Meta(max_length=MAX_GLOBS)]
_Subject = Annotated[str, Meta(min_length=1, max_length=MAX_SUBJECT_CHARS)]


class _Broadcaster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subscribe: _Globs = ()
    publish: _Globs = ()
    admin: bool = False


class _Claims(msgspec.Struct, frozen=True):
    sub: _Subject | None = None
    exp: float | None = None
    iat: float | None = None
    broadcaster: _Broadcaster = _Broadcaster()
