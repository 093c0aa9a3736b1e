"""The response to a request: a whole answer, or a stream. Neither knows how it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

import msgspec

from broadcasterd.api.subscribe import Admission


class Answer(msgspec.Struct, frozen=True):
    """A status, fields and a body. The server adds the fields that all answers have."""

    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""


class LongAnswer(msgspec.Struct, frozen=True):
    """An answer that is made piece by piece, as its reader takes it: nobody holds all of it.

    ``headers`` say its length where that is known.
    """

    headers: Mapping[str, str]
    pieces: Iterator[bytes]
    status: int = HTTPStatus.OK


class Stream(msgspec.Struct, frozen=True):
    """A stream that was admitted; it begins with ``headers`` and its opening."""

    admission: Admission
    headers: Mapping[str, str]
    status: int = HTTPStatus.OK


_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}

PIECE_BYTES = 32 * 1024
"""Bytes that a piece of a long answer has, more or less."""

NOTHING = Answer(HTTPStatus.NO_CONTENT)


def json_answer(document: object, status: int = HTTPStatus.OK) -> Answer:
    """Return a document as JSON that no cache is to keep."""
    return Answer(status, _JSON, msgspec.json.encode(document))


def long_json_answer(pieces: Iterator[bytes]) -> LongAnswer:
    """Return JSON that comes in pieces, and that no cache is to keep."""
    return LongAnswer(_JSON, pieces)


def shared_json_answer(document: bytes) -> LongAnswer:
    """Return JSON that is there once for all who ask for it."""
    pieces = (
        document[start : start + PIECE_BYTES] for start in range(0, len(document), PIECE_BYTES)
    )
    return LongAnswer({**_JSON, "Content-Length": str(len(document))}, pieces)
