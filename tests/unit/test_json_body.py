"""JSON as people send it: with a byte order mark, cut inside an emoji, of another shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.api.formats import NdjsonEvents
from broadcasterd.api.json_body import BOM
from broadcasterd.api.posted import parse_json
from broadcasterd.core.event import Event
from broadcasterd.errors import Problem

LONE = rb"\ud83d"


def by_line(body: bytes) -> Iterable[Event]:
    stream = NdjsonEvents(10_000)
    return [*stream.feed(body + b"\n"), *stream.finish()]


READERS: dict[str, Callable[[bytes], Iterable[Event]]] = {"json": parse_json, "ndjson": by_line}

every_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def refusal(body: bytes, read: Callable[[bytes], Iterable[Event]] = parse_json) -> Problem:
    with pytest.raises(Problem) as refused:
        list(read(body))
    return refused.value


# --- what is taken ---------------------------------------------------------------------------


@every_reader
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (rb'{"text": "\ud83d"}', r'{"text":"\ud83d"}'),
        (rb'["\uD83D", "\udc00", "\ud83d\ud83d"]', r'["\uD83D","\udc00","\ud83d\ud83d"]'),
        (rb'{"\ud83d": 1.50e+07}', r'{"\ud83d":1.50e+07}'),
        (rb'["\ud83d\ude00", "\ud83d\u00e9"]', r'["\ud83d\ude00","\ud83d\u00e9"]'),
        (rb'["\\ud83d", "\\\ud83d", "\\\\ud83d"]', r'["\\ud83d","\\\ud83d","\\\\ud83d"]'),
        ('["\N{GRINNING FACE}é", "\\ud83d"]'.encode(), '["\N{GRINNING FACE}é","\\ud83d"]'),
        (rb'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (rb'"\\ud83d"', r"\ud83d"),
    ],
)
def test_an_object_passes_as_it_was_written(
    read: Callable[[bytes], Iterable[Event]], data: bytes, expected: str
) -> None:
    assert [event.data for event in read(b'{"data": %b}' % data)] == [expected]


@every_reader
def test_a_byte_order_mark_is_skipped(read: Callable[[bytes], Iterable[Event]]) -> None:
    assert [event.data for event in read(BOM + b'{"data": 1}')] == ["1"]


SURROGATES = st.characters(categories=["Cs"])
ANY_TEXT = st.text(st.characters() | SURROGATES)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
)


@given(value=ANY_JSON, ascii_only=st.sampled_from([True, False]))
def test_whatever_json_is_sent_arrives_or_is_refused_for_its_halves(
    value: object,
    ascii_only: bool,  # noqa: FBT001 (hypothesis names it)
) -> None:
    try:
        body = json.dumps({"data": value}, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return  # no UTF-8: nobody can send that
    told, is_refused = data_or_refusal(body)
    if is_refused:
        assert "surrogate" in told
        assert isinstance(value, str) or any("\ue800" <= c <= "\uefff" for c in texts_of(value))
    else:
        assert (told if isinstance(value, str) else json.loads(told)) == value


def data_or_refusal(body: bytes) -> tuple[str, bool]:
    try:
        [event] = parse_json(body)
    except Problem as problem:
        return problem.detail, True
    return event.data, False


def texts_of(value: object) -> str:
    """Return all characters of a value, those of its strings among them."""
    return json.dumps(value, ensure_ascii=False)


# --- what is refused, and in which words -----------------------------------------------------


@every_reader
@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (rb'{"data": "\ud83d"}', 422, "data: a string cannot be sent with half of a surrogate"),
        (rb'{"data": "\udc00 x"}', 422, "data: a string cannot be sent with half of a surrogate"),
        (rb'{"data": 1, "event": "\ud83d"}', 422, "event: a string cannot be sent with half"),
        (rb'{"data": 1, "idempotency_key": "\ud83d"}', 422, "idempotency_key: a string cannot"),
        (rb'{"data": "\ud83d", "event": "\ue83d"}', 422, "half of a surrogate pair, "),
        (rb'{"data": 1, "\ud83d": 1}', 422, "an event has no such member"),
        (b'{"data": 1, "datum": 2}', 422, "'datum': an event has no such member"),
        (b"{}", 422, "data: an event needs it"),
        (b"5", 422, "an event is an object"),
        (b"null", 422, "an event is an object"),
        (b'{"data": 1, "event": 5}', 422, "event: expected a string"),
        (b'{"data": 1, "idempotency_key": []}', 422, "idempotency_key: expected a string"),
        (b'{"data": 1, "retry": 1.5}', 422, "retry: expected a whole number of milliseconds"),
        (b'{"data": 1, "ttl": "1"}', 422, "ttl: expected a number of seconds"),
        (b'{"data": 1, "ttl": 1e999}', 422, "ttl: expected a number of seconds"),
        (b'{"data": NaN}', 400, "this is not JSON: byte 9 cannot be there"),
        (b"{'data': 1}", 400, "this is not JSON: byte 1 cannot be there"),
        (b'{"data": 1,}', 400, "this is not JSON: byte 11 cannot be there"),
        (b'{"data": "a', 400, "this is not JSON: it ends too early"),
        (b'{"x": 1, "data": ', 400, "this is not JSON: it ends too early"),
        (rb'{"data": "\ud83d", ', 400, "this is not JSON: it ends too early"),
        (b'{"data": ' + b"[" * 9000, 400, "this is not JSON that can be read: it is nested too"),
    ],
)
def test_a_refusal_says_what_was_wrong(
    read: Callable[[bytes], Iterable[Event]], body: bytes, status: int, detail: str
) -> None:
    problem = refusal(body, read)

    assert problem.detail.startswith(detail) or detail in problem.detail
    assert problem.status == status
    assert "`" not in problem.detail  # the decoder's words have them


@pytest.mark.parametrize(
    "item",
    [
        b"5",
        b"[]",
        b"{}",
        b'{"data": 1, "event": 5}',
        b'{"data": 1, "x": 5}',
        rb'{"data": "\ud83d"}',
        rb'{"data": 1, "event": "\ud83d"}',
        rb'{"data": 1, "event": "\n"}',
        rb'{"data": ["\ud83d"], "retry": -1}',
    ],
)
@pytest.mark.parametrize("index", [0, 2])
def test_of_an_array_the_index_is_told(item: bytes, index: int) -> None:
    items = [rb'{"data": {"a": "\ud83d"}}'] * 4
    items[index] = item

    assert refusal(b"[%b]" % b", ".join(items)).extra == {"index": index}
