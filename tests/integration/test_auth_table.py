"""Every route with every kind of token, against a real daemon: one table holds the answers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import pytest

from broadcasterd.api.routes import ROUTES
from tests.support.daemon import Daemon, Launch
from tests.support.http1 import Answer, Http1
from tests.support.talk import JSON, ask, connected, following, target
from tests.support.tokens import RSA_KEY, SECRET, bearer, claims, jwt_mode, sign

# The session is called mine.1 or so, and exists; the stream is one of the subject "me".
TABLE = """
                                      none bad  sig  alg  exp  nbf  aud  else sub  pub  admin
GET    /v1/sessions/{session}/events  401  401  401  401  401  401  401  403  200  403  403
PAGE   /v1/sessions/{session}/events  401  401  401  401  401  401  401  403  200  403  403
POST   /v1/sessions/{session}/events  401  401  401  401  401  401  401  403  403  200  403
GET    /agent_network_sse/{session}   401  401  401  401  401  401  401  403  200  403  403
PAGE   /agent_network_sse/{session}   401  401  401  401  401  401  401  403  200  403  403
GET    /v1/sessions                   401  401  401  401  401  401  401  403  403  403  200
GET    /v1/sessions/{session}/streams 401  401  401  401  401  401  401  403  403  403  200
GET    /v1/sessions/{session}         401  401  401  401  401  401  401  403  200  403  200
DELETE /v1/sessions/{session}         401  401  401  401  401  401  401  403  403  204  403
POST   /v1/tickets                    401  401  401  401  401  401  401  403  201  403  403
POST   /v1/streams/{stream}/token     401  401  401  401  401  401  401  403  200  403  403
DELETE /v1/streams/{stream}           401  401  401  401  401  401  401  403  403  403  204
DELETE /v1/streams?subject={subject}  401  401  401  401  401  401  401  403  403  403  200
DELETE /v1/subjects/{subject}/streams 401  401  401  401  401  401  401  403  403  403  200
GET    /health                        200  200  200  200  200  200  200  200  200  200  200
GET    /health/live                   200  200  200  200  200  200  200  200  200  200  200
GET    /health/ready                  200  200  200  200  200  200  200  200  200  200  200
GET    /stats                         401  401  401  401  401  401  401  403  403  403  200
GET    /v1/stats/events               401  401  401  401  401  401  401  403  403  403  200
GET    /metrics                       401  401  401  401  401  401  401  403  403  403  200
GET    /openapi.json                  200  200  200  200  200  200  200  200  200  200  200
GET    /                              200  200  200  200  200  200  200  200  200  200  200
GET    /page/{file}                   200  200  200  200  200  200  200  200  200  200  200
GET    /client.js                     200  200  200  200  200  200  200  200  200  200  200
"""

MINE = {"subscribe": ("mine.*",), "publish": ("mine.*",), "sub": "me", "aud": "us"}
ALL = sign(claims(**MINE, admin=True))  # type: ignore[arg-type] # its keywords

TOKENS: Mapping[str, str | None] = {
    "none": None,
    "bad": "not.a.token",
    "sig": sign(claims(**MINE, admin=True), SECRET[::-1]),  # type: ignore[arg-type]
    "alg": sign(claims(**MINE, admin=True), RSA_KEY, "RS256"),  # type: ignore[arg-type]
    "exp": sign(claims(**MINE, admin=True, ttl=-1)),  # type: ignore[arg-type]
    "nbf": sign(claims(**MINE, admin=True, nbf=2**31)),  # type: ignore[arg-type]
    "aud": sign(claims(**{**MINE, "aud": "them"}, admin=True)),  # type: ignore[arg-type]
    "else": sign(claims(subscribe=("other",), publish=("other",), sub="me", aud="us")),
    "sub": sign(claims(subscribe=("mine.*",), sub="me", aud="us")),
    "pub": sign(claims(publish=("mine.*",), sub="me", aud="us")),
    "admin": sign(claims(admin=True, sub="me", aud="us")),
}

HEADING, *ROWS = TABLE.strip("\n").splitlines()
COLUMNS = HEADING.split()

CHALLENGE = re.compile(
    r'Bearer realm="broadcasterd"(?:, error="(\w+)", error_description="[^"]+")?'
)

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[Daemon]:
    """Start one daemon for the whole table; each cell has a session of its own."""
    directory = tmp_path_factory.mktemp("daemon")
    daemon = Daemon.start(
        directory,
        launch,
        auth=jwt_mode(directory, audience="us"),
        limits={"max_failures_per_minute": 10_000},
    )
    yield daemon
    daemon.stop_cleanly()


async def a_session(daemon: Daemon) -> str:
    """Make a session, and return its name."""
    name = f"mine.{next(_numbers)}"
    made = await ask(daemon, "POST", target(name), JSON | bearer(ALL), b'{"data": 1}')

    assert made.status == 200, made.body
    return name


async def status_of(client: Http1, method: str, path: str, token: str | None, name: str) -> Answer:
    """Make the request of a cell; of a stream, wait for the head alone."""
    headers = {} if token is None else bearer(token)
    body = b""
    match method, path:
        case "PAGE", _:
            headers["Accept"] = "application/json"
        case "POST", "/v1/tickets":
            body = b'{"session": "%s"}' % name.encode()
        case "POST", _:
            headers, body = headers | JSON, b'{"data": 2}'
    await client.ask("GET" if method == "PAGE" else method, path, headers, body)
    if method == "GET" and (path.endswith("/events") or path.startswith("/agent")):
        head = await client.head()
        fields = {key.decode().lower(): value.decode() for key, value in head.headers}
        if head.status_code == 200:
            return Answer(200, fields, b"")
        return Answer(head.status_code, fields, b"".join([piece async for piece in client.body()]))
    return await client.answer()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row.split()[:2]))
async def test_what_is_answered(daemon: Daemon, row: str) -> None:
    method, path, *statuses = row.split()
    expected = dict(zip(COLUMNS, map(int, statuses), strict=True))
    answered: dict[str, int] = {}
    async with following(daemon, "mine.stream", headers=bearer(ALL)) as stream:
        stream_id = stream.heard[1].removeprefix(": stream ")
        for column, token in TOKENS.items():
            name = await a_session(daemon)
            filled = path.format(session=name, stream=stream_id, subject="nobody", file="app.js")
            async with connected(daemon) as client:
                found = await status_of(client, method, filled, token, name)
            answered[column] = found.status
            check_refusal(found, token)

    assert expected == answered


def check_refusal(found: Answer, token: str | None) -> None:
    """Check what a refusal tells (RFC 6750 §3), and that others have no such field."""
    field = found.headers.get("www-authenticate")
    if found.status < 400:
        assert field is None
        return
    challenge = CHALLENGE.fullmatch(field or "")
    assert challenge is not None, field
    error = {401: None if token is None else "invalid_token", 403: "insufficient_scope"}
    assert challenge[1] == error[found.status]
    assert found.headers["content-type"] == "application/problem+json"
    assert token is None or token.encode() not in found.body


def test_the_table_has_every_route_and_every_token() -> None:
    found = {re.sub(r"\{.*?\}", "*", f"{route.method} {route.path}") for route in ROUTES}
    rows = {" ".join(row.split()[:2]) for row in ROWS if not row.startswith("PAGE")}

    assert {re.sub(r"\{\w+\}", "*", row.partition("?")[0]) for row in rows} == found
    assert list(TOKENS) == COLUMNS


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("GET", "/v1/sessions/no%20name/events", {}, b""),
        ("GET", "/v1/sessions/s/events?from=nowhere", {}, b""),
        ("GET", "/v1/sessions?limit=none", {}, b""),
        ("GET", "/v1/sessions/unknown", {}, b""),
        ("DELETE", "/v1/sessions/unknown", {}, b""),
        ("POST", "/v1/sessions/s/events", {"Content-Type": "image/png"}, b"x"),
        ("POST", "/v1/sessions/s/events", JSON, b"no json"),
        ("POST", "/v1/sessions/s/events", JSON, b" " * 2_000_000),
        ("POST", "/v1/tickets", {}, b"no json"),
        ("POST", "/v1/streams/unknown/token", {}, b""),
    ],
)
async def test_who_is_not_let_in_hears_of_nothing_else(
    daemon: Daemon, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    async with connected(daemon) as client:
        await client.begin(method, path, {**headers, "Content-Length": str(len(body))})
        found = await client.answer()

    assert found.status == 401
    assert found.headers["www-authenticate"] == 'Bearer realm="broadcasterd"'


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PUT", "/v1/sessions", 405), ("HEAD", target("s"), 405)],
)
async def test_what_is_no_route_needs_no_token(
    daemon: Daemon, method: str, path: str, status: int
) -> None:
    assert (await ask(daemon, method, path)).status == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/{}"),
        ("GET", "/v1/sessions/{}/events"),
        ("GET", "/agent_network_sse/{}"),
        ("POST", "/v1/sessions/{}/events"),
        ("DELETE", "/v1/sessions/{}"),
    ],
)
async def test_a_session_that_may_not_be_seen_is_answered_like_one_that_does_not_exist(
    daemon: Daemon, method: str, path: str
) -> None:
    exists = await a_session(daemon)
    token = TOKENS["else"]
    assert token is not None
    seen, unseen = [
        await ask(daemon, method, path.format(name), bearer(token)) for name in (exists, "mine.no")
    ]

    assert seen.status == unseen.status == 403
    assert seen.body.replace(exists.encode(), b"mine.no") == unseen.body
    assert seen.headers.keys() == unseen.headers.keys()


async def test_a_stream_of_somebody_else_is_answered_like_one_that_does_not_exist(
    daemon: Daemon,
) -> None:
    other = bearer(sign(claims(subscribe=("mine.*",), sub="other", aud="us")))
    async with following(daemon, "mine.stream", headers=bearer(ALL)) as stream:
        stream_id = stream.heard[1].removeprefix(": stream ")
        exists, none = [
            await ask(daemon, "POST", f"/v1/streams/{named}/token", other)
            for named in (stream_id, "0123456789abcdef")
        ]

    assert exists.status == none.status == 404
    assert exists.body == none.body
