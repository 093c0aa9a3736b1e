"""The limits, setting by setting: each bites at its value, and spares clients that stay within.

A real daemon and real sockets. Strangers come from other addresses of the loopback network.
"""

from __future__ import annotations

import json
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import h11
import psutil
import pytest
import trio

from broadcasterd.memory.holdings import CONNECTION_BYTES, REQUEST_BYTES
from broadcasterd.server.headers import SECURITY_HEADERS
from tests.support.daemon import Daemon, StartDaemon
from tests.support.flood import ASKING_BYTES
from tests.support.http1 import Answer, Http1
from tests.support.talk import (
    CHUNKED,
    JSON,
    NDJSON,
    SOON,
    TEXT,
    ask,
    connected,
    eventually,
    following,
    target,
)
from tests.support.tokens import bearer, claims, jwt_mode, sign

EVENTS = target("news")
STRANGER = "127.0.0.2"
ANOTHER = "127.0.0.3"

A_BYTE_EACH_S = 0.05


async def serve_me(daemon: Daemon, source: str | None = None) -> trio.SocketStream | None:
    """Return a connection on which a request was answered; ``None`` if it was closed instead."""
    stream = None
    with (
        trio.fail_after(SOON),
        suppress(OSError, trio.BrokenResourceError, h11.RemoteProtocolError),
    ):
        stream = await trio.open_tcp_stream("127.0.0.1", daemon.port, local_address=source)
        client = Http1(stream)
        await client.ask("GET", "/health/live")
        assert 200 == (await client.answer()).status
        return stream
    if stream is not None:
        await stream.aclose()
    return None


async def is_served(daemon: Daemon, *, source: str | None = None) -> bool:
    async with AsyncExitStack() as stack:
        if stream := await serve_me(daemon, source):
            await stack.enter_async_context(stream)
        return stream is not None


async def until_served(daemon: Daemon, *, source: str | None = None) -> None:
    """Wait until a connection is served: a place is free some time after its client has left."""
    async with kept_open(daemon, 1, source=source):
        pass


@asynccontextmanager
async def kept_open(
    daemon: Daemon, count: int, *, source: str | None = None
) -> AsyncIterator[None]:
    """Have so many connections on which a request was answered."""
    async with AsyncExitStack() as stack:

        async def one_more() -> bool:
            if stream := await serve_me(daemon, source):
                await stack.enter_async_context(stream)
            return stream is not None

        for _ in range(count):
            await eventually(one_more)
        yield


async def dribble(stream: trio.abc.Stream, text: bytes) -> None:
    """Send a text byte by byte, until it is at its end or the other side has enough."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for byte in text:
            await stream.send_all(bytes([byte]))
            await trio.sleep(A_BYTE_EACH_S)


def records_of(log: str, event: str) -> list[str]:
    return [line for line in log.splitlines() if event in line]


def problem(found: Answer, status: int) -> str:
    """Return the detail of a problem, having seen that it is one."""
    assert (status, "application/problem+json") == (found.status, found.headers["content-type"])
    document = found.json()
    assert status == document["status"]
    return str(document["detail"])


# --- connections -----------------------------------------------------------------------------


async def test_max_connections(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"max_connections": 3})
    async with kept_open(daemon, 2):
        assert await is_served(daemon)
        async with kept_open(daemon, 1):
            for _ in range(20):
                assert not await is_served(daemon)
        await until_served(daemon)

    [record] = records_of(daemon.whole_log(), "connections are refused")
    assert "limits.max_connections" in record


async def test_max_connections_counts_streams_for_as_long_as_they_last(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(limits={"max_connections": 3})
    async with following(daemon, "news"), following(daemon, "news"):
        async with following(daemon, "other"):
            assert not await is_served(daemon)
        await until_served(daemon)
    await until_served(daemon)


async def test_max_connections_per_address(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"max_connections_per_address": 2})
    async with kept_open(daemon, 2, source=STRANGER):
        for _ in range(20):
            assert not await is_served(daemon, source=STRANGER)
        assert await is_served(daemon, source=ANOTHER)
        async with kept_open(daemon, 2, source=ANOTHER):
            assert not await is_served(daemon, source=ANOTHER)
    await until_served(daemon, source=STRANGER)

    async def both_are_told() -> bool:
        return len(records_of(daemon.log(), "connections are refused")) >= 2

    await eventually(both_are_told)
    refused = records_of(daemon.log(), "connections are refused")
    assert 2 == len(refused), "one record for each address, not for each connection"
    assert all("limits.max_connections_per_address" in record for record in refused)


async def test_a_trusted_proxy_may_have_more_connections_than_one_client(
    start_daemon: StartDaemon,
) -> None:
    limits = {"max_connections_per_address": 2, "trusted_proxies": [f"{STRANGER}/32"]}
    daemon = start_daemon(limits=limits)
    async with kept_open(daemon, 4, source=STRANGER), kept_open(daemon, 2, source=ANOTHER):
        assert await is_served(daemon, source=STRANGER)
        assert not await is_served(daemon, source=ANOTHER)


async def test_refused_connections_leave_nothing_behind(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"max_connections_per_address": 2})
    async with kept_open(daemon, 2):
        before = daemon.descriptors()
        for _ in range(200):
            assert not await is_served(daemon)

        async def is_back() -> bool:
            return daemon.descriptors() <= before

        await eventually(is_back)


@pytest.mark.slow
async def test_without_descriptors_the_daemon_waits_and_recovers(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(memory={"sample_interval": 0.05})
    process = psutil.Process(daemon.pid)
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    async with following(daemon, "news") as stream:
        used = process.num_fds()
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        async with AsyncExitStack() as stack:
            waiting = [await stack.enter_async_context(connected(daemon)) for _ in range(30)]
            for client in waiting:
                await client.ask("GET", "/health/live", {"Connection": "close"})

            async def has_failed() -> bool:
                return bool(records_of(daemon.log(), "connections cannot be accepted"))

            await eventually(has_failed)
            # Nobody is turned away: as some leave, the others come in.
            for client in waiting:
                assert 200 == (await client.answer()).status
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4096, hard))
        await ask(daemon, "POST", EVENTS, JSON, b'{"data": "a"}')

        assert ["a"] == await stream.data(1)
    assert 1 == len(records_of(daemon.whole_log(), "connections cannot be accepted"))


# --- heads -----------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    """Return a request's head of so many bytes."""
    start = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Filler: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("pieces", [1, 3])
async def test_max_head_bytes(start_daemon: StartDaemon, pieces: int) -> None:
    daemon = start_daemon(limits={"max_head_bytes": 4096})
    for size, status in [(4096, 200), (4097, 431), (60_000, 431)]:
        head = head_of(size)
        assert size == len(head)
        async with connected(daemon) as client:
            client.has_asked()
            step = -(-size // pieces)
            with suppress(trio.BrokenResourceError):  # it was answered before its end
                for start in range(0, size, step):
                    await client.stream.send_all(head[start : start + step])
            found = await client.answer()
            assert status == found.status
            if status == 431:
                assert "limits.max_head_bytes" in problem(found, 431)
                await client.closed()


@pytest.mark.slow
async def test_head_timeout(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"head_timeout": 1.0})
    async with connected(daemon) as slow, connected(daemon) as waiting, trio.open_nursery() as n:
        started = trio.current_time()
        n.start_soon(dribble, slow.stream, b"GET / HTTP/1.1\r\nHost: a\r\nX-Filler: " + b"x" * 9000)
        await waiting.ask("GET", "/health/live")
        assert 200 == (await waiting.answer()).status
        slow.has_asked()
        found = await slow.answer()
        assert trio.current_time() - started >= 1.0
        assert "limits.head_timeout" in problem(found, 408)
        await slow.closed()

        # To wait between two requests is no slow head.
        await trio.sleep(max(0.0, started + 2.0 - trio.current_time()))
        waiting.next_request()
        await waiting.ask("GET", "/health/live")
        assert 200 == (await waiting.answer()).status


# --- bodies ----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_body_timeout(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"body_timeout": 3.0})
    async with (
        following(daemon, "news") as stream,
        connected(daemon) as slow,
        connected(daemon) as steady,
        trio.open_nursery() as nursery,
    ):
        started = trio.current_time()
        await slow.begin("POST", EVENTS, {**JSON, "Content-Length": "1000"})
        nursery.start_soon(dribble, slow.stream, b'{"data": "' + b"x" * 988 + b'"}')
        await steady.begin("POST", EVENTS, {**JSON, "Content-Length": "13"})
        for byte in b'{"data": "a"}':
            await steady.go_on(bytes([byte]))
            await trio.sleep(A_BYTE_EACH_S)
        assert 200 == (await steady.answer()).status
        assert ["a"] == await stream.data(1)

        found = await slow.answer()
        assert trio.current_time() - started >= 3.0
        assert "limits.body_timeout" in problem(found, 408)
        assert "close" == found.headers["connection"]
        await slow.closed()


@pytest.mark.slow
async def test_stream_idle_timeout(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"stream_idle_timeout": 2.0, "body_timeout": 0.5})
    async with (
        following(daemon, "news") as stream,
        connected(daemon) as silent,
        connected(daemon) as lively,
    ):
        started = trio.current_time()
        await silent.begin("POST", EVENTS, {**NDJSON, **CHUNKED})
        await silent.go_on(b'{"data": "before"}\n{"data": "ha')
        assert ["before"] == await stream.data(1)
        await lively.begin("POST", EVENTS, {**NDJSON, **CHUNKED})
        for number in range(10):
            await lively.go_on(b'{"data": "%d"}\n' % number)
            assert [str(number)] == await stream.data(1)
            await trio.sleep(0.25)

        found = await silent.answer()
        assert trio.current_time() - started >= 2.0
        assert "limits.stream_idle_timeout" in problem(found, 408)
        assert 1 == found.json()["accepted"]
        await lively.go_on(b'{"data": "still there"}\n')
        assert ["still there"] == await stream.data(1)


# --- requests of one connection --------------------------------------------------------------


async def test_max_requests_per_connection(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"max_requests_per_connection": 3})
    async with connected(daemon) as client:
        told = []
        for number in range(3):
            await client.ask("GET", "/health/live")
            found = await client.answer()
            assert 200 == found.status
            told.append(found.headers.get("connection"))
            if number < 2:
                client.next_request()

        assert [None, None, "close"] == told
        await client.closed()
    assert await is_served(daemon)


# --- streams ---------------------------------------------------------------------------------


async def turned_away(
    daemon: Daemon, name: str = "news", headers: Mapping[str, str] | None = None, **source: str
) -> bool:
    """Whether a subscriber is told to come back later, in the way that it asked for."""
    async with connected(daemon, **source) as client:
        await client.ask("GET", target(name, "overload=status"), headers)
        if (head := await client.head()).status_code == 200:
            return False
        assert 429 == head.status_code
        assert int(dict(head.headers)[b"retry-after"]) >= 1
    async with connected(daemon, **source) as client:
        await client.ask("GET", target(name), headers)
        stream = await client.follow_begun()
        assert {"reason": "memory", "reconnect": True} == await stream.end()
    return True


async def until_admitted(daemon: Daemon, name: str, headers: Mapping[str, str]) -> None:
    async def admitted() -> bool:
        async with connected(daemon) as client:
            await client.ask("GET", target(name, "overload=status"), headers)
            return (await client.head()).status_code == 200

    await eventually(admitted)


async def test_max_subscribers_per_address(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"max_subscribers_per_address": 2})
    async with following(daemon, "news"):
        async with following(daemon, "other"):
            assert await turned_away(daemon)
            assert not await turned_away(daemon, source=STRANGER)
            page = await ask(daemon, "GET", EVENTS + "?wait=1", {"Accept": "application/json"})
            assert "limits.max_subscribers_per_address" in problem(page, 429)
        await until_admitted(daemon, "news", {})


async def test_what_a_trusted_proxy_says_of_its_clients_counts(start_daemon: StartDaemon) -> None:
    limits = {"max_subscribers_per_address": 1, "trusted_proxies": ["127.0.0.1"]}
    daemon = start_daemon(limits=limits)
    # Each client once: that one has left is known to the daemon some time later.
    for number, (field, one, other) in enumerate(
        [
            ("X-Forwarded-For", "198.51.100.1, 203.0.113.1", "203.0.113.2"),
            ("Forwarded", 'for=198.51.100.1, for="203.0.113.3:80"', "for=203.0.113.4"),
            ("X-Forwarded-For", "2001:db8:1:2::1", "2001:db8:1:3::1"),
        ]
    ):
        async with following(daemon, "news", headers={field: one}):
            assert await turned_away(daemon, headers={field: one})
            assert not await turned_away(daemon, headers={field: other})
            # A stranger is who he is.
            stranger = f"127.0.0.{2 + number}"
            assert not await turned_away(daemon, headers={field: one}, source=stranger)
    async with following(daemon, "news", headers={"X-Forwarded-For": "2001:db8:1:4::1"}):
        same_site = {"X-Forwarded-For": "2001:db8:1:4:ffff::2"}
        assert await turned_away(daemon, headers=same_site)

    log = daemon.whole_log()
    assert "203.0.113.1" in log
    assert "198.51.100.1" not in log


# --- subjects --------------------------------------------------------------------------------


def token_of(subject: str | None) -> dict[str, str]:
    granted = claims(subscribe=("*",), publish=("*",))
    return bearer(sign(granted if subject is None else {**granted, "sub": subject}))


async def test_max_subscribers_per_subject(start_daemon: StartDaemon, tmp_path: Path) -> None:
    limits = {"max_subscribers_per_subject": 1}
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=limits)
    alice, bob, nobody = token_of("alice"), token_of("bob"), token_of(None)
    async with following(daemon, "news", headers=alice):
        assert await turned_away(daemon, headers=alice)
        assert await turned_away(daemon, "other", alice)
        async with following(daemon, "news", headers=bob), following(daemon, "x", headers=nobody):
            assert not await turned_away(daemon, "y", nobody)
            assert await turned_away(daemon, headers=bob)
    await until_admitted(daemon, "news", alice)


async def publish(daemon: Daemon, name: str, headers: Mapping[str, str], events: int = 1) -> Answer:
    body = json.dumps([{"data": n} for n in range(events)]).encode()
    return await ask(daemon, "POST", target(name), {**JSON, **headers}, body)


async def test_max_sessions_per_subject(start_daemon: StartDaemon, tmp_path: Path) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits={"max_sessions_per_subject": 2})
    alice, bob = token_of("alice"), token_of("bob")
    for name in ("one", "two"):
        assert 200 == (await publish(daemon, name, alice)).status
    refused = await publish(daemon, "three", alice)
    assert "limits.max_sessions_per_subject" in problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert await turned_away(daemon, "three", alice)
    assert 200 == (await publish(daemon, "two", alice)).status
    assert 200 == (await publish(daemon, "three", bob)).status
    # What another has opened costs nothing; what is closed is free again.
    assert 200 == (await publish(daemon, "three", alice)).status
    assert 204 == (await ask(daemon, "DELETE", "/v1/sessions/one", alice)).status
    assert 200 == (await publish(daemon, "four", alice)).status
    assert 429 == (await publish(daemon, "five", alice)).status


async def test_publish_rate_and_burst(start_daemon: StartDaemon, tmp_path: Path) -> None:
    limits = {"publish_rate": 0.5, "publish_burst": 10}
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=limits)
    alice, bob, nobody = token_of("alice"), token_of("bob"), token_of(None)
    async with following(daemon, "news", headers=bob) as stream:
        assert 200 == (await publish(daemon, "news", alice, 10)).status
        assert 10 == len(await stream.data(10))
        refused = await publish(daemon, "news", alice, 10)
        assert "limits.publish_rate" in problem(refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        # Others are not touched, and nothing of what was refused is there.
        assert 200 == (await publish(daemon, "news", bob, 1)).status
        assert ["0"] == await stream.data(1)
        for _ in range(5):
            assert 200 == (await publish(daemon, "news", nobody, 10)).status
        assert 50 == len(await stream.data(50))


async def test_publish_rate_in_bytes(start_daemon: StartDaemon, tmp_path: Path) -> None:
    limits = {"publish_rate_bytes": 0.5, "publish_burst_bytes": 50_000}
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=limits)
    alice, bob = token_of("alice"), token_of("bob")
    body = b"x" * 40_000
    assert 200 == (await ask(daemon, "POST", EVENTS, {**TEXT, **alice}, body)).status
    refused = await ask(daemon, "POST", EVENTS, {**TEXT, **alice}, body)
    assert "limits.publish_rate_bytes" in problem(refused, 429)
    assert int(refused.headers["retry-after"]) > 1
    assert 200 == (await ask(daemon, "POST", EVENTS, {**TEXT, **alice}, b"small")).status
    assert 200 == (await ask(daemon, "POST", EVENTS, {**TEXT, **bob}, body)).status


@pytest.mark.parametrize(
    ("setting", "limit"),
    [("max_publishing_per_subject", 2), ("max_pending_bytes_per_subject", 7_000)],
)
async def test_half_a_body_takes_of_its_subjects_share(
    setting: str, limit: int, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits={setting: limit})
    alice, bob = token_of("alice"), token_of("bob")
    body = b"x" * 1000
    waiting = 2 * (CONNECTION_BYTES + REQUEST_BYTES) + ASKING_BYTES
    async with connected(daemon) as one, connected(daemon) as other:
        for client in (one, other):
            head = {**TEXT, **alice, "Content-Length": "1500"}
            await client.begin("POST", EVENTS, head)
            await client.stream.send_all(body)

        async def both_are_there() -> bool:
            health = json.loads((await ask(daemon, "GET", "/health")).body)
            return bool(health["memory"]["clients_mb"] >= waiting / 2**20 - 0.001)

        await eventually(both_are_there)
        refused = await ask(daemon, "POST", EVENTS, {**TEXT, **alice}, body * 2)
        assert f"limits.{setting}" in problem(refused, 429)
        assert 200 == (await ask(daemon, "POST", EVENTS, {**TEXT, **bob}, body * 2)).status
        await one.stream.send_all(b"x" * 500)
        assert 200 == (await one.answer()).status
    assert 200 == (await ask(daemon, "POST", EVENTS, {**TEXT, **alice}, body * 2)).status


async def test_publish_rate_without_subjects_limits_nobody(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limits={"publish_rate": 0.5, "publish_burst": 1})
    for _ in range(5):
        assert 200 == (await publish(daemon, "news", {}, 10)).status


async def test_publish_rate_refuses_before_the_body_is_sent(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    limits = {"publish_rate": 0.01, "publish_burst": 1}
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=limits)
    alice = token_of("alice")
    assert 200 == (await publish(daemon, "news", alice)).status
    async with connected(daemon) as client:
        await client.begin("POST", EVENTS, {**JSON, **alice, "Content-Length": "1000"})

        problem(await client.answer(), 429)


@pytest.mark.slow
async def test_publish_rate_holds_a_stream_back(start_daemon: StartDaemon, tmp_path: Path) -> None:
    limits = {"publish_rate": 20, "publish_burst": 5}
    daemon = start_daemon(auth=jwt_mode(tmp_path), limits=limits)
    alice = token_of("alice")
    async with following(daemon, "news", headers=alice) as stream, connected(daemon) as client:
        started = trio.current_time()
        await client.begin("POST", EVENTS, {**NDJSON, **CHUNKED, **alice})
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(25):
                    await client.go_on(b'{"data": "%d"}\n' % number)
                await client.end()

            nursery.start_soon(send)
            assert [str(n) for n in range(25)] == await stream.data(25)
        found = await client.answer()
        assert (200, 25) == (found.status, found.json()["accepted"])
        assert trio.current_time() - started >= (25 - 5) / 20 * 0.9


# --- headers of every response ---------------------------------------------------------------


async def test_every_response_has_the_security_headers(start_daemon: StartDaemon) -> None:
    origin = "https://example.org"
    daemon = start_daemon(server={"cors_origins": [origin]}, limits={"max_head_bytes": 4096})
    preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    seen: dict[int, Answer] = {}
    for method, path, headers, body in [
        ("GET", "/health", {}, b""),
        ("POST", EVENTS, JSON, b'{"data": "a"}'),
        ("POST", EVENTS, JSON, b"rubbish"),
        ("POST", EVENTS, {"Content-Type": "image/png"}, b"x"),
        ("DELETE", "/v1/sessions/news", {}, b""),
        ("GET", EVENTS, {}, b""),  # over: 204
        ("GET", "/nothing", {}, b""),
        ("HEAD", EVENTS, {}, b""),
        ("OPTIONS", EVENTS, preflight, b""),
        ("GET", "/", {"X-Filler": "x" * 5000}, b""),
    ]:
        found = await ask(daemon, method, path, headers, body)
        seen[found.status] = found
        check_security(found.headers)
    assert {200, 204, 400, 404, 405, 415, 431} == set(seen)
    async with connected(daemon) as client:
        await client.ask("GET", target("other"), {"Origin": origin})
        head = {name.decode(): value.decode() for name, value in (await client.head()).headers}
        assert "text/event-stream; charset=utf-8" == head["content-type"]
        assert origin == head["access-control-allow-origin"]
        check_security(head)
    async with connected(daemon) as client:
        client.has_asked()
        await client.stream.send_all(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        found = await client.answer()
        problem(found, 400)
        check_security(found.headers)


def check_security(headers: Mapping[str, str]) -> None:
    for name, value in SECURITY_HEADERS:
        assert value.decode() == headers[name.decode()]
    assert "strict-transport-security" not in headers
