"""The response to a request: a whole answer, or a stream. Neither knows how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec

from broadcasterd.api.subscribe import Admission


class Answer(msgspec.Struct, frozen=True):
    """A status, fields and a body. The server adds the fields that all answers have."""

    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""


class Stream(msgspec.Struct, frozen=True):
    """A stream that was admitted; it begins with ``headers`` and its opening."""

    admission: Admission
    headers: Mapping[str, str]


_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}

NOTHING = Answer(HTTPStatus.NO_CONTENT)


def json_answer(document: object, status: int = HTTPStatus.OK) -> Answer:
    """Return a document as JSON that no cache is to keep."""
    return Answer(status, _JSON, msgspec.json.encode(document))
