"""What clients make a daemon hold is accounted as it is: a test for each row of docs/memory.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import httpx
import pytest

from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, StartDaemon
from tests.support.flood import MIB
from tests.support.holders import (
    HALF_A_HEAD,
    PAGE,
    fill,
    half_handshakes,
    holding,
    http2_holders,
    request,
    settled,
    upload,
)
from tests.support.talk import target
from tests.support.tokens import bearer, claims, jwt_mode, sign

pytestmark = pytest.mark.slow

WITHIN = 0.25
TIMES = 3
ASK_S = 10.0

NDJSON = "application/x-ndjson"
RELAY = "text/event-stream"
EVENTS = {NDJSON: b'{"data":1}\n' * 5000, RELAY: b"data:1\n\n" * 7000}


class Open(Protocol):
    """Makes a daemon hold something, so many times, while inside."""

    def __call__(self, daemon: Daemon, count: int, /) -> AbstractContextManager[object]: ...


class Look(Protocol):
    """Asks a daemon for the megabytes that it accounts."""

    def __call__(self, daemon: Daemon, /, *, over_tls: bool) -> float: ...


def sending(data: bytes, *, answered: bool = False) -> Open:
    """Return what opens connections that send the same."""
    return lambda daemon, count: holding(daemon, data, count, answered=answered)


def asking_http2(path: str, *, accept: str = "*/*", window: int = 65_535) -> Open:
    """Return what opens requests of HTTP/2, a hundred on a connection."""
    return lambda daemon, count: http2_holders(
        daemon, count // 100, path, ("accept", accept), streams=100, window=window
    )


@dataclass(frozen=True, slots=True)
class Row:
    """Something that the daemon is made to hold; so many weigh enough to be seen."""

    count: int
    open: Open
    over_tls: bool = False
    limits: dict[str, object] = field(default_factory=dict)


ROWS = {
    "a connection that is silent": Row(600, sending(b"")),
    "a connection kept after an answer": Row(600, sending(request("/health/live"), answered=True)),
    "half a head": Row(300, sending(HALF_A_HEAD)),
    "a connection that is silent where TLS is spoken": Row(500, sending(b""), over_tls=True),
    "half a handshake": Row(120, half_handshakes, over_tls=True),
    "a long-poll": Row(300, sending(request(target("s", "wait=30"), *PAGE))),
    "a long-poll on HTTP/2": Row(
        200, asking_http2(target("s", "wait=30"), accept="application/json")
    ),
    "a page that is not read": Row(90, sending(request(target("big", "limit=1000"), *PAGE))),
    "a page that is not read on HTTP/2": Row(
        100, asking_http2(target("big", "limit=1000"), accept="application/json", window=0)
    ),
    "an answer that is not read": Row(80, sending(request("/openapi.json"))),
    "an answer that is not read on HTTP/2": Row(100, asking_http2("/openapi.json", window=0)),
    "a connection of HTTP/2": Row(150, http2_holders),
    "a stream on HTTP/2": Row(200, asking_http2(target("s"))),
    "a stream on HTTP/1.0": Row(1000, sending(request(target("s"), version="1.0"), answered=True)),
    "half a body": Row(90, sending(upload("s", "application/json", b" " * 60_000))),
    "a publisher that says nothing": Row(500, sending(upload("s", NDJSON, b""))),
    "half a line": Row(90, sending(upload("s", NDJSON, b"x" * 60_000))),
    "half an event of short lines": Row(75, sending(upload("s", RELAY, b"data:xx\n" * 7500))),
}


@pytest.fixture
def look(certificate: Certificate) -> Iterator[Look]:
    """Return what asks a daemon for the megabytes that it accounts."""
    with httpx.Client(verify=certificate.client_context(), timeout=ASK_S) as client:

        def accounted_mb(daemon: Daemon, /, *, over_tls: bool) -> float:
            scheme = "https" if over_tls else "http"
            health = client.get(f"{scheme}://127.0.0.1:{daemon.port}/health").json()
            return float(health["memory"]["accounted_mb"])

        yield accounted_mb


@pytest.mark.parametrize("name", ROWS)
def test_what_is_held_is_accounted(
    name: str, start_daemon: StartDaemon, certificate: Certificate, look: Look
) -> None:
    row = ROWS[name]
    server: dict[str, object] = {"h2c": True}
    if row.over_tls:
        server |= {
            "tls_certificate": str(certificate.chain),
            "tls_key": str(certificate.key),
        }
    daemon = start_daemon(server=server)
    if "page" in name:
        fill(daemon, "big", events=430, size=2000)
    assert_accounted(daemon, row, look)


@pytest.mark.parametrize(
    "data",
    [request("/health/live"), request(target("s"))],
    ids=["a connection", "a stream"],
)
def test_what_is_held_over_tls_is_accounted(
    data: bytes, start_daemon: StartDaemon, certificate: Certificate, look: Look
) -> None:
    daemon = start_daemon(
        server={"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    )

    def secured(daemon: Daemon, count: int, /) -> AbstractContextManager[object]:
        return holding(daemon, data, count, answered=True, certificate=certificate)

    assert_accounted(daemon, Row(150, secured, over_tls=True), look)


@pytest.mark.parametrize("kind", EVENTS)
def test_events_that_are_held_back_are_accounted(
    kind: str, start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory, look: Look
) -> None:
    daemon = start_daemon(
        auth=jwt_mode(tmp_path_factory.mktemp("keys")),
        limits={"publish_rate": 0.001, "publish_burst": 500},
    )
    token = bearer(sign(claims(publish=("*",), sub="one")))
    fields = [f"{name}: {value}" for name, value in token.items()]
    data = upload("s", kind, EVENTS[kind], *fields)
    with holding(daemon, data, 1):  # which uses up what may be published at once
        assert_accounted(daemon, Row(40, sending(data)), look)


def assert_accounted(daemon: Daemon, row: Row, look: Look) -> None:
    """Compare the growth of the resident set with that of the account.

    What is held first takes what was free before, and what others leave behind: it is what comes
    on top of it that is looked at. All that come at once leave something behind as well, which is
    there but once, however many more follow.
    """
    with ExitStack() as stack:
        stack.enter_context(row.open(daemon, row.count))
        before = figures(daemon, row, look)
        held = 0
        for _ in range(TIMES):
            stack.enter_context(row.open(daemon, row.count))
            held += row.count
            after = figures(daemon, row, look)
            resident, accounted = after[0] - before[0], after[1] - before[1]
            is_accounted = abs(accounted - resident) <= WITHIN * resident
            if is_accounted:
                break

    assert is_accounted, (
        f"{1024 * resident / held:.1f} KB resident for each,"
        f" {1024 * accounted / held:.1f} KB accounted"
    )


def figures(daemon: Daemon, row: Row, look: Look) -> tuple[float, float]:
    """Return the megabytes resident, and accounted, when neither grows any more."""
    settled(lambda: look(daemon, over_tls=row.over_tls))
    return daemon.rss() / MIB, look(daemon, over_tls=row.over_tls)
