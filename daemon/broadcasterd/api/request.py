"""A request's head as all decisions see it, independent of any framework."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

import msgspec

from broadcasterd.errors import BadRequest

MAX_QUERY_FIELDS = 64
"""More than any client sends; a polyfill that appends its cursor each time stays below it."""


_NUMBER = re.compile(r"[0-9]{1,9}")


class Head(msgspec.Struct, frozen=True):
    """Method, path, query and header fields; field names in lower case.

    Attributes:
        query: names and values in order, decoded.
        peer: the client's address, for the log.
        http_version: ``1.0``, ``1.1`` or ``2``.

    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    peer: str
    http_version: str

    def parameter(self, name: str) -> str | None:
        """Return the last non-empty value of a query field."""
        if not self.query:
            return None
        return next((v for n, v in reversed(self.query) if n == name and v), None)

    def number(self, name: str, *, default: int, low: int, high: int) -> int:
        """Return a query field that is a whole number from ``low`` to ``high``.

        Raises:
            BadRequest: it is something else.

        """
        value = self.parameter(name)
        if value is None:
            return default
        if _NUMBER.fullmatch(value) and low <= int(value) <= high:
            return int(value)
        msg = f"{name}: expected a whole number from {low} to {high}"
        raise BadRequest(msg)


def join_fields(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the value of each field by its name in lower case, decoded as Latin-1.

    Repeated fields are joined as one list (RFC 9110 §5.3); cookies as one field (RFC 6265 §5.4).
    """
    joined: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in joined:
            value = f"{joined[name]}{'; ' if name == 'cookie' else ', '}{value}"
        joined[name] = value
    return joined


def parse_query(query: bytes) -> tuple[tuple[str, str], ...]:
    """Decode a query string.

    Raises:
        BadRequest: it has too many fields.

    """
    try:
        pairs = parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        msg = f"a query has at most {MAX_QUERY_FIELDS} fields"
        raise BadRequest(msg) from error
    return tuple(pairs)
