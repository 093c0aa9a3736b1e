r"""JSON as people send it: read by one decoder, and refused in words of ours, never the decoder's.

A byte order mark is skipped. Half of a surrogate pair (``"\ud83d"``: a text that was cut inside an
emoji) is JSON, but no text that UTF-8 could hold, and the decoder takes none. So it is shown
another character instead, and what is kept as it was written gets it back (:class:`Halves`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import msgspec

from broadcasterd.errors import BadRequest, InvalidEvent, Problem

BOM = b"\xef\xbb\xbf"

MAX_SHOWN_CHARS = 64
"""Of a name that nobody knows, as much is repeated as tells its sender which it is."""

T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V")

MAX_MEMBERS = 10_000
"""An object or array that may have more is not searched for what is wrong with it."""

MAX_SURROGATES = 20_000
"""Each is looked at where one may have no other half."""

_BACKSLASH, _NO_JSON = "\\\\", "\0\0"
"""An escaped backslash, and what stands for it where escapes are looked for: it is in no JSON, and
without the former each backslash begins an escape. So no step is taken for each of a million."""

_HIGH, _LOW = r"[89abAB][0-9a-fA-F]{2}", r"[c-fC-F][0-9a-fA-F]{2}"


def _half(d: str) -> re.Pattern[bytes]:
    r"""Match the ``\ud`` of half a pair, which follows no other half and is followed by none."""
    alone_high = rf"(?={_HIGH}(?!\\u[dD]{_LOW}))"
    alone_low = rf"(?={_LOW})(?<!\\u[dD]{_HIGH}\\u{d})"
    return re.compile(rf"\\u{d}(?:{alone_high}|{alone_low})".encode())


_HIDE = ((_half("d"), rb"\\ue"), (_half("D"), rb"\\uE"))
_RESTORE = tuple(
    (re.compile(rf"\\u{e}(?=[89a-fA-F][0-9a-fA-F]{{2}})"), rf"\\u{d}") for e, d in ("ed", "ED")
)
_STAND_INS = re.compile("[\ue800-\uefff]")
_AT = re.compile(r"\(byte ([0-9]+)\)")

WITH_HALVES = "half of a surrogate pair, as in a text that was cut inside a character"


def without_bom(text: bytes) -> bytes:
    """Return a text without the byte order mark that it may begin with."""
    return text.removeprefix(BOM)


def check_utf8(text: bytes) -> str:
    """Return a text that is UTF-8.

    Raises:
        BadRequest: it is not.

    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        msg = f"the body is not UTF-8 (byte {error.start})"
        raise BadRequest(msg) from error


@dataclass(frozen=True, slots=True)
class Halves:
    r"""JSON in which characters of private use stand for halves of surrogate pairs.

    ``\ud83d`` becomes ``\ue83d``, and again ``\ud83d``: a text with both is refused.
    """

    text: bytes

    @classmethod
    def hidden_in(cls, text: bytes) -> Self | None:
        """Return a text without halves; ``None`` where there is none to hide.

        Raises:
            InvalidEvent: characters that would stand for them are there already, or there are more
                than ``MAX_SURROGATES`` escapes of halves, in pairs or not.

        """
        if b"\0" in text:
            return None  # it is no JSON
        escapes = text.replace(_BACKSLASH.encode(), _NO_JSON.encode())
        if escapes.count(rb"\ud") + escapes.count(rb"\uD") > MAX_SURROGATES:
            raise InvalidEvent(f"{WITH_HALVES}, among more than {MAX_SURROGATES} halves")
        hidden = escapes
        for half, stand_in in _HIDE:
            hidden = half.sub(stand_in, hidden)
        if hidden == escapes:
            return None
        decoded = escapes.decode()
        there_already = (_STAND_INS, *(stand_in for stand_in, _ in _RESTORE))
        if any(found.search(decoded) for found in there_already):
            raise InvalidEvent(f"{WITH_HALVES}, beside characters of private use")
        return cls(hidden.replace(_NO_JSON.encode(), _BACKSLASH.encode()))

    @staticmethod
    def restored(json: str) -> str:
        """Return a part of the text as it was written."""
        escapes = json.replace(_BACKSLASH, _NO_JSON)
        for stand_in, half in _RESTORE:
            escapes = stand_in.sub(half, escapes)
        return escapes.replace(_NO_JSON, _BACKSLASH)

    @staticmethod
    def are_in(string: str) -> bool:
        """Whether a string that was decoded has one."""
        return _STAND_INS.search(string) is not None


class Reader(Generic[T]):
    """Reads objects of one kind, and says of what is none what is wrong with it.

    Args:
        kind: what the objects become. Its members are checked one by one.
        name: what such an object is, for people.
        expected: what each member has to be, for people.

    """

    def __init__(self, kind: type[T], name: str, expected: Mapping[str, str]) -> None:
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type] # it is a type
        self._name = name
        self._expected = expected
        self._fields = msgspec.structs.fields(kind)
        self._members = {f.name: msgspec.json.Decoder(f.type) for f in self._fields}

    def one(self, text: bytes) -> tuple[T, Halves | None]:
        """Read an object of JSON that is UTF-8, and the halves that were hidden for that.

        Raises:
            BadRequest: it is not JSON.
            InvalidEvent: it is no such object.

        """
        try:
            return self._one.decode(text), None
        except (msgspec.DecodeError, RecursionError) as error:
            return self._read_halves(text, self._one, error)

    def many(self, text: bytes) -> tuple[list[T], Halves | None]:
        """Read an array of such objects.

        Raises:
            BadRequest: as :meth:`one`.
            InvalidEvent: as :meth:`one`; ``index`` says which of them it is.

        """
        try:
            return self._many.decode(text), None
        except (msgspec.DecodeError, RecursionError) as error:
            return self._read_halves(text, self._many, error)

    def _read_halves(
        self, text: bytes, decoder: msgspec.json.Decoder[V], error: Exception
    ) -> tuple[V, Halves | None]:
        """Read what could not be read as it is; ``error`` says why."""
        halves = Halves.hidden_in(text)
        if halves is None:
            raise self._problem_of(text) from error
        try:
            return decoder.decode(halves.text), halves
        except (msgspec.DecodeError, RecursionError) as worse:
            raise self._problem_of(halves.text) from worse

    def _problem_of(self, text: bytes) -> Problem:
        try:
            msgspec.json.decode(text, type=msgspec.Raw)  # what is no JSON may be so further on
        except (msgspec.DecodeError, RecursionError) as worse:
            return _no_json(worse)
        if text.count(b",") > MAX_MEMBERS:
            return InvalidEvent(f"there is something that is not {self._name}, or of one")
        try:
            items = msgspec.json.decode(text, type=list[msgspec.Raw])
        except msgspec.ValidationError:
            return InvalidEvent(self._why(text))
        bad = (index for index, item in enumerate(items) if not _fits(item, self._one))
        if (index := next(bad, None)) is None:
            return InvalidEvent(self._why(text))  # one was asked for
        problem = InvalidEvent(self._why(items[index]))
        problem.extra["index"] = index
        return problem

    def _why(self, text: bytes | msgspec.Raw) -> str:
        try:
            members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            return f"{self._name} is an object"
        for name, value in members.items():
            if name not in self._members:
                return f"{name[:MAX_SHOWN_CHARS]!r}: {self._name} has no such member"
            if not _fits(value, self._members[name]):
                return f"{name}: expected {self._expected[name]}"
        missing = [f.name for f in self._fields if f.required and f.name not in members]
        return f"{', '.join(missing)}: {self._name} needs it"


def _fits(text: msgspec.Raw, decoder: msgspec.json.Decoder[V]) -> bool:
    try:
        decoder.decode(text)
    except msgspec.ValidationError:
        return False
    return True


def _no_json(error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return BadRequest("this is not JSON that can be read: it is nested too deeply")
    if found := _AT.search(str(error)):
        return BadRequest(f"this is not JSON: byte {found[1]} cannot be there")
    return BadRequest("this is not JSON: it ends too early")
