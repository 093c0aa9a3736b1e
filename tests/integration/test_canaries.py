"""No token, no cookie and no data of an event is in any record of the log, at any level.

Canaries are in all that a client can send: on every route that is described, with good tokens and
bad ones, and in bytes that are no request at all. Then they are looked for in all that the daemon
wrote. The names of sessions and subjects may be logged. (After every other test, ``Daemon.stop``
looks for the canaries that the shared helpers send.)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import httpx
import pytest

from broadcasterd.api.openapi import document
from broadcasterd.config import Config
from tests.support.certificate import Certificate
from tests.support.daemon import CANARY, StartDaemon
from tests.support.fuzz import all_of, throw
from tests.support.talk import SOON
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

pytestmark = pytest.mark.slow

for_all = partial(claims, subscribe=("*",), publish=("*",), admin=True)

GOOD = sign(for_all(sub="keeper"))
BAD = {
    "too weak": sign(claims(subscribe=("other",))),
    "expired": sign(for_all(ttl=-60)),
    "forged": sign(for_all(), "another-secret-that-is-long-enough-for-the-algorithm"),
    "not even a token": f"{CANARY}-as-a-token",
}

SECRETS = [
    CANARY,
    SECRET,
    *(part for token in (GOOD, *BAD.values()) for part in token.split(".")[1:]),
]
"""What must not be in the log. A token's first part is the same for all of one algorithm."""

EVENTS = "/v1/sessions/news/events"

BODIES = [
    ("application/json", f'{{"data": "{CANARY}", "idempotency_key": "{CANARY}"}}'),
    ("application/json", f'{{"data": "{CANARY}'),
    ("application/json", f'{{"{CANARY}": 1, "data": 1}}'),
    ("application/json", f'{{"data": 1, "retry": "{CANARY}"}}'),
    ("application/json", f'{{"data": 1, "event": "{CANARY}\\n"}}'),
    ("application/json", f'{{"data": "{CANARY}\\ud800"}}'),
    ("application/json", f'{{"data": 1, "idempotency_key": "{CANARY * 100}"}}'),
    ("application/x-ndjson", f'{{"data": "{CANARY}"}}\n{{"data": {CANARY}}}\n'),
    ("text/event-stream", f"data: {CANARY}\nid: {CANARY}\n\ndata: {CANARY}"),
    ("text/event-stream", f"data: {CANARY}\xff\n\n"),
    ("text/plain", f"{CANARY}\xff"),
    (f"text/plain; charset={CANARY}", CANARY),
    (f"{CANARY}/{CANARY}", CANARY),
    ("text/plain", CANARY * 100_000),
]

NO_REQUESTS = [
    f"{CANARY}\r\n\r\n",
    f"GET /{CANARY} HTTP/9.9\r\n\r\n",
    f"{CANARY} / HTTP/1.1\r\nHost: {CANARY}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: localhost\r\n{CANARY} : {CANARY}\r\n\r\n",
    f"GET http://[{CANARY}/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {CANARY * 10_000}\r\n\r\n",
    f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {CANARY}\r\n\r\n",
    f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}\r\n",
    f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: {CANARY}\r\nConnection: upgrade\r\n\r\n",
    f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY * 100}",
]


def _request(method: str, path: str, fields: str = "", body: str = "") -> str:
    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{fields}\r\n{body}"


def _carried(token: str) -> Iterator[tuple[str, str]]:
    """Yield header fields, and a query, that carry a token."""
    yield f"Authorization: Bearer {token}\r\n", ""
    yield f"Authorization: Basic {token}\r\n", ""
    yield f"Authorization: Bearer {token}\r\nCookie: broadcaster_token={CANARY}\r\n", ""
    yield f"Cookie: broadcaster_token={token}; other={CANARY}\r\nOrigin: http://{CANARY}\r\n", ""
    yield "", f"token={token}"
    yield "", f"ticket={token}"


def _on_every_route() -> Iterator[str]:
    """Yield requests of each method and path, with every token in every place for it."""
    paths = document(Config())["paths"]
    assert isinstance(paths, dict)
    for template, operations in paths.items():
        path = template.format(session="news", stream=CANARY, subject="nobody", file=CANARY)
        for method in {"get", "post", "delete"} & operations.keys():
            for token in (GOOD, *BAD.values()):
                for fields, query in _carried(token):
                    yield _request(method.upper(), f"{path}?limit={CANARY}&{query}", fields)


def _with_every_body() -> Iterator[str]:
    by_token = f"Authorization: Bearer {GOOD}\r\n"
    for kind, body in BODIES:
        for path in (f"{EVENTS}?event={CANARY}", "/v1/tickets"):
            yield _request("POST", path, f"{by_token}Content-Type: {kind}\r\n", body)
            yield _request("POST", path, f"Content-Type: {kind}\r\n", body)
    for field in ("Last-Event-ID", "Accept", "Content-Encoding", "X-Forwarded-For", "Forwarded"):
        yield _request("GET", EVENTS, f"{by_token}{field}: {CANARY}\r\n")
        yield _request("GET", f"{EVENTS}?from={CANARY}&{field}={CANARY}", by_token)


@pytest.mark.parametrize("kind", ["console", "json"])
async def test_nothing_that_a_client_sends_is_logged(
    kind: Literal["console", "json"], start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(
        auth=jwt_mode(tmp_path, allow_query_token=True),
        log={"level": "debug", "format": kind},
        limits={"trusted_proxies": ["127.0.0.1"]},
    )
    requests = [*NO_REQUESTS, *_on_every_route(), *_with_every_body()]
    await all_of(partial(throw, daemon.port, text.encode("latin-1")) for text in requests)
    ticket = await _use_a_ticket(daemon.url)
    daemon.stop()

    log = daemon.log()
    assert "token refused" in log
    assert "stream ended" in log
    assert [] == [secret for secret in [*SECRETS, ticket] if secret in log]


async def _use_a_ticket(url: str) -> str:
    """Open a stream with a ticket, and try to do so again; return the ticket."""
    async with httpx.AsyncClient(base_url=url, timeout=SOON) as client:
        asked = await client.post("/v1/tickets", json={"session": "news"}, headers=bearer(GOOD))
        ticket = str(asked.json()["ticket"])
        async with client.stream("GET", EVENTS, params={"ticket": ticket}) as answer:
            assert 200 == answer.status_code
        again = await client.get(EVENTS, params={"ticket": ticket})
        assert 401 == again.status_code
    return ticket


async def test_nothing_that_a_client_sends_by_http2_is_logged(
    start_daemon: StartDaemon, certificate: Certificate, tmp_path: Path
) -> None:
    daemon = start_daemon(
        server={"tls_certificate": certificate.chain, "tls_key": certificate.key},
        auth=jwt_mode(tmp_path, allow_query_token=True),
        log={"level": "debug"},
    )
    url = daemon.url.replace("http:", "https:")
    context = certificate.client_context("h2")
    async with httpx.AsyncClient(base_url=url, verify=context, http2=True, timeout=SOON) as client:
        for token in (GOOD, *BAD.values()):
            for fields in (bearer(token), {"Cookie": f"broadcaster_token={token}; a={CANARY}"}, {}):
                await client.post(EVENTS, params={"token": token}, headers=fields, content=CANARY)
                await client.get(
                    EVENTS,
                    params={"token": token, "last_event_id": CANARY},
                    headers={"Accept": "application/json", **fields},
                )
    daemon.stop()

    assert "token refused" in daemon.log()
    assert [] == [secret for secret in SECRETS if secret in daemon.log()]
