"""Heads that no client sends by mistake: each is refused, and the log stays readable."""

from __future__ import annotations

import random
import re
from functools import partial

import pytest
import trio
from hpack import Encoder

from broadcasterd.observe.limit import RECORDS_PER_S
from tests.support.daemon import Daemon, StartDaemon
from tests.support.fuzz import Reply, all_of, mutated, throw
from tests.support.talk import ask, connected
from tests.support.tokens import jwt_mode

HOSTS = (
    "..", ".", "a..b", ".a", "a" * 64, "a." * 140, "xn--", "xn--\x80", "[", "[]:80", "[::1", "a:b",
    "a:99999", "@", "a@b", "a/b", "%", "%00", "%2e%2e", "\x7f", "é", "a b", "*", "0x7f.1", "-", "_",
)  # fmt: skip
TARGETS = (
    "/v1/sessions/%", "/v1/sessions/%zz/events", "/v1/sessions/%00/events", "/%2F", "/%2F%2F",
    "//", "///v1/sessions/a/events", "/v1/sessions/%ff%fe/events", "/v1//sessions", "/?%", "/?=&=&",
    "/v1/sessions?cursor=%00", "/v1/sessions?limit=%ff", "/v1/sessions/a/events?from=%c3%28",
    "/v1/sessions/a/events?last_event_id=%ff%00", "/v1/sessions/a/events?wait=1e309", "/;", "/|",
    "/v1/subjects/%2F/streams", "/v1/subjects//streams", "/v1/streams/%0d%0a/token", "/\\", "*",
)  # fmt: skip
FIELDS = (
    ("Last-Event-ID", "\xff\xfe"), ("Content-Type", ";;;="), ("Content-Type", "a/b; charset=\xff"),
    ("Content-Type", "text/plain; charset=undefined"), ("Cookie", "broadcaster_token==;;=\xff"),
    ("Authorization", "Bearer \xff"), ("Authorization", "\xff"), ("Accept", "\xff;q=\xff"),
    ("Origin", "\xff"), ("Origin", "://"), ("Origin", "http://["), ("Forwarded", 'for="[\xff'),
    ("X-Forwarded-For", "\xff,,"), ("Content-Encoding", "\xff"), ("Expect", "\xff"),
    ("Range", "bytes=-"), ("If-Modified-Since", "\xff"), ("Access-Control-Request-Method", "\xff"),
)  # fmt: skip
METHODS = ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "BREW")

Head = tuple[str, str, str, tuple[tuple[str, str], ...]]


def heads() -> list[Head]:
    """Return method, target, host and other fields of requests: one oddity each, then several."""
    odd: list[Head] = [
        ("GET", "/v1/sessions/a/events?from=now&limit=1", host, ()) for host in HOSTS
    ]
    odd += [(method, target, "localhost", ()) for target in TARGETS for method in METHODS[:3]]
    odd += [("POST", "/v1/sessions/a/events", "localhost", (field,)) for field in FIELDS]
    chance = random.Random(11)  # noqa: S311 (not a secret)
    for _ in range(300):
        some = tuple(chance.sample(FIELDS, chance.randint(0, 3)))
        odd.append((chance.choice(METHODS), chance.choice(TARGETS), chance.choice(HOSTS), some))
    return odd


def over_http1(head: Head) -> bytes:
    """Return the head as HTTP/1.1 writes it."""
    method, target, host, fields = head
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2 (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def over_http2(head: Head) -> bytes:
    """Return the head as HTTP/2 writes it, on a connection of its own."""
    method, target, host, fields = head
    block = [(":method", method), (":scheme", "http"), (":path", target), (":authority", host)]
    block += [(name.lower(), value) for name, value in fields]
    encoded = Encoder().encode(
        [(name.encode(), value.encode("latin-1")) for name, value in block], huffman=False
    )
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 5, 1, encoded)


async def all_thrown(daemon: Daemon, requests: list[bytes]) -> list[Reply]:
    """Send each on a connection of its own; return the answers."""
    replies: list[Reply] = []

    async def one(data: bytes) -> None:
        replies.append(await throw(daemon.port, data, quiet=0.5))

    await all_of(partial(one, data) for data in requests)
    return replies


@pytest.mark.slow
async def test_no_head_over_http_1_makes_the_daemon_fail(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    whole = [over_http1(head) for head in heads()]
    changed = [mutated(data, seed) for seed, data in enumerate(whole)]
    replies = await all_thrown(daemon, whole + changed)

    assert [] == [reply.raw for reply in replies if 500 in reply.statuses]
    assert "failed" not in daemon.log()
    assert "Traceback" not in daemon.log()


@pytest.mark.slow
async def test_no_head_over_http_2_makes_the_daemon_fail(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(server={"h2c": True})
    whole = [over_http2(head) for head in heads()]
    changed = [data[:33] + mutated(data[33:], seed) for seed, data in enumerate(whole)]
    await all_thrown(daemon, whole + changed)

    # Whatever makes it fail is recorded: that is what "a response failed" is for.
    assert "failed" not in daemon.log()
    assert "Traceback" not in daemon.log()
    assert 200 == (await ask(daemon, "GET", "/health/live")).status


@pytest.mark.parametrize("host", ["..", "a..b", ".a", "a" * 64, "a@b"])
async def test_a_host_that_nobody_can_have_is_400(host: str, daemon: Daemon) -> None:
    reply = await throw(daemon.port, over_http1(("GET", "/v1/sessions", host, ())))

    assert [400] == reply.statuses


async def test_a_slash_that_is_encoded_ends_no_segment(daemon: Daemon) -> None:
    for path in ("/v1/sessions/a%2Fevents", "/v1%2Fsessions", "/v1/sessions%2fa/events"):
        reply = await throw(daemon.port, over_http1(("GET", path, "localhost", ())))

        assert reply.statuses in ([400], [404]), path


@pytest.mark.slow
async def test_bad_tokens_are_counted_and_a_few_of_them_recorded(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    daemon = start_daemon(
        auth=jwt_mode(tmp_path_factory.mktemp("keys")), limits={"max_failures_per_minute": 10_000}
    )
    began = trio.current_time()
    async with connected(daemon) as client:
        for _ in range(500):
            await client.ask("GET", "/v1/sessions", {"Authorization": "Bearer x"})
            assert 401 == (await client.answer()).status
            client.next_request()
    seconds = trio.current_time() - began
    daemon.stop()

    written = daemon.log().count("token refused  ")
    left_out = re.findall(r"left out .*count=(\d+) record='?token refused", daemon.log())
    assert written <= RECORDS_PER_S * (seconds + 2)
    assert 500 == written + sum(map(int, left_out))
