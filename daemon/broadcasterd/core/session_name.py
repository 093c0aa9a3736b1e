"""Session names: 1-128 characters of ``A-Z a-z 0-9 . _ ~ : -``, but neither ``.`` nor ``..``.

A path cannot carry those two: clients and proxies resolve them (RFC 3986 §5.2.4), and ask for
another path.
"""

from __future__ import annotations

import re

from broadcasterd.errors import BadRequest

MAX_NAME_CHARS = 128
NAME_PATTERN = r"(?!\.\.?(?:/|$))[A-Za-z0-9._~:-]{1,128}"

_NAME = re.compile(NAME_PATTERN)


def check_session_name(name: str) -> str:
    """Return ``name`` if it is a session name.

    Raises:
        BadRequest: it is not; the detail says what is allowed.

    """
    if _NAME.fullmatch(name):
        return name
    msg = (
        f"a session name has 1-{MAX_NAME_CHARS} characters of A-Z a-z 0-9 . _ ~ : -"
        " and is neither . nor .."
    )
    raise BadRequest(msg)
