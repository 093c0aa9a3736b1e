"""The place where a subscriber wants to start, as a header or the query names it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from broadcasterd.errors import BadRequest

ID_PARAMETERS = frozenset(
    {"last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "evs_last_event_id"}
)
"""Names of ``Last-Event-ID`` in the query, by polyfills and libraries that cannot set a header."""

_UNESCAPED_OFFSET = re.compile(r" ([0-9]{2}:[0-9]{2})$")  # a "+" in a query is a space
_QUOTED = re.compile(r'\A"([^"]*)"\Z')
_LAST = re.compile(r"last:([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class First:
    """Start with the oldest retained event."""


@dataclass(frozen=True, slots=True)
class Now:
    """Start with the next event."""


@dataclass(frozen=True, slots=True)
class Last:
    """Start with the ``count`` newest retained events."""

    count: int


@dataclass(frozen=True, slots=True)
class Since:
    """Start with the events that came at ``moment`` or later.

    The parser gives Unix time in seconds; the session translates it to its own clock.
    ``asked`` is the time as it was written.
    """

    moment: float
    asked: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ById:
    """Start after the event with this id."""

    event_id: str


_FIRST = First()  # as nearly all ask

From = First | Now | Last | Since
Start = From | ById


def parse_start(last_event_id: str | None, query: Iterable[tuple[str, str]]) -> Start:
    """Return where a request wants to start.

    The header wins; then the query's last non-empty id (a client that reconnects may append
    one each time); then ``from``; else everything that is retained.

    Raises:
        BadRequest: ``from`` has no known form.

    """
    if last_event_id and (given := _id_of(last_event_id)):
        return ById(given)
    last_event_id = where = ""
    for name, value in query:
        if name in ID_PARAMETERS and (given := _id_of(value)):
            last_event_id = given
        elif name == "from" and value:
            where = value
    return ById(last_event_id) if last_event_id else parse_from(where)


def _id_of(text: str) -> str:
    """Return an id as it was given out: libraries put spaces or quotes around it, or send it twice.

    Two that differ are none that was ever given out, and so a gap.
    """
    ids = {_QUOTED.sub(r"\1", each.strip(" \t")) for each in text.split(",")}
    return ids.pop() if len(ids) == 1 else text.strip(" \t")


def parse_from(where: str) -> From:
    """Parse the query's ``from``: empty, ``start``, ``now``, ``last:N`` or an RFC 3339 time."""
    if where in {"", "start"}:
        return _FIRST
    if where == "now":
        return Now()
    if match := _LAST.fullmatch(where):
        return Last(int(match[1]))
    msg = "from: expected start, now, last:N or an RFC 3339 time with its offset"
    try:
        moment = datetime.fromisoformat(_UNESCAPED_OFFSET.sub(r"+\1", where.upper()))
        if moment.tzinfo is None:
            raise BadRequest(msg)
        return Since(moment.timestamp(), where)
    except (ValueError, OverflowError) as error:
        raise BadRequest(msg) from error
