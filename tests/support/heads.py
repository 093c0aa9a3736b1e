"""Heads of requests that no client sends by mistake, as HTTP/1.1 and HTTP/2 write them."""

from __future__ import annotations

import random

from hpack import Encoder

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


def odd_heads() -> list[Head]:
    """Return method, target, host and other fields of requests: one oddity each, then several."""
    odd: list[Head] = [
        ("GET", "/v1/sessions/a/events?from=now&limit=1", host, ()) for host in HOSTS
    ]
    odd += [(method, target, "localhost", ()) for target in TARGETS for method in METHODS[:3]]
    odd += [("POST", "/v1/sessions/a/events", "localhost", (field,)) for field in FIELDS]
    chance = random.Random(11)  # noqa: S311 (not a secret)
    for _ in range(200):
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
