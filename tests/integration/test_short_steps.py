"""No request takes long in one step, whatever it holds: everybody else waits for each step.

Each case is the worst that was found of its kind, as large as the limits allow: but for those of
tiny pieces, of which a quarter is a hundred times too many for one step.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.fuzz import throw
from tests.support.inprocess import serving
from tests.support.steps import LONGEST_STEP_UNITS, unit_s, watched
from tests.support.talk import target

pytestmark = pytest.mark.slow

TRIES = 20
"""A long step is one each time. Something else may have come in between."""

SIZE = 1024 * 1024 - 1000
QUARTER = SIZE // 4
EVENTS = target("s")
HEAD_BYTES = 15_000


def _ask(path: str, fields: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode()


def _post(kind: str, body: bytes) -> bytes:
    fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() + body


def _full(
    kind: str, unit: bytes, *, before: bytes = b"", after: bytes = b"", size: int = SIZE
) -> Callable[[], bytes]:
    """Return what makes a request that is full of something."""
    return lambda: _post(kind, before + unit * ((size - len(before + after)) // len(unit)) + after)


def _chunks(kind: str, chunk: bytes) -> Callable[[], bytes]:
    head = (
        f"POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return lambda: head.encode() + chunk * 50_000 + b"0\r\n\r\n"


def _array(item: bytes, count: int) -> Callable[[], bytes]:
    return lambda: _post(JSON, b"[" + b",".join([item] * count) + b"]")


def _own(number: int) -> bytes:
    return b'{"data": 1, "idempotency_key": "%d", "ttl": %d}' % (number, number % 50 + 1)


SSE, NDJSON, JSON, TEXT = "text/event-stream", "application/x-ndjson", "application/json", "text/a"

CASES: dict[str, Callable[[], bytes]] = {
    "a relay of empty events": _full(SSE, b"data\n\n", size=QUARTER),
    "a relay of line breaks": _full(SSE, b"\n", size=QUARTER),
    "a relay of carriage returns": _full(SSE, b"\r", size=QUARTER),
    "a relay of comments": _full(SSE, b":\n", size=QUARTER),
    "a relay of unknown fields": _full(SSE, b"d\n", size=QUARTER),
    "a relay of one event of many lines": lambda: _post(SSE, b"data\n" * 130_000 + b"\n"),
    "a relay that is not UTF-8": _full(SSE, b"\xff", before=b"data:", after=b"\n\n"),
    "lines without an event": _full(NDJSON, b"\n", size=QUARTER),
    "lines of tiny events": _full(NDJSON, b'{"data":1}\n', size=QUARTER),
    "a line of many members": _full(NDJSON, b',"m":1', before=b'{"data":1', after=b"}\n"),
    "lines with keys and ttls": lambda: _post(NDJSON, b"\n".join(map(_own, range(15_000)))),
    "an array of tiny events": _array(b'{"data":1}', 10_000),
    "an array of duplicates": _array(b'{"data":1,"idempotency_key":"k"}', 10_000),
    "an array with keys and ttls": lambda: _post(
        JSON, b"[" + b",".join(map(_own, range(10_000))) + b"]"
    ),
    "an array of numbers": _full(JSON, b"1,", before=b"[", after=b"1]"),
    "an array of empty objects": _full(JSON, b"{},", before=b"[", after=b"{}]"),
    "an array of halves of characters": _array(rb'{"data":["\ud83d"]}', 10_000),
    "a text of halves of characters": _full(JSON, rb"\ud83d", before=b'{"data":"', after=b'"}'),
    "an object of many members": _full(JSON, b',"m":1', before=b'{"data":1', after=b"}"),
    "a text of line breaks": lambda: _post(TEXT, b"\n" * 149_000),
    "a text that is too many lines": _full(TEXT, b"\n"),
    "a page of it": lambda: _ask(EVENTS, "Accept: application/json\r\n"),
    "tiny chunks": _chunks(TEXT, b"1\r\nx\r\n"),
    "tiny chunks of lines": _chunks(NDJSON, b"1\r\n\n\r\n"),
    "tiny chunks of a relay": _chunks(SSE, b"1\r\nd\r\n"),
    "a content type of parameters": lambda: _ask(EVENTS, f"Content-Type: a/b{';a=b' * 3700}\r\n"),
    "a content type of commas": lambda: _ask(EVENTS, f"Content-Type: {'a/b,' * 3700}a/b\r\n"),
    "a content type of spaces": lambda: _ask(EVENTS, f"Content-Type: a/b{'; ' * 7400}\r\n"),
    "preferences": lambda: _ask(EVENTS, f"Accept: {'a/b;q=0.1,' * 1400}a/b\r\n"),
    "quotes that nothing ends": lambda: _ask(EVENTS, "Accept: " + 'a/b;c="' * 2000 + "\r\n"),
    "cookies": lambda: _ask(EVENTS, f"Cookie: {';' * HEAD_BYTES}\r\n"),
    "credentials": lambda: _ask(EVENTS, f"Authorization: {',' * HEAD_BYTES}\r\n"),
    "an id of digits": lambda: _ask(EVENTS, f"Last-Event-ID: {'1' * HEAD_BYTES}\r\n"),
    "a query": lambda: _ask(target("s", "&".join(["a=b"] * 3700)), ""),
}


@pytest.mark.parametrize("case", CASES)
async def test_no_step_is_long(case: str) -> None:
    request = CASES[case]()
    first = _post(TEXT, b"\n" * 149_000) if case == "a page of it" else _post(TEXT, b"warm")
    units: list[float] = []
    async with serving() as daemon:
        await throw(daemon.port, first, answers=1)
        for _ in range(TRIES):
            async with watched() as watch:
                reply = await throw(daemon.port, request, answers=1, quiet=0.01)
            assert len(reply.statuses) == 1
            units.append(watch.longest_step / unit_s())
            if units[-1] <= LONGEST_STEP_UNITS:
                return
    pytest.fail(f"the longest step was {units} units of work")
