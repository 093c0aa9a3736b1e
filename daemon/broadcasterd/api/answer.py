"""The response to a request: a whole answer, or a stream. Neither knows how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from broadcasterd.api.subscribe import Admission


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, fields and a body. The server adds the fields that all answers have."""

    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that was admitted; it begins with ``headers`` and its opening."""

    admission: Admission
    headers: Mapping[str, str]


NOTHING = Answer(HTTPStatus.NO_CONTENT)


def json_answer(document: object, status: int = HTTPStatus.OK) -> Answer:
    """Return a document as JSON that no cache is to keep."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Answer(status, headers, msgspec.json.encode(document))
