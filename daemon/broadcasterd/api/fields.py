"""The values of header fields by their grammar (RFC 9110 §5.6), never by what is found in them.

A field that came more than once is one text with commas (for ``Cookie``, semicolons). Where it may
have one value alone, the same one twice is that value.
"""

from __future__ import annotations

import re
from functools import lru_cache

REMEMBERED = 64
"""Values that are not parsed again: clients send the same few all the time."""

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*(?:({_WORD})=({_WORD}|{_QUOTED}))?")
_TYPE = re.compile(rf"({_WORD})/({_WORD})")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_LISTED = re.compile(rf"(?:{_QUOTED}|[^,\"])+")
_TAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_CREDENTIALS = re.compile(rf"[ \t]*({_WORD})(?:[ ]+(.*))?", re.DOTALL)

Parameters = dict[str, str]


class Malformed(ValueError):  # noqa: N818 (it is the value that is)
    """A value that is not of its field's grammar, or several where there may be one."""


@lru_cache(maxsize=REMEMBERED)
def content_type(value: str) -> tuple[str, str | None]:
    """Return the type in lower case, and its charset in lower case, if it names any (§8.3).

    Raises:
        Malformed: it is no type; or it came more than once, and not the same.

    """
    found: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    at = 0
    while True:
        media_type, parameters, at = _media_type(value, at)
        found.add((media_type, tuple(sorted(parameters.items()))))
        if at == len(value):
            break
        comma = _COMMA.match(value, at)
        if comma is None:
            raise Malformed(value)
        at = comma.end()
    if len(found) > 1:
        raise Malformed(value)
    return media_type, parameters.get("charset")


@lru_cache(maxsize=REMEMBERED)
def prefers(value: str, one: str, other: str) -> bool:
    """Whether ``Accept`` (§12.5.1) asks for the type ``one`` rather than for ``other``.

    The greater quality wins. Where both have the same, the type that is named wins over one that
    only a wildcard covers (``application/json, */*`` asks for JSON), and else ``other``.
    """
    return _preference(value, one) > _preference(value, other)


def bearer_tokens(value: str) -> list[str]:
    """Return the tokens in ``Authorization`` (RFC 6750 §2.1); a malformed one may be empty.

    Credentials of other schemes are none.
    """
    if value[:7].lower() == "bearer " and "," not in value:  # as nearly all are
        return [value[7:].strip(" ")]
    tokens = []
    for part in _LISTED.findall(value):
        found = _CREDENTIALS.fullmatch(part)
        if found is not None and found[1].lower() == "bearer":
            tokens.append((found[2] or "").strip(" \t"))
    return tokens


def cookies(value: str, name: str) -> list[str]:
    """Return the values of the cookies of a name, without the quotes that they may have."""
    pairs = [pair.partition("=") for pair in value.split(";")]
    values = [text.strip(" \t") for key, _, text in pairs if key.strip(" \t") == name]
    return [_unquoted(text) for text in values if text]


def codings(value: str) -> list[str]:
    """Return the codings of ``Content-Encoding``, in lower case; ``identity`` is none (§8.4)."""
    each = [coding.strip(" \t").lower() for coding in value.split(",")]
    return [coding for coding in each if coding not in {"", "identity"}]


def entity_tags(value: str) -> set[str]:
    """Return the tags of ``If-None-Match``, quoted; here weak ones are as good (§13.1.2)."""
    return set(_TAG.findall(value))


def _media_type(value: str, at: int) -> tuple[str, Parameters, int]:
    """Read a type and its parameters; return them, and where they end."""
    found = _TYPE.match(value, at)
    if found is None:
        raise Malformed(value)
    at = found.end()
    parameters: Parameters = {}
    while (parameter := _PARAMETER.match(value, at)) is not None:
        at = parameter.end()
        if parameter[1] is not None:
            name, text = parameter[1].lower(), _unquoted(parameter[2]).lower()
            if parameters.setdefault(name, text) != text:
                raise Malformed(value)
    return found[0].lower(), parameters, at


def _preference(value: str, wanted: str) -> tuple[float, int]:
    """Return the quality that a type has, and how narrow the range is that gives it."""
    best = (0, 0.0)
    ranges = ["*/*", f"{wanted.partition('/')[0]}/*", wanted]
    for part in map(str.strip, _LISTED.findall(value)):
        try:
            media_range, parameters, end = _media_type(part, 0)
        except Malformed:
            continue
        asked = parameters.get("q", "1")
        if end == len(part) and _QUALITY.fullmatch(asked) and media_range in ranges:
            best = max(best, (ranges.index(media_range), float(asked)))
    narrowness, quality = best
    return (quality, narrowness) if quality else (0.0, 0)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
