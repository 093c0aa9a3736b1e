"""The publisher: what is not acknowledged is sent again, in order, and is counted once.

The server answers by script, and the clock moves only where the publisher waits.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from broadcasterd.client import Client, PublishFailed, Receipt, RequestFailed, lines, publishing
from broadcasterd.client.connection import MIN_WAIT
from broadcasterd.client.lines import lines_as_they_come
from tests.unit.test_client import Script, answer

CUT = b""
"""An answer that never comes: the connection is closed."""


def receipt(accepted: int, *, first: int = 1, duplicates: int = 0) -> bytes:
    last = first + accepted + duplicates - 1
    told = {
        "session": "s",
        "accepted": accepted,
        "first_id": f"a-{first}",
        "last_id": f"a-{last}",
        "subscribers": 2,
        **({"duplicates": duplicates} if duplicates else {}),
    }
    return answer(200, json.dumps(told), kind="application/json")


def refusal(status: int, *, extra: str = "", **members: object) -> bytes:
    return answer(status, json.dumps({"detail": "so it is", **members}), extra=extra)


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds


class Scripted:
    """A publisher to a script, and what came of it."""

    def __init__(self, script: Script, retry_for: float) -> None:
        self.clock = Clock()
        self.told: list[str] = []
        self.daemon = Client(
            script.base,
            retry_for=retry_for,
            notify=self.told.append,
            sleep=self.clock.sleep,
            now=self.clock.now,
        )
        self.publisher = self.daemon.publisher("s")
        self._script = script

    def bodies(self) -> list[list[dict[str, object]]]:
        """Return the events of each request."""
        bodies = [request.partition("\r\n\r\n")[2] for request in self._script.requests]
        return [[json.loads(line) for line in body.splitlines()] for body in bodies]

    def data(self) -> list[list[object]]:
        """Return the data of the events of each request."""
        return [[event["data"] for event in body] for body in self.bodies()]


@contextmanager
def scripted(*answers: bytes, retry_for: float = 60.0) -> Iterator[Scripted]:
    script = Script(*answers)
    one = Scripted(script, retry_for)
    try:
        with one.daemon:
            yield one
    finally:
        script.finish()


class Pieces:
    """A source whose data comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = iter(pieces)

    def read1(self, size: int, /) -> bytes:
        piece = next(self._pieces, b"")
        assert len(piece) <= size
        return piece


def events(count: int) -> list[dict[str, object]]:
    return [{"data": number} for number in range(count)]


# --- what is sent again ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [CUT, answer(200, "<html>", kind="text/html")[:20], *map(refusal, [408, 429, 500, 502, 503])],
    ids=["cut", "cut in the head", "408", "429", "500", "502", "503"],
)
def test_what_was_not_acknowledged_is_sent_again_under_the_same_key(failure: bytes) -> None:
    with scripted(failure, receipt(2)) as one:
        assert one.publisher.publish(*events(2)).accepted == 2
        first, second = one.bodies()

    assert first == second
    assert [0, 1] == [event["data"] for event in first]
    assert len({event["idempotency_key"] for event in first}) == 2
    assert all(
        f"next attempt in {wait:.1f} s" in told
        for wait, told in zip(one.clock.waits, one.told, strict=True)
    )


def test_what_a_refusal_says_was_accepted_is_not_sent_again() -> None:
    some = refusal(503, session="s", accepted=2, first_id="a-1", last_id="a-2")
    with scripted(some, receipt(1, first=3)) as one:
        total = one.publisher.publish(*events(3))

        assert [[0, 1, 2], [2]] == one.data()
    assert total == Receipt(session="s", accepted=3, first_id="a-1", last_id="a-3", subscribers=2)


def test_what_the_daemon_had_of_an_attempt_counts_as_accepted() -> None:
    with scripted(CUT, receipt(1, duplicates=2), receipt(0, duplicates=1)) as one:
        one.publisher.publish(*events(3))
        total = one.publisher.publish({"data": "mine", "idempotency_key": "known"})

    assert (3, 1) == (total.accepted, total.duplicates)


def test_every_publisher_has_keys_of_its_own_and_each_event_another_one() -> None:
    keys = []
    for _ in range(2):
        with scripted(receipt(2), receipt(1)) as one:
            one.publisher.publish(*events(2))
            one.publisher.publish(*events(1))
            keys += [event["idempotency_key"] for body in one.bodies() for event in body]

    assert len(set(keys)) == 6


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b'{"data": 1}', r'\{"data": 1,"idempotency_key":"[0-9a-f]{16}-1"\}'),
        (b' {"data": 1.50e3} \r', r' \{"data": 1.50e3,"idempotency_key":"[0-9a-f]{16}-1"\}'),
        (b'{"data": %b}' % (b"7" * 5000), r'\{"data": 7{5000},"idempotency_key":"[^"]+"\}'),
        (b"{}", r'\{"idempotency_key":"[^"]+"\}'),
        (b'{"data":1,"idempotency_key":null}', r'.*null,"idempotency_key":"[^"]+"\}'),
        (b'{"data":1,"idempotency_key":"mine"}', r'\{"data":1,"idempotency_key":"mine"\}'),
        (b'{"data":"idempotency_key"}', r'\{"data":"idempotency_key","idempotency_key":"[^"]+"\}'),
        (b"[1]", r"\[1\]"),
        (b"no JSON", "no JSON"),
        (b'{"data": "cut', r'\{"data": "cut'),
        (b"[" * 100_000, r"\[{100000}"),
    ],
    ids=lambda text: str(text[:30]),
)
def test_a_line_of_json_keeps_its_text_and_its_own_key(line: bytes, sent: str) -> None:
    with scripted(receipt(1)) as one:
        one.publisher.publish_lines(io.BytesIO(line), ndjson=True)
        [request] = one._script.requests

    assert re.fullmatch(sent, request.partition("\r\n\r\n")[2].removesuffix("\n"))


# --- how long --------------------------------------------------------------------------------


def test_waits_grow_and_end_when_the_time_is_over() -> None:
    with scripted(*[CUT] * 30, retry_for=60) as one, pytest.raises(PublishFailed) as failed:
        one.publisher.publish(*events(1))
    *waits, last = one.clock.waits

    assert all(MIN_WAIT <= wait <= publishing.MAX_PAUSE for wait in waits)
    assert waits[0] <= 1.5 * publishing.FIRST_WAIT
    assert waits[-1] > 20 * waits[0]
    assert sum(waits) + last == pytest.approx(60)
    assert "given up after 60 s" in str(failed.value)
    assert len(one._script.requests) == len(one.clock.waits) + 1


def test_an_acknowledgement_begins_the_time_anew() -> None:
    some = refusal(503, session="s", accepted=1, extra="Retry-After: 40\r\n")
    with scripted(some, some, some, receipt(1), retry_for=60) as one:
        assert one.publisher.publish(*events(4)).accepted == 4

    assert sum(one.clock.waits) >= 120


@pytest.mark.parametrize(("asked", "retry_for"), [(7, 60), (3000, 4000)])
def test_the_daemon_says_when_to_come_back(asked: int, retry_for: float) -> None:
    answers = (refusal(503, extra=f"Retry-After: {asked}\r\n"), receipt(1))
    with scripted(*answers, retry_for=retry_for) as one:
        one.publisher.publish(*events(1))

    assert asked <= one.clock.waits[0] <= asked * publishing.JITTER


def test_a_daemon_that_asks_for_more_time_than_there_is_is_given_up_at_once() -> None:
    answers = (refusal(503, extra="Retry-After: 61\r\n"), receipt(1))
    with scripted(*answers, retry_for=60) as one, pytest.raises(PublishFailed, match="so it is"):
        one.publisher.publish(*events(1))

    assert [] == one.clock.waits


def test_who_retries_for_no_time_asks_once() -> None:
    with scripted(CUT, receipt(1), retry_for=0) as one, pytest.raises(PublishFailed) as failed:
        one.publisher.publish(*events(1))

    assert [] == one.clock.waits
    assert "given up" not in str(failed.value)


# --- what is final ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_refusal_is_final(status: int) -> None:
    with scripted(refusal(status), receipt(1)) as one, pytest.raises(PublishFailed) as failed:
        one.publisher.publish(*events(1))

    assert str(failed.value).startswith(f"{status} ")
    assert str(failed.value).endswith("so it is")
    assert 1 == len(one.bodies())


def test_a_line_that_is_refused_is_named_as_its_source_counts() -> None:
    refused = refusal(400, session="s", accepted=1, line=2)
    source = Pieces(b'{"data": 1}\n\n{"data": 2}\n', b'\n{"data": 3}\n \nno JSON\n{"data": 4}\n')
    with (
        scripted(receipt(2), refused) as one,
        pytest.raises(PublishFailed, match="so it is; line 7, 3 accepted before it") as failed,
    ):
        one.publisher.publish_lines(source, ndjson=True)

    assert failed.value.line == 7
    assert failed.value.receipt.accepted == 3


def test_who_is_given_up_names_the_first_line_without_acknowledgement() -> None:
    with (
        scripted(receipt(2), CUT, retry_for=0) as one,
        pytest.raises(PublishFailed, match="; line 3, 2 accepted before it"),
    ):
        one.publisher.publish_lines(Pieces(b"a\nb\n", b"c\nd\n"))


def test_an_answer_that_is_no_receipt_is_refused() -> None:
    page = answer(200, "<html>", kind="text/html")
    with scripted(page) as one, pytest.raises(PublishFailed, match=r"^200 OK from "):
        one.publisher.publish(*events(1))


# --- what a request has ----------------------------------------------------------------------


def test_lines_that_are_there_share_a_request_and_the_next_ones_have_another() -> None:
    with scripted(receipt(3), receipt(1, first=4)) as one:
        total = one.publisher.publish_lines(Pieces(b"1\n2\r\n\n3", b"", b"never"))

        assert [["1", "2", ""], ["3"]] == one.data()
    assert total == Receipt(session="s", accepted=4, first_id="a-1", last_id="a-4", subscribers=2)


def test_no_request_has_more_than_a_session_retains() -> None:
    with scripted(receipt(100), receipt(100, first=101), receipt(50, first=201)) as one:
        one.publisher.publish(*events(250))

        assert [100, 100, 50] == [len(body) for body in one.bodies()]
        assert list(range(250)) == [data for body in one.data() for data in body]


def test_large_events_have_fewer_to_a_request_and_one_at_least() -> None:
    large = [{"data": "x" * size} for size in (100_000, 100_000, 100_000, 400_000, 10)]
    with scripted(*[receipt(1)] * 4) as one:
        one.publisher.publish(*large)

        assert [2, 1, 1, 1] == [len(body) for body in one.bodies()]


def test_what_is_taken_too_slowly_for_an_answer_is_sent_in_smaller_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def send(_: object, request: httpx.Request, **__: object) -> httpx.Response:
        asked.append(request.content.count(b"\n"))
        if asked[-1] > 20:
            raise httpx.ReadTimeout("")
        told = {"session": "s", "accepted": asked[-1]}
        return httpx.Response(200, json=told, request=request)

    monkeypatch.setattr(httpx.Client, "send", send)
    with scripted(CUT) as one:
        assert one.publisher.publish(*events(90)).accepted == 90

    assert [90, 45, 22, *[11] * 8, 2] == asked


def test_events_that_are_named_have_their_name() -> None:
    with scripted(receipt(1)) as one:
        one.publisher.publish_lines(io.BytesIO(b"hej"), event="greeting")

        [[event]] = one.bodies()
    assert ("hej", "greeting") == (event["data"], event["event"])


def test_without_any_line_the_daemon_is_asked_all_the_same() -> None:
    with scripted(refusal(401)) as one, pytest.raises(PublishFailed, match=r"^401 "):
        one.publisher.publish_lines(io.BytesIO(b""))


def test_a_receipt_is_as_the_daemon_writes_it() -> None:
    short = Receipt(session="s", accepted=1, first_id="a-1", last_id="a-1", subscribers=3)

    assert '{"session":"s","accepted":0,"first_id":null,"last_id":null,"subscribers":0}' == (
        Receipt(session="s").as_json()
    )
    assert json.loads(short.as_json())["subscribers"] == 3
    assert Receipt(duplicates=2).as_json().endswith(',"duplicates":2}')


def test_lines_come_as_they_are_cut() -> None:
    pieces = Pieces(b"a", b"b\n", b"\n\nc\nd", b"\xff", b"\n")

    assert [[b"ab"], [b"", b"", b"c"], [b"d\xff"]] == list(lines_as_they_come(pieces))


def test_a_line_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    source = Pieces(b"good\n", *[b"x"] * 101)
    come = lines_as_they_come(source)

    assert [b"good"] == next(come)
    with pytest.raises(RequestFailed, match="100 bytes"):
        next(come)
