"""Bytes that are no HTTP, or could be two things at once: refused, and nobody else takes notice.

After each group the daemon has answered no 5xx and logged no exception, nothing is left of the
connections, and the next client is served. Random bytes come from fixed seeds.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import h2.config
import h2.connection
import pytest

from tests.support.certificate import Certificate
from tests.support.daemon import CANARY, Daemon, StartDaemon
from tests.support.fuzz import (
    QUIET_S,
    Reply,
    all_of,
    client_hello,
    leave,
    mutated,
    throw,
    unharmed,
)
from tests.support.inprocess import Footprint, serving, until_back_to
from tests.support.steps import LONGEST_STEP_UNITS, unit_s, watched
from tests.support.talk import SOON, ask, target

Cases = dict[str, bytes]

REFUSED = {400, 501}
"""Malformed; or in a transfer coding that is not known (RFC 9112 §6.1)."""


def _request(
    method: str = "GET", path: str = "/health/live", fields: str = "", *, version: str = "HTTP/1.1"
) -> bytes:
    fields = f"Host: localhost\r\nCookie: theme={CANARY}\r\n{fields}"
    return f"{method} {path} {version}\r\n{fields}\r\n".encode("latin-1")


def _post(fields: str, body: bytes = b"", *, session: str = "outer", version: str = "1.1") -> bytes:
    fields = f"Content-Type: text/plain\r\n{fields}"
    return _request("POST", target(session), fields, version=f"HTTP/{version}") + body


# --- one request, or two? --------------------------------------------------------------------

INNER = _post("Content-Length: 2\r\n", b"hi", session="inner")
"""A request in the body of another: whoever takes that body to be shorter, serves this."""

LENGTH = f"Content-Length: {len(INNER)}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
NO_CHUNKS = b"0\r\n\r\n" + INNER


def _chunked(chunk: bytes) -> bytes:
    return _post(CHUNKED, chunk + b"\r\n" + NO_CHUNKS)


AMBIGUOUS: Cases = {
    "a length, then chunks": _post(LENGTH + CHUNKED, NO_CHUNKS),
    "chunks, then a length": _post(CHUNKED + LENGTH, NO_CHUNKS),
    "two lengths": _post("Content-Length: 0\r\n" + LENGTH, INNER),
    "the same length twice": _post("Content-Length: 2\r\n" * 2, b"hi" + INNER),
    "a list of lengths": _post(f"Content-Length: 0, {len(INNER)}\r\n", INNER),
    "a length with a sign": _post("Content-Length: +0\r\n", INNER),
    "a length below zero": _post("Content-Length: -1\r\n", INNER),
    "a length in hex": _post("Content-Length: 0x0\r\n", INNER),
    "a length with a separator": _post("Content-Length: 0_0\r\n", INNER),
    "a length in other digits": _post("Content-Length: \u00b2\r\n", INNER),
    "an empty length": _post("Content-Length:\r\n", INNER),
    "a length without end": _post(f"Content-Length: {'9' * 400}\r\n", INNER),
    "another coding": _post("Transfer-Encoding: xchunked\r\n", NO_CHUNKS),
    "a coding before chunked": _post("Transfer-Encoding: gzip, chunked\r\n", NO_CHUNKS),
    "a coding after chunked": _post("Transfer-Encoding: chunked, gzip\r\n", NO_CHUNKS),
    "the coding identity": _post("Transfer-Encoding: identity\r\n" + LENGTH, INNER),
    "an empty coding": _post("Transfer-Encoding:\r\n" + LENGTH, INNER),
    "chunked twice": _post("Transfer-Encoding: chunked, chunked\r\n", NO_CHUNKS),
    "chunked on two lines": _post(CHUNKED + CHUNKED, NO_CHUNKS),
    "chunked in quotes": _post('Transfer-Encoding: "chunked"\r\n', NO_CHUNKS),
    "chunked after a control": _post("Transfer-Encoding: \x0bchunked\r\n", NO_CHUNKS),
    "chunked in HTTP/1.0": _post(CHUNKED, NO_CHUNKS, version="1.0"),
    "a space before the colon": _post("Transfer-Encoding : chunked\r\n" + LENGTH, NO_CHUNKS),
    "a tab before the colon": _post("Content-Length\t: 0\r\n", INNER),
    "no colon": _post("Content-Length\r\n", INNER),
    "no name": _post(": 0\r\n", INNER),
    "a NUL in a name": _post("Content-Length\0: 0\r\n", INNER),
    "a NUL in a value": _post("Content-Length: 0\0\r\n", INNER),
    "a CR in a value": _post("X: a\rContent-Length: 0\r\n", INNER),
    "lines that LF ends": _request().replace(b"\r\n", b"\n") + INNER,
    "a line that is folded": _post("X: a\r\n Content-Length: 9\r\n", INNER),
    "a space before the first field": b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n" + INNER,
    "two hosts": _request(fields="Host: y\r\n") + INNER,
    "no host": b"GET /health/live HTTP/1.1\r\n\r\n" + INNER,
    "a chunk size with a sign": _chunked(b"+5\r\nhello"),
    "a chunk size below zero": _chunked(b"-5\r\nhello"),
    "a chunk size with 0x": _chunked(b"0x5\r\nhello"),
    "a chunk size after a space": _chunked(b" 5\r\nhello"),
    "a chunk size of 21 digits": _chunked(b"0" * 20 + b"5\r\nhello"),
    "no chunk size": _chunked(b"\r\nhello"),
    "a chunk size that LF ends": _chunked(b"5\nhello"),
    "an extension with LF": _chunked(b"5;\nhello"),
    "a chunk that is longer": _chunked(b"5\r\nhello!"),
    "a chunk that is shorter": _chunked(b"5\r\nhell"),
    "a chunk that LF ends": _post(CHUNKED, b"5\r\nhello\n" + NO_CHUNKS),
    "a chunk that nothing ends": _post(CHUNKED, b"5\r\nhelloXX" + NO_CHUNKS),
    "a trailer without a colon": _post(CHUNKED, b"0\r\nX\r\n\r\n" + INNER),
}

UNAMBIGUOUS: Cases = {
    "two requests": _post("Content-Length: 2\r\n", b"hi" + INNER),
    "a length with zeros": _post("Content-Length: 0002\r\n", b"hi" + INNER),
    "no length": _post("", INNER),
    "chunks": _post(CHUNKED, b"2\r\nhi\r\n" + NO_CHUNKS),
    "chunked in capitals": _post("Transfer-Encoding: CHUNKED\r\n", NO_CHUNKS),
    "a chunk size with zeros": _post(CHUNKED, b"0002\r\nhi\r\n" + NO_CHUNKS),
    "an extension of a chunk": _post(CHUNKED, b'2;a="b"\r\nhi\r\n' + NO_CHUNKS),
    "trailers": _post(CHUNKED, b"2\r\nhi\r\n0\r\nX: y\r\n\r\n" + INNER),
    "an upgrade to nothing": _request(fields="Connection: upgrade\r\nUpgrade: x\r\n") + INNER,
}


async def test_what_could_be_two_requests_is_none(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        replies = await _throw_all(daemon, AMBIGUOUS, quiet=SOON)

    taken = {
        name: reply
        for name, reply in replies.items()
        if not reply.closed or len(reply.statuses) != 1 or reply.statuses[0] not in REFUSED
    }
    assert {} == taken
    assert ["others"] == await _sessions(daemon)


async def test_what_can_only_be_two_requests_is_two(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        replies = await _throw_all(daemon, UNAMBIGUOUS, answers=2)

    assert {} == {name: reply for name, reply in replies.items() if reply.statuses != [200, 200]}
    assert ["inner", "others", "outer"] == await _sessions(daemon)


# --- what is no request ----------------------------------------------------------------------

FIELDS = "".join(f"X{number}: y\r\n" for number in range(20_000))
PUBLISH = _post("Content-Length: 5\r\nConnection: close\r\n", b"hello")
SUBSCRIBE = _request(path=target("outer", "from=now"), fields="Accept: text/event-stream\r\n")
PAGE = _request(path=target("outer", "wait=30&limit=5"), fields="Accept: application/json\r\n")

MALFORMED: Cases = {
    "nothing": b"",
    "zeros": bytes(5000),
    "ones": b"\xff" * 5000,
    "an empty line before": b"\r\n" + _request(),
    "empty lines": b"\r\n" * 5000,
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "a proxy's own protocol": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n" + _request(),
    "HTTP/0.9": b"GET /health/live\r\n\r\n",
    "HTTP/1.10": _request(version="HTTP/1.10"),
    "HTTP/2.0 by its name": _request(version="HTTP/2.0"),
    "HTTP/3.0": _request(path=target("outer"), version="HTTP/3.0"),
    "http/1.1": _request(version="http/1.1"),
    "no version": _request(version=""),
    "no method": _request(method=""),
    "a long method": _request(method="X" * 10_000),
    "a method of symbols": _request(method="!#$%&'*+-.^_`|~"),
    "a method with a bracket": _request(method="G(T"),
    "CONNECT": _request(method="CONNECT", path="x:80"),
    "TRACE": _request(method="TRACE"),
    "no target": _request(path=""),
    "a target without a slash": _request(path="health/live"),
    "the target *": _request(path="*"),
    "a whole URL": _request(path="http://y/health/live"),
    "half of a URL": _request(path="http://[::1/health/live"),
    "dots": _request(path="/v1/../../etc/passwd"),
    "escapes of nothing": _request(path="/v1/sessions/%zz%/events?%=%zz"),
    "an escaped NUL": _request(path=target("%00")),
    "a NUL": _request(path=target("\0")),
    "half a character": _request(path=target("%c3")),
    "no ASCII": _request(path=target("\xff")),
    "a long target": _request(path="/" + "a" * 300_000),
    "a long value": _request(fields=f"X: {'a' * 300_000}\r\n"),
    "a long name": _request(fields=f"{'a' * 300_000}: y\r\n"),
    "many fields": _request(fields=FIELDS),
    "a head without end": _request(fields=FIELDS)[:-2],
    "an empty host": b"GET /health/live HTTP/1.1\r\nHost:\r\n\r\n",
    "a host of symbols": b"GET /health/live HTTP/1.1\r\nHost: a b\xff/[:99999999\r\n\r\n",
    "a broken content type": _post('Content-Length: 1\r\nContent-Type: \xff/;="\r\n', b"a"),
    "an id that is not UTF-8": _request(path=target("outer"), fields="Last-Event-ID: \xff\xfe\r\n"),
    "odd fields": _request(fields='Cookie: \xff=;;"\r\nOrigin: \xff\r\nAccept: ;q=\xff\r\n' * 9),
    "proxies that are none": _request(fields="X-Forwarded-For: \xff,,\r\nForwarded: for=[::\r\n"),
    "an expectation": _post("Expect: 42-what\r\nContent-Length: 5\r\n"),
    "a body that GET has": _request(fields="Content-Length: 5\r\n") + b"hello" + _request(),
    "a chunk without end": _post(CHUNKED, b"f" * 16 + b"\r\nhello"),
    "a stream that is spoken to": SUBSCRIBE + PUBLISH,
    "a page that is spoken to": PAGE + b"\0" * 100,
    "a request after the last": PUBLISH * 2,
}


async def test_what_is_malformed_is_answered_or_cut_off(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        replies = await _throw_all(daemon, MALFORMED)

    assert {} == _failures(replies)
    assert [400] == replies["ones"].statuses  # said at its end: until then a line may come


@pytest.mark.parametrize(
    ("case", "status"),
    [("many fields", 431), ("HTTP/2.0 by its name", 505), ("a request after the last", 200)],
)
async def test_what_is_malformed_is_answered_once(
    start_daemon: StartDaemon, case: str, status: int
) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        reply = await throw(daemon.port, MALFORMED[case], answers=1)

    assert [status] == reply.statuses


async def test_a_hundred_requests_at_once_are_answered_one_after_another(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        requests = _post("Content-Length: 2\r\n", b"hi") * 100
        reply = await throw(daemon.port, requests, answers=100)

    assert [200] * 100 == reply.statuses


SETTINGS = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings:"
WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

UPGRADES: Cases = {
    "h2c": _request(fields=f"{SETTINGS} AAMAAABkAAQCAAAAAAIAAAAA\r\n"),
    "h2c with settings that are none": _request(fields=f"{SETTINGS} AAAA\r\n"),
    "h2c with no Base64": _request(fields=f"{SETTINGS} !!\r\n"),
    "h2c without settings": _request(fields="Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    "WebSocket": _request(fields=WEBSOCKET),
    "WebSocket without a key": _request(fields="Connection: Upgrade\r\nUpgrade: websocket\r\n"),
}


async def test_an_upgrade_is_ignored(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        replies = await _throw_all(daemon, UPGRADES)

    assert {} == {name: reply for name, reply in replies.items() if reply.statuses != [200]}


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _http2() -> bytes:
    """Return what a client begins an HTTP/2 connection with, and a request."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    fields = {
        ":method": "POST",
        ":path": target("outer"),
        ":scheme": "http",
        ":authority": "localhost",
    }
    client.send_headers(1, [*fields.items(), ("content-type", "text/plain")])
    client.send_data(1, b"hello", end_stream=True)
    return client.data_to_send()


@pytest.mark.slow
async def test_http2_that_is_broken_harms_nobody(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(server={"h2c": True})
    whole = _http2()
    cut = {f"{size} bytes": whole[:size] for size in range(len(whole))}
    changed = {f"seed {seed}": PREFACE + mutated(whole[24:], seed) for seed in range(200)}
    async with unharmed(daemon):
        assert {} == _failures(await _throw_all(daemon, cut | changed | {"twice": PREFACE * 2}))


# --- clients that leave, and chance ----------------------------------------------------------


def _departures(port: int) -> Iterator[Callable[[], Awaitable[None]]]:
    for whole in (PUBLISH, SUBSCRIBE):
        for size in range(len(whole) + 1):
            for abruptly in (False, True):
                yield partial(leave, port, whole[:size], abruptly=abruptly)


@pytest.mark.slow
async def test_a_client_may_leave_at_every_byte(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    async with unharmed(daemon):
        await all_of(_departures(daemon.port))


@pytest.mark.slow
async def test_no_task_is_left_of_any_of_them_and_no_step_was_long() -> None:
    async with serving() as daemon:
        for session in ("outer", "inner"):
            await throw(daemon.port, _post("Content-Length: 1\r\n", b"a", session=session))
        before = await Footprint.settled()
        async with watched() as watch:
            await all_of(_departures(daemon.port))
            for cases in (AMBIGUOUS, UNAMBIGUOUS, MALFORMED, UPGRADES):
                await all_of(partial(throw, daemon.port, data) for data in cases.values())

        assert watch.longest_step <= LONGEST_STEP_UNITS * unit_s()
        await until_back_to(before)
        assert 0 == daemon.server.failed_connections + daemon.server.failed_responses


VALID = (
    PUBLISH,
    SUBSCRIBE,
    PAGE,
    _post(CHUNKED, b"2\r\nhi\r\n0\r\n\r\n"),
    _request("DELETE", "/v1/sessions/outer"),
    _request("GET", "/v1/sessions?limit=5&cursor=a"),
    _request("POST", target("outer"), "Content-Type: application/json\r\nContent-Length: 28\r\n")
    + b'[{"data": 1, "event": "one"}]',
)


@pytest.mark.slow
async def test_requests_changed_at_random_harm_nobody(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    changed = {
        f"seed {seed} of request {number}": mutated(whole, seed)
        for number, whole in enumerate(VALID)
        for seed in range(100)
    }
    async with unharmed(daemon):
        assert {} == _failures(await _throw_all(daemon, changed))


@pytest.mark.slow
async def test_what_is_no_tls_harms_nobody(
    start_daemon: StartDaemon, certificate: Certificate
) -> None:
    daemon = start_daemon(server={"tls_certificate": certificate.chain, "tls_key": certificate.key})
    hello = client_hello(certificate.client_context("h2", "http/1.1"))
    cut = {f"{size} bytes": hello[:size] for size in range(0, len(hello), 8)}
    changed = {f"seed {seed}": mutated(hello, seed) for seed in range(200)}
    async with unharmed(daemon, certificate.client_context()):
        await _throw_all(daemon, cut | changed | MALFORMED)


async def _throw_all(
    daemon: Daemon, cases: Cases, *, quiet: float = QUIET_S, answers: int = 0
) -> dict[str, Reply]:
    replies: dict[str, Reply] = {}

    async def throw_one(name: str) -> None:
        replies[name] = await throw(daemon.port, cases[name], quiet=quiet, answers=answers)

    await all_of(partial(throw_one, name) for name in cases)
    return replies


def _failures(replies: dict[str, Reply]) -> dict[str, Reply]:
    """Return the replies that say that the daemon failed, not the client."""
    allowed = {501, 505}
    return {
        name: reply
        for name, reply in replies.items()
        if any(status >= 500 and status not in allowed for status in reply.statuses)
    }


async def _sessions(daemon: Daemon) -> list[str]:
    listed = await ask(daemon, "GET", "/v1/sessions")
    return [session["session"] for session in json.loads(listed.body)["sessions"]]
