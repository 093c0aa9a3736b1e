"""One table of requests, through every door: plain HTTP/1.1, HTTP/1.1 over TLS, HTTP/2.

The answers are the same: status, fields and body, byte for byte where the protocol allows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File

import pytest
import trio

from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.http1 import Answer
from tests.support.paths import Clients, Path, serving_on
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

EVENTS = "/v1/sessions/news/events"
SSE = "/agent_network_sse/news"
ALL = sign(claims(subscribe=("*",), publish=("*",), admin=True, sub="me"))
LITTLE = sign(claims(subscribe=("else",), sub="me"))
WRONG = sign(claims(subscribe=("*",)), SECRET[::-1])
ORIGIN = "https://example.org"
PAGE = {"accept": "application/json"}


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    token: str = ALL


def post(kind: str, body: bytes, target: str = EVENTS) -> Asked:
    return Asked("POST", target, {"content-type": kind}, body)


JSON, NDJSON, TEXT = "application/json", "application/x-ndjson", "text/plain"

TABLE = {
    "a page": Asked("GET", EVENTS, PAGE),
    "a page under the other path": Asked("GET", SSE, PAGE),
    "a page of nothing": Asked("GET", "/v1/sessions/none/events", PAGE),
    "a page from nowhere": Asked("GET", f"{EVENTS}?last_event_id=x-1", PAGE),
    "a page that is too long": Asked("GET", f"{EVENTS}?limit=9999", PAGE),
    "a query that is too long": Asked("GET", f"{EVENTS}?{'a=b&' * 70}", PAGE),
    "a start that is none": Asked("GET", f"{EVENTS}?from=x"),
    "a stream that has ended": Asked("GET", "/v1/sessions/ended/events"),
    "a stream for which there is no room": Asked("GET", "/v1/sessions/news-2/events"),
    "no room, as a status": Asked("GET", "/v1/sessions/news-2/events?overload=status"),
    "an event": post(JSON, b'{"data": 1, "event": "a"}'),
    "an array": post(JSON, b'[{"data": 1}, {"data": "2"}]'),
    "an event twice": post(
        JSON, b'[{"data": 1, "idempotency_key": "k"}, {"data": 1, "idempotency_key": "k"}]'
    ),
    "lines": post(NDJSON, b'{"data": 1}\n\n{"data": 2}'),
    "lines, one of them bad": post(NDJSON, b'{"data": 1}\nx\n'),
    "a relayed stream": post("text/event-stream", b"data: 1\n\ndata: 2\n\n"),
    "a text": post(TEXT, b"hello", f"{EVENTS}?event=a"),
    "an event with an unknown member": post(JSON, b'{"dato": 1}'),
    "no JSON": post(JSON, b"{"),
    "no UTF-8": post(TEXT, b"\xff"),
    "a body that is too large": post(TEXT, b"x" * 2000),
    "an unknown type": post("a/b", b"x"),
    "no type": Asked("POST", EVENTS, {}, b"x"),
    "an empty body": post(JSON, b""),
    "another charset": post("text/plain; charset=utf-16", b"x"),
    "a name that is none": post(TEXT, b"x", "/v1/sessions/a%20b/events"),
    "a name in escapes": post(TEXT, b"x", "/v1/sessions/%6eews/events"),
    "a name without end": post(TEXT, b"x", f"/v1/sessions/{'a' * 200}/events"),
    "no token": Asked("GET", EVENTS, token=""),
    "no token to publish": Asked("POST", EVENTS, {"content-type": TEXT}, b"x", token=""),
    "a bad token": Asked("GET", EVENTS, token=WRONG),
    "a token that does not cover it": Asked("GET", EVENTS, token=LITTLE),
    "a ticket that is none": Asked("GET", f"{EVENTS}?ticket=x", token=""),
    "a ticket and a token": Asked("GET", f"{EVENTS}?ticket=x"),
    "a page of another origin": Asked("GET", EVENTS, {**PAGE, "origin": ORIGIN}),
    "a page of a stranger": Asked("GET", EVENTS, {**PAGE, "origin": "https://b"}),
    "a preflight": Asked(
        "OPTIONS", EVENTS, {"origin": ORIGIN, "access-control-request-method": "POST"}
    ),
    "no preflight": Asked("OPTIONS", EVENTS),
    "HEAD": Asked("HEAD", EVENTS),
    "HEAD of something": Asked("HEAD", "/health/live"),
    "PUT": Asked("PUT", EVENTS),
    "an unknown method": Asked("ODD", EVENTS),
    "an unknown path": Asked("GET", "/nothing"),
    "a slash too many": Asked("GET", f"{EVENTS}/"),
    "sessions": Asked("GET", "/v1/sessions"),
    "a session": Asked("GET", "/v1/sessions/none"),
    "the end of a session": Asked("DELETE", "/v1/sessions/news"),
    "the end of none": Asked("DELETE", "/v1/sessions/none"),
    "a ticket": Asked("POST", "/v1/tickets", {"content-type": JSON}, b'{"session": "news"}'),
    "a newer token for none": Asked("POST", "/v1/streams/x/token"),
    "a revocation": Asked("DELETE", "/v1/subjects/somebody/streams"),
    "alive": Asked("GET", "/health/live"),
    "ready": Asked("GET", "/health/ready"),
    "the description": Asked("GET", "/openapi.json"),
    "two cookies": Asked("GET", EVENTS, {**PAGE, "cookie": "a=b; c=d"}),
}

OF_THE_CONNECTION = {"date", "connection", "transfer-encoding"}

CHANCE = re.compile(
    rb'[0-9a-f]{8}-(?=[0-9]+)|"(?:time|ticket)":"[^"]*"|"\w*(?:age|idle)\w*":[0-9.e-]+'
    rb"|retry: [0-9]+"
)
"""What is made up anew each time: incarnations, times, tickets, jitter."""


Answers = Mapping[str, Answer]
"""The answers of a daemon, by the name of what it was asked."""


async def through(path: Path, certificate: Certificate, directory: File) -> Answers:
    """Ask a daemon everything, one after the other, each time with the same two sessions."""
    sections: dict[str, Mapping[str, object]] = {
        "server": {"cors_origins": [ORIGIN], "max_body_bytes": 1000},
        "sessions": {"max_sessions": 1},
        "auth": jwt_mode(directory),
    }
    answers = {}
    async with serving_on(path, certificate, **sections) as (daemon, clients):
        for name, asked in TABLE.items():
            for left in [*daemon.hub.sessions]:
                daemon.hub.end(left)
            daemon.hub.open("ended")
            daemon.hub.end("ended")
            await daemon.hub.open("news").publish(drafts("a", "b"))
            answers[name] = await _answer(clients, asked)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses
    return answers


async def _answer(clients: Clients, asked: Asked) -> Answer:
    headers = {**asked.headers, **(bearer(asked.token) if asked.token else {})}
    found = await clients.answer(
        asked.method,
        asked.target,
        {name.lower(): value for name, value in headers.items()},
        asked.body,
    )
    headers = {n: v for n, v in found.headers.items() if n not in OF_THE_CONNECTION}
    body = CHANCE.sub(b"?", found.body)
    if len(body) != len(found.body) or "content-length" not in headers:
        headers.pop("content-length", None)
    return Answer(found.status, headers, body)


@pytest.fixture(scope="module")
def doors(
    certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Answers, Answers, Answers]:
    """Ask three daemons, each through a door of its own."""
    directory = tmp_path_factory.mktemp("doors")
    plain, tls, http2 = (
        trio.run(through, path, certificate, directory)
        for path in (Path.PLAIN, Path.TLS, Path.HTTP2)
    )
    return plain, tls, http2


@pytest.mark.parametrize("name", TABLE)
def test_every_door_gives_the_same_answer(
    name: str, doors: tuple[Answers, Answers, Answers]
) -> None:
    plain, tls, http2 = doors

    assert plain[name] == tls[name] == http2[name]
