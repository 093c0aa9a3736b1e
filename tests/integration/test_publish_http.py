"""Publishing over HTTP: every kind of body, and every way in which one can be wrong."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from collections.abc import Iterator, Mapping

import h11
import httpx
import pytest
import trio

from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.http1 import Answer, Http1
from tests.support.sse import Event
from tests.support.talk import (
    CHUNKED,
    JSON,
    NDJSON,
    SOON,
    STREAM,
    TEXT,
    ask,
    connected,
    eventually,
    following,
    target,
)

MAX_BODY = 100_000
MAX_HISTORY = 50_000

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[Daemon]:
    """Start one daemon for all tests of this file; each has a session of its own."""
    daemon = Daemon.start(
        tmp_path_factory.mktemp("daemon"),
        launch,
        server={"max_body_bytes": MAX_BODY},
        sessions={"max_history_bytes": MAX_HISTORY},
    )
    yield daemon
    daemon.stop_cleanly()


@pytest.fixture
def name() -> str:
    """Return the name of a session that no other test uses."""
    return f"s{next(_numbers)}"


async def post(
    daemon: Daemon, name: str, headers: Mapping[str, str], body: bytes, query: str = ""
) -> Answer:
    return await ask(daemon, "POST", target(name, query), headers, body)


async def page(daemon: Daemon, name: str) -> list[dict[str, str]]:
    """Return all that is retained."""
    found = await ask(daemon, "GET", target(name, "limit=1000"), {"Accept": "application/json"})
    events: list[dict[str, str]] = json.loads(found.body)["events"]
    return events


async def retained(daemon: Daemon, name: str) -> list[str]:
    """Return the data of all that is retained."""
    return [event["data"] for event in await page(daemon, name)]


def problem(response: Answer, status: int) -> dict[str, object]:
    """Return the problem document of a refusal, whose form is checked."""
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    assert document["type"] == "about:blank"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


# --- one request, one body -------------------------------------------------------------------


async def test_an_event_is_answered_with_its_id(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream:
        response = await post(daemon, name, JSON, b'{"data": "hello", "event": "greeting"}')
        event = await stream.event()
    document = response.json()

    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert document == {
        "session": name,
        "accepted": 1,
        "first_id": document["first_id"],
        "last_id": document["first_id"],
        "subscribers": 1,
    }
    assert event == Event(str(document["first_id"]), "hello", "greeting")


async def test_an_array_is_published_in_order(daemon: Daemon, name: str) -> None:
    body = json.dumps([{"data": number} for number in range(100)]).encode()
    document = (await post(daemon, name, JSON, body)).json()
    ids = [event["id"] for event in await page(daemon, name)]

    assert document["accepted"] == 100
    assert [document["first_id"], document["last_id"]] == [ids[0], ids[-1]]
    assert await retained(daemon, name) == [str(number) for number in range(100)]


async def test_an_empty_array_is_nothing(daemon: Daemon, name: str) -> None:
    response = await post(daemon, name, JSON, b" [] ")

    assert response.status == 200
    assert response.json() == {
        "session": name,
        "accepted": 0,
        "first_id": None,
        "last_id": None,
        "subscribers": 0,
    }


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (JSON, b'{"data": 1}', 200),
        (JSON, b'[{"data": 1}, {"data": 2}]', 200),
        (JSON, b"[]", 200),
        (TEXT, b"text", 200),
        (NDJSON, b'{"data": 1}\n', 200),
        (NDJSON, b'{"data": 1}\nno JSON\n', 400),
        (STREAM, b"data: 1\n\n", 200),
        (STREAM, b"data: 1\n\nevent: %b\ndata: 2\n\n" % (b"e" * 300), 422),
    ],
)
async def test_every_answer_to_a_publisher_says_how_many_listen(
    daemon: Daemon, name: str, kind: Mapping[str, str], body: bytes, status: int
) -> None:
    async def listening() -> object:
        answer = await post(daemon, name, kind, body)
        assert answer.status == status, answer.body
        return answer.json()["subscribers"]

    async def nobody_listens() -> bool:
        return await listening() == 0

    assert await listening() == 0
    async with following(daemon, name):
        assert await listening() == 1
        async with following(daemon, name):
            assert await listening() == 2
    await eventually(nobody_listens)


async def test_a_text_is_the_data(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream:
        for kind, query, body in [
            ("text/plain", "", "grüße\n"),
            ("text/markdown; charset=UTF-8", "event=note", "# A\n\nB"),
            ("text/html", "event=first&event=&event=la+st", ""),
        ]:
            response = await post(daemon, name, {"Content-Type": kind}, body.encode() or b"", query)
            assert response.status == 200, response.body
        events = [await stream.event() for _ in range(3)]

    assert [(event.type, event.data) for event in events if event] == [
        ("message", "grüße\n"),
        ("note", "# A\n\nB"),
        ("la st", ""),
    ]


@pytest.mark.parametrize(("asked", "told"), [(1500, 1500), (0, 500)])
async def test_retry_reaches_the_client_within_bounds(
    daemon: Daemon, name: str, asked: int, told: int
) -> None:
    async with following(daemon, name) as stream:
        await post(daemon, name, JSON, b'{"data": "a", "retry": %d}' % asked)
        await stream.event()

    assert [line for line in stream.heard[2:] if line.startswith("retry")] == [f"retry: {told}"]


async def test_an_event_with_a_ttl_is_not_replayed_after_it(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream:
        await post(daemon, name, JSON, b'[{"data": "short", "ttl": 0.05}, {"data": "long"}]')

        assert await stream.data(2) == ["short", "long"]

    async def only_the_other_is_left() -> bool:
        return await retained(daemon, name) == ["long"]

    await eventually(only_the_other_is_left)
    async with following(daemon, name) as late:
        assert await late.data(1) == ["long"]


async def test_who_comes_after_the_last_event_expired_gets_the_next(
    daemon: Daemon, name: str
) -> None:
    await post(daemon, name, JSON, b'{"data": "short", "ttl": 0.01}')

    async def nothing_is_left() -> bool:
        return not await retained(daemon, name)

    await eventually(nothing_is_left)
    async with following(daemon, name) as stream:
        await post(daemon, name, JSON, b'{"data": "next"}')

        assert await stream.data(1) == ["next"]


async def test_the_same_key_again_is_not_broadcast_twice(daemon: Daemon, name: str) -> None:
    body = b'{"data": "once", "idempotency_key": "k"}'
    async with following(daemon, name) as stream:
        first = (await post(daemon, name, JSON, body)).json()
        again = (await post(daemon, name, JSON, body)).json()
        await post(daemon, name, JSON, b'{"data": "next", "idempotency_key": "other"}')

        assert await stream.data(2) == ["once", "next"]

    assert "duplicates" not in first
    assert again == {**first, "accepted": 0, "duplicates": 1}


async def test_keys_count_within_a_session_only(daemon: Daemon, name: str) -> None:
    body = b'{"data": "a", "idempotency_key": "k"}'
    await post(daemon, name, JSON, body)

    assert (await post(daemon, f"{name}.other", JSON, body)).json()["accepted"] == 1


async def test_a_connection_takes_one_request_after_the_other(daemon: Daemon, name: str) -> None:
    async with connected(daemon) as client:
        for number in range(3):
            await client.ask("POST", target(name), JSON, b'{"data": %d}' % number)
            assert (await client.answer()).status == 200
            client.next_request()

    assert await retained(daemon, name) == ["0", "1", "2"]


@pytest.mark.parametrize("session", ["a", "x" * 128, "A-Z.a_z~0:9", "...", "-"])
async def test_these_are_names(session: str, daemon: Daemon) -> None:
    assert (await post(daemon, session, TEXT, b"a")).status == 200


# --- bodies that are streams -----------------------------------------------------------------


async def test_a_line_is_broadcast_before_the_request_ends(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream, connected(daemon) as client:
        await client.begin("POST", target(name), {**NDJSON, **CHUNKED})
        for number in range(20):
            await client.go_on(b'{"data": "%d"}\n' % number)

            assert await stream.data(1) == [str(number)]

        await client.go_on(b'{"data": "half')
        await client.go_on(b' a line"}\n{"data": "last, without a line break"}')

        assert await stream.data(1) == ["half a line"]

        await client._send(h11.EndOfMessage())

        assert await stream.data(1) == ["last, without a line break"]

        document = (await client.answer()).json()

    assert document["accepted"] == 22
    assert document["last_id"] == stream.cursor


async def test_lines_may_be_cut_anywhere_and_empty_lines_mean_nothing(
    daemon: Daemon, name: str
) -> None:
    body = '\n\r\n{"data": "é"}\r\n  \n{"data":"b","event":"x"}\n'.encode()
    async with connected(daemon) as client:
        await client.begin("POST", target(name), {**NDJSON, **CHUNKED})
        for index in range(len(body)):
            await client.go_on(body[index : index + 1])
        await client._send(h11.EndOfMessage())
        document = (await client.answer()).json()

    assert document["accepted"] == 2
    assert await retained(daemon, name) == ["é", "b"]


async def test_a_stream_may_be_longer_than_the_limit_of_a_body(daemon: Daemon, name: str) -> None:
    line = json.dumps({"data": "x" * 10_000}).encode() + b"\n"
    async with connected(daemon) as client:
        await client.begin("POST", target(name), {**NDJSON, **CHUNKED})
        for _ in range(5 * MAX_BODY // len(line)):
            await client.go_on(line)
        await client._send(h11.EndOfMessage())
        response = await client.answer()

    assert response.status == 200
    assert response.json()["accepted"] == 5 * MAX_BODY // len(line)


async def test_an_empty_stream_is_nothing(daemon: Daemon, name: str) -> None:
    response = await post(daemon, name, {**NDJSON, "Content-Length": "0"}, b"")

    assert response.status == 200
    assert response.json()["accepted"] == 0


async def test_another_event_stream_is_relayed_as_it_arrives(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream, connected(daemon) as client:
        await client.begin("POST", target(name), {**STREAM, **CHUNKED})
        await client.go_on(b"\xef\xbb\xbfretry: 1234\n: a comment\n\nid: theirs\nevent: tok")
        await client.go_on(b"en\ndata: a\ndata:  b\r\n\r")
        first = await stream.event()
        await client.go_on(b"\ndata\n\nid: none of its data\n\ndata: never ended")
        second = await stream.event()
        await client._send(h11.EndOfMessage())
        document = (await client.answer()).json()

    assert first == Event(str(document["first_id"]), "a\n b", "token")
    assert second == Event(str(document["last_id"]), "")
    assert (document["accepted"], document["incomplete"]) == (2, True)


@pytest.mark.parametrize(
    ("query", "body", "retained_data", "remarks"),
    [
        ("", b"data: a\n\n", ["a"], {}),
        ("", b"data: a\n\ndata: b", ["a"], {"incomplete": True}),
        ("final=discard", b"data: a\n\ndata: b", ["a"], {"incomplete": True}),
        ("final=accept", b"data: a\n\ndata: b", ["a", "b"], {}),
        ("final=accept", b"data: a\n\n: idle", ["a"], {}),
        ("", b"data: a\xff\xe2\x82\n\n", ["a\ufffd\ufffd"], {"replaced": 2}),
    ],
)
async def test_a_relay_is_told_what_was_made_of_its_stream(
    *,
    daemon: Daemon,
    name: str,
    query: str,
    body: bytes,
    retained_data: list[str],
    remarks: dict[str, object],
) -> None:
    document = (await post(daemon, name, STREAM, body, query)).json()

    assert await retained(daemon, name) == retained_data
    assert document["accepted"] == len(retained_data)
    assert {key: document[key] for key in ("incomplete", "replaced") if key in document} == remarks


async def test_another_word_for_the_final_event_is_refused(daemon: Daemon, name: str) -> None:
    problem(await post(daemon, name, STREAM, b"data: 1\n\n", "final=x"), 400)


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_what_comes_before_a_bad_chunk_stands_however_it_was_cut(
    *, daemon: Daemon, name: str, in_pieces: bool
) -> None:
    head = (
        f"POST {target(name)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
    )
    body = b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"data": 1}\n\r\nno chunk\r\n'
    sent = head.encode() + body

    async def it_is_there() -> bool:
        return await retained(daemon, name) == ["1"]

    async with connected(daemon) as client:
        client.has_asked()
        if in_pieces:
            begun, sent = sent[:-12], sent[-12:]
            await client.stream.send_all(begun)
            await eventually(it_is_there)
        await client.stream.send_all(sent)
        answer = await client.answer()

    assert problem(answer, 400)["accepted"] == 1
    assert await retained(daemon, name) == ["1"]


async def test_a_client_that_dies_loses_nothing_but_its_last_line(
    daemon: Daemon, name: str
) -> None:
    async with following(daemon, name) as stream, connected(daemon) as client:
        await client.begin("POST", target(name), {**NDJSON, **CHUNKED})
        await client.go_on(b'{"data": "a"}\n{"data": "b"}\n{"data": "c"}')

        assert await stream.data(2) == ["a", "b"]

        assert isinstance(client.stream, trio.SocketStream)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.stream.aclose()
        await post(daemon, name, TEXT, b"after")

        assert await stream.data(1) == ["after"]

    assert await retained(daemon, name) == ["a", "b", "after"]


@pytest.mark.parametrize("kind", [JSON, TEXT], ids=["JSON", "text"])
async def test_of_a_body_that_was_cut_short_nothing_is_published(
    kind: Mapping[str, str], daemon: Daemon, name: str
) -> None:
    async with connected(daemon) as client:
        await client.begin("POST", target(name), {**kind, "Content-Length": "1000"})
        await client.go_on(b'[{"data": "a"}]')
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
        await client.closed()

    assert await retained(daemon, name) == []


async def test_a_publisher_of_a_stream_learns_that_its_session_was_ended(
    daemon: Daemon, name: str
) -> None:
    async with following(daemon, name) as stream, connected(daemon) as client:
        await client.begin("POST", target(name), {**NDJSON, **CHUNKED})
        await client.go_on(b'{"data": "a"}\n')
        await stream.data(1)
        await ask(daemon, "DELETE", f"/v1/sessions/{name}")
        await client.go_on(b'{"data": "b"}\n')
        document = problem(await client.answer(), 409)

        assert document["accepted"] == 1


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        pytest.param("application/octet-stream", b"{}", 415, id="bytes"),
        pytest.param("application/json", b"{", 400, id="not JSON"),
        pytest.param("application/json", b'{"data": 1, "id": "a"}', 422, id="an unknown field"),
        pytest.param("text/plain", b"x" * (MAX_BODY + 1), 413, id="over the limit"),
    ],
)
async def test_a_bad_body_is_refused(
    content_type: str, body: bytes, status: int, daemon: Daemon, name: str
) -> None:
    problem(await post(daemon, name, {"Content-Type": content_type}, body), status)

    assert await retained(daemon, name) == []


@pytest.mark.parametrize(
    ("kind", "query", "body"),
    [
        (JSON, "", '{"data": 1, "event": "NAME"}'),
        (JSON, "", '[{"data": 1, "event": "NAME"}]'),
        (NDJSON, "", '{"data": 1, "event": "NAME"}\n'),
        (STREAM, "", "event: NAME\ndata: 1\n\n"),
        (TEXT, "event=NAME", "1"),
    ],
)
async def test_no_publisher_can_forge_an_event_of_the_daemons_own(
    daemon: Daemon, name: str, kind: Mapping[str, str], query: str, body: str
) -> None:
    for own in ["broadcaster.end", "broadcaster.gap", "broadcaster.of-tomorrow"]:
        forged = body.replace("NAME", own).encode()
        refused = await post(daemon, name, kind, forged, query.replace("NAME", own))

        assert "broadcaster." in str(problem(refused, 422)["detail"])
    assert await retained(daemon, name) == []


@pytest.mark.parametrize("theirs", ["end", "gap"])
async def test_an_application_may_name_its_events_as_it_likes(
    daemon: Daemon, name: str, theirs: str
) -> None:
    async with following(daemon, name) as stream:
        await post(daemon, name, TEXT, b'{"reconnect": false}', f"event={theirs}")
        event = await stream.event()

    assert event == Event(stream.cursor, '{"reconnect": false}', theirs)


async def test_what_comes_before_a_bad_line_stands(daemon: Daemon, name: str) -> None:
    body = b'{"data": "a"}\n\n{"data": "b"}\nnot JSON\n{"data": "c"}\n'
    document = problem(await post(daemon, name, NDJSON, body), 400)
    stands = await page(daemon, name)

    assert (document["line"], document["accepted"]) == (4, 2)
    assert [document["first_id"], document["last_id"]] == [event["id"] for event in stands]
    assert [event["data"] for event in stands] == ["a", "b"]


@pytest.mark.parametrize(
    "path_name",
    [
        "%20",
        "a%2Fb",
        "a+b",
        "%C3%A9",
        "x" * 129,
        "a%00",
        "a@b",
        "%0A",
        "a,b",
        "",
        ".",
        "..",
        "%2E%2e",
    ],
)
async def test_these_are_no_names(path_name: str, daemon: Daemon) -> None:
    response = await post(daemon, path_name, TEXT, b"a")

    assert response.status == (400 if path_name else 404)
    problem(response, response.status)


# --- too much --------------------------------------------------------------------------------


async def test_a_body_that_says_that_it_is_too_large_is_refused_before_it_comes(
    daemon: Daemon, name: str
) -> None:
    async with connected(daemon) as client:
        await client.begin("POST", target(name), {**JSON, "Content-Length": str(MAX_BODY + 1)})
        document = problem(await client.answer(), 413)

    assert "max_body_bytes" in str(document["detail"])


async def send_slowly(client: Http1, piece: bytes, count: int) -> None:
    """Send pieces until they are all sent, or nobody takes them any more."""
    try:
        for _ in range(count):
            await client.go_on(piece)
    except (trio.BrokenResourceError, h11.LocalProtocolError):
        pass


@pytest.mark.parametrize(
    "kind", [JSON, TEXT, NDJSON, STREAM], ids=lambda kind: kind["Content-Type"]
)
@pytest.mark.parametrize(
    "framing", [CHUNKED, {"Content-Length": "20000000"}], ids=["chunked", "length"]
)
async def test_who_sends_far_too_much_gets_to_read_why_that_was_refused(
    framing: Mapping[str, str], kind: Mapping[str, str], daemon: Daemon, name: str
) -> None:
    async with connected(daemon) as client, trio.open_nursery() as nursery:
        await client.begin("POST", target(name), {**kind, **framing})
        nursery.start_soon(send_slowly, client, b"x" * 50_000, 40)
        problem(await client.answer(), 413)
        nursery.cancel_scope.cancel()

    assert await retained(daemon, name) == []


def test_a_client_that_writes_before_it_reads_gets_its_answer_too(
    daemon: Daemon, name: str
) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 20_000

    chunked = httpx.post(daemon.session(name), content=body(), headers=TEXT)
    whole = httpx.post(daemon.session(name), content=b"x" * 400_000, headers=TEXT)

    assert (chunked.status_code, whole.status_code) == (413, 413)


def read_status(client: socket.socket) -> int:
    """Read one head of a response, and not a byte more; return its status."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        assert byte, head
        head += byte
    return int(head.split()[1])


def test_who_asks_before_it_sends_is_answered_first(daemon: Daemon, name: str) -> None:
    # As curl does with a body of more than a mebibyte.
    with socket.create_connection(("127.0.0.1", daemon.port), SOON) as client:
        client.sendall(
            f"POST {target(name)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {MAX_BODY + 1}\r\nExpect: 100-continue\r\n\r\n".encode()
        )

        assert read_status(client) == 413

    with socket.create_connection(("127.0.0.1", daemon.port), SOON) as client:
        client.sendall(
            f"POST {target(name)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n".encode()
        )

        assert read_status(client) == 100

        client.sendall(b"a")

        assert read_status(client) == 200


async def test_more_sessions_than_there_may_be_are_refused_for_now(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_sessions": 1})

    assert (await post(daemon, "a", TEXT, b"1")).status == 200
    refused = await post(daemon, "b", TEXT, b"1")
    problem(refused, 503)
    assert int(refused.headers["retry-after"]) > 0
    assert (await post(daemon, "a", TEXT, b"2")).status == 200
