"""Subscribing over HTTP: the first bytes, the position of a stream, and the other answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
import trio

from tests.support.daemon import Daemon, Launch, StartDaemon
from tests.support.following import Following
from tests.support.http1 import Answer, Http1
from tests.support.sse import Event
from tests.support.talk import (
    SOON,
    ask,
    connected,
    eventually,
    following,
    publish,
    target,
)

RETAINED = 10
PAGE = {"Accept": "application/json"}

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Iterator[Daemon]:
    """Start one daemon for most tests of this file; each has a session of its own."""
    daemon = Daemon.start(
        tmp_path_factory.mktemp("daemon"),
        launch,
        server={"cors_origins": ["https://example.org", "http://localhost:3000"]},
        sessions={"max_history_events": RETAINED, "retry_ms": 1234, "heartbeat_interval": 0.2},
    )
    yield daemon
    daemon.stop_cleanly()


@pytest.fixture
def name() -> str:
    """Return the name of a session that no other test uses."""
    return f"s{next(_numbers)}"


async def head_and_lines(
    daemon: Daemon, path: str, headers: dict[str, str] | None = None, *, lines: int
) -> tuple[Answer, list[str]]:
    """Subscribe; return the head of the answer, and so many lines of its body."""
    async with connected(daemon) as client:
        await client.ask("GET", path, headers)
        head = await client.head()
        stream = Following(client.body())
        heard = [str(await stream.line()) for _ in range(lines)]
    fields = {key.decode().lower(): value.decode() for key, value in head.headers}
    return Answer(head.status_code, fields, b""), heard


def check_what_is_said_of_a_stream(headers: Mapping[str, str]) -> None:
    """Check what keeps clients from decoding it otherwise, and proxies from holding it back."""
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


def problem(response: Answer, status: int) -> dict[str, object]:
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/problem+json"
    return response.json()


# --- how it begins ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/sessions/{}/events", "/agent_network_sse/{}"])
async def test_a_stream_begins_at_once_and_makes_no_event(
    path: str, daemon: Daemon, name: str
) -> None:
    response, lines = await head_and_lines(daemon, path.format(name), lines=3)

    assert response.status == 200
    check_what_is_said_of_a_stream(response.headers)
    assert lines[0] == "retry: 1234"
    assert lines[1].startswith(": stream ")
    assert lines[2] == ":"  # the first heartbeat: nothing else, and no blank line, came before


async def test_every_stream_has_a_name_of_its_own(daemon: Daemon, name: str) -> None:
    _, one = await head_and_lines(daemon, target(name), lines=2)
    _, other = await head_and_lines(daemon, target(name), lines=2)

    assert one[1] != other[1]


async def test_both_paths_are_the_same_stream(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as one, connected(daemon) as client:
        other = await client.follow(f"/agent_network_sse/{name}")
        publish(daemon, name, "a")

        assert await one.event() == await other.event()


async def test_a_silent_stream_gets_bare_comment_lines(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream:
        for _ in range(3):
            await stream.heartbeat()

    assert "" not in stream.heard


async def test_http_1_0_gets_the_stream_too(daemon: Daemon, name: str) -> None:
    publish(daemon, name, "a")
    async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
        await stream.send_all(f"GET {target(name)} HTTP/1.0\r\n\r\n".encode())
        received = b""
        with trio.fail_after(SOON):
            while not received.endswith(b"\n\n"):
                received += await stream.receive_some()
    head, _, body = received.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")]

    assert head.startswith(b"HTTP/1.1 200")
    check_what_is_said_of_a_stream({name.lower(): value for name, _, value in lines})
    assert b"chunked" not in head.lower()
    assert body.startswith(b"retry: ")
    assert b"\ndata: a\n" in body


# --- where it starts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "primed", "expected"),
    [
        ("", None, "abcde"),
        ("from=last:2", 3, "de"),
    ],
)
async def test_from_says_where_a_stream_starts(
    query: str, primed: int | None, expected: str, daemon: Daemon, name: str
) -> None:
    ids = publish(daemon, name, *"abcde")
    async with following(daemon, name, query) as stream:
        if primed is not None:
            # An id without data: a client that is cut now resumes here, and fires no event.
            assert await stream.line() == f"id: {ids[0].rpartition('-')[0]}-{primed}"
            assert await stream.line() == ""
        publish(daemon, name, "live")

        assert await stream.data(len(expected) + 1) == [*expected, "live"]

        assert ("id" in {line[:2] for line in stream.heard[2:3]}) == (primed is not None)


async def test_a_client_that_is_cut_before_its_first_event_resumes_where_it_began(
    daemon: Daemon, name: str
) -> None:
    publish(daemon, name, "before")
    _, lines = await head_and_lines(daemon, target(name, "from=now"), lines=3)
    publish(daemon, name, "meanwhile")
    resumed = {"Last-Event-ID": lines[2].removeprefix("id: ")}
    async with following(daemon, name, "from=now", resumed) as stream:
        assert await stream.data(1) == ["meanwhile"]


async def test_from_may_be_a_time(daemon: Daemon, name: str) -> None:
    publish(daemon, name, "before")
    await trio.sleep(0.02)  # two events have to be a moment apart
    moment = datetime.now(UTC) - timedelta(milliseconds=5)
    publish(daemon, name, "after")
    async with following(daemon, name, f"from={quote(moment.isoformat())}") as stream:
        await stream.line()
        await stream.line()

        assert await stream.data(1) == ["after"]


async def test_other_starts_are_refused(daemon: Daemon, name: str) -> None:
    problem(await ask(daemon, "GET", target(name, "from=yesterday")), 400)


async def test_a_stream_resumes_after_the_id_of_the_header(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, *"abcde")
    for index in range(5):
        header = {"Last-Event-ID": ids[index]}
        async with following(daemon, name, headers=header) as stream:
            [live] = publish(daemon, name, "live")
            seen = [await stream.event() for _ in range(5 - index)]

        assert [event.id for event in seen if event][: 4 - index] == ids[index + 1 :]
        assert seen[0] != Event(live, "live") or index == 4


async def test_the_header_wins(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, *"abcd")
    header = {"Last-Event-ID": ids[1]}
    async with following(daemon, name, f"lastEventId={ids[2]}&from=now", header) as stream:
        assert await stream.event() == Event(ids[2], "c")


async def test_too_many_query_fields_are_refused(daemon: Daemon, name: str) -> None:
    problem(await ask(daemon, "GET", target(name, "&".join(["a=b"] * 65))), 400)


# --- gaps ------------------------------------------------------------------------------------


async def gap(stream: Following, asked: str, oldest: str | None) -> None:
    """Check that a gap comes next, and that it has no id."""
    event = await stream.event()

    assert event is not None
    assert event.type == "broadcaster.gap"
    assert json.loads(event.data) == {"asked": asked, "oldest": oldest}
    assert stream.cursor == ""


async def test_an_id_in_a_log_without_events_is_a_gap_without_an_oldest(
    daemon: Daemon, name: str
) -> None:
    async with following(daemon, name, "lastEventId=lost-5") as stream:
        await gap(stream, "lost-5", None)
        publish(daemon, name, "a")

        assert await stream.data(1) == ["a"]


async def test_an_id_that_was_evicted_is_a_gap(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, *range(RETAINED + 3))
    async with following(daemon, name, headers={"Last-Event-ID": ids[1]}) as stream:
        await gap(stream, ids[1], ids[3])

        assert await stream.data(RETAINED) == [str(n) for n in range(3, RETAINED + 3)]


async def test_an_id_of_a_session_that_was_ended_is_a_gap_in_the_next(
    daemon: Daemon, name: str
) -> None:
    [before] = publish(daemon, name, "before")
    await ask(daemon, "DELETE", f"/v1/sessions/{name}")
    [after] = publish(daemon, name, "after")
    async with following(daemon, name, headers={"Last-Event-ID": before}) as stream:
        await gap(stream, before, after)

        assert await stream.data(1) == ["after"]


# --- pages -----------------------------------------------------------------------------------


async def page(daemon: Daemon, name: str, query: str = "") -> dict[str, object]:
    response = await ask(daemon, "GET", target(name, query), PAGE)

    assert response.status == 200, response.body
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    return response.json()


def data(found: dict[str, object]) -> list[str]:
    events = found["events"]
    assert isinstance(events, list)
    return [event["data"] for event in events]


async def test_a_page_is_the_same_log_as_json(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, "a", {"b": [1.10]})
    found = await page(daemon, name)
    events = found["events"]
    assert isinstance(events, list)
    age = datetime.now(UTC) - datetime.fromisoformat(events[0].pop("time"))

    assert timedelta(0) <= age < timedelta(seconds=SOON)
    assert found["session"] == name
    assert found["next"] == ids[1]
    assert events[0] == {"id": ids[0], "event": "message", "data": "a"}
    assert events[1]["data"] == '{"b":[1.1]}'
    assert "gap" not in found


async def test_pages_follow_each_other(daemon: Daemon, name: str) -> None:
    publish(daemon, name, *"abcde")
    first = await page(daemon, name, "limit=2")
    second = await page(daemon, name, f"limit=2&last_event_id={first['next']}")
    third = await page(daemon, name, f"limit=2&last_event_id={second['next']}")
    none = await page(daemon, name, f"limit=2&last_event_id={third['next']}")

    assert [data(found) for found in (first, second, third, none)] == [
        ["a", "b"],
        ["c", "d"],
        ["e"],
        [],
    ]
    assert none["next"] == third["next"]

    publish(daemon, name, "f")

    assert data(await page(daemon, name, f"last_event_id={none['next']}")) == ["f"]


async def test_a_page_starts_where_a_stream_would(daemon: Daemon, name: str) -> None:
    publish(daemon, name, *"abc")

    assert data(await page(daemon, name, "from=last:2")) == ["b", "c"]
    assert data(await page(daemon, name, "from=now")) == []


async def test_a_page_tells_of_a_gap(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, "a")
    found = await page(daemon, name, "last_event_id=lost-7")

    assert found["gap"] == {"asked": "lost-7", "oldest": ids[0]}
    assert data(found) == ["a"]


async def test_a_page_waits_for_news(daemon: Daemon, name: str) -> None:
    [last] = publish(daemon, name, "a")
    async with connected(daemon) as client:
        await client.ask("GET", target(name, f"wait=30&last_event_id={last}"), PAGE)
        await until_listened_to(daemon, name)
        publish(daemon, name, "b")
        found = (await client.answer()).json()

    assert data(found) == ["b"]


async def test_a_page_does_not_wait_for_what_is_there(daemon: Daemon, name: str) -> None:
    publish(daemon, name, "a")

    assert data(await page(daemon, name, "wait=30")) == ["a"]


@pytest.mark.slow
async def test_a_page_that_waited_in_vain_is_empty(daemon: Daemon, name: str) -> None:
    began = trio.current_time()
    found = await page(daemon, name, "wait=1")

    assert data(found) == []
    assert 0.9 < trio.current_time() - began < SOON
    # Heartbeats were due meanwhile; they are none of its news.


async def test_a_page_of_a_session_that_is_not_open_is_empty_and_opens_none(
    daemon: Daemon, name: str
) -> None:
    found = await page(daemon, name)

    assert found == {"session": name, "events": [], "next": found["next"]}
    problem(await ask(daemon, "GET", f"/v1/sessions/{name}"), 404)

    lost = await page(daemon, name, "last_event_id=lost-7")

    assert lost["gap"] == {"asked": "lost-7", "oldest": None}
    assert lost["next"] == found["next"]
    again = await page(daemon, name, f"last_event_id={lost['next']}")
    assert "gap" not in again


@pytest.mark.parametrize("start", ["start", "now", "last:3", "2026-01-01T00:00:00Z"])
async def test_what_is_published_between_two_pages_is_on_the_second(
    daemon: Daemon, name: str, start: str
) -> None:
    first = await page(daemon, name, f"from={start}")
    publish(daemon, name, "a", "b")
    second = await page(daemon, name, f"last_event_id={first['next']}")

    assert data(second) == ["a", "b"]
    assert "gap" not in second


async def test_a_loss_is_told_once_also_where_nothing_is_retained(
    daemon: Daemon, name: str
) -> None:
    async with connected(daemon) as client:
        stream = await client.follow(target(name), {"Last-Event-ID": "lost-7"})
        await gap(stream, "lost-7", None)
        while not stream.cursor:
            await stream.line()
            stream.cursor = next(
                (x.removeprefix("id: ") for x in stream.heard if x.startswith("id: ")), ""
            )
    async with connected(daemon) as client:
        again = await client.follow(target(name), {"Last-Event-ID": stream.cursor})
        publish(daemon, name, "a")

        assert await again.data(1) == ["a"]


async def test_a_page_has_bounds(daemon: Daemon, name: str) -> None:
    problem(await ask(daemon, "GET", target(name, "limit=0"), PAGE), 400)


async def until_listened_to(daemon: Daemon, name: str, count: int = 1) -> None:
    """Wait until a session has so many subscribers."""

    async def it_has_them() -> bool:
        found = await ask(daemon, "GET", f"/v1/sessions/{name}")
        return found.status == 200 and found.json()["subscribers"] == count

    await eventually(it_has_them)


# --- the end ---------------------------------------------------------------------------------


async def test_a_deleted_session_tells_its_subscribers_and_is_over(
    daemon: Daemon, name: str
) -> None:
    publish(daemon, name, "a")
    async with following(daemon, name) as stream:
        deleted = await ask(daemon, "DELETE", f"/v1/sessions/{name}")
        news = await stream.end()
    again = [
        await ask(daemon, "GET", target(name)),
        await ask(daemon, "GET", target(name, "from=now"), {"Last-Event-ID": stream.cursor}),
        await ask(daemon, "GET", f"/agent_network_sse/{name}"),
        await ask(daemon, "GET", target(name), PAGE),
    ]

    assert deleted.status == 204
    assert news == {"reason": "session_closed", "reconnect": False}
    assert [(response.status, response.body) for response in again] == [(204, b"")] * 4
    assert all("content-type" not in response.headers for response in again)
    assert (await ask(daemon, "DELETE", f"/v1/sessions/{name}")).status == 204
    problem(await ask(daemon, "GET", f"/v1/sessions/{name}"), 404)


async def test_what_is_owed_comes_before_the_end(daemon: Daemon, name: str) -> None:
    async with following(daemon, name) as stream:
        publish(daemon, name, *["x" * 10_000] * RETAINED)
        await ask(daemon, "DELETE", f"/v1/sessions/{name}")
        events = await stream.rest()

    assert [event.type for event in events] == ["message"] * RETAINED + ["broadcaster.end"]


async def test_a_session_that_never_was_cannot_be_deleted(daemon: Daemon, name: str) -> None:
    problem(await ask(daemon, "DELETE", f"/v1/sessions/{name}"), 404)


async def test_publishing_to_a_deleted_session_begins_another(daemon: Daemon, name: str) -> None:
    publish(daemon, name, "old")
    await ask(daemon, "DELETE", f"/v1/sessions/{name}")
    publish(daemon, name, "new")
    async with following(daemon, name) as stream:
        assert await stream.data(1) == ["new"]


# --- methods and origins ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/sessions/s/events", {"GET", "POST"}),
        ("/agent_network_sse/s", {"GET"}),
        ("/v1/sessions/s", {"GET", "HEAD", "DELETE"}),
        ("/v1/sessions", {"GET", "HEAD"}),
        ("/health", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "POST", "BREW"])
async def test_other_methods_are_refused_and_told_what_is_allowed(
    method: str, path: str, allowed: set[str], daemon: Daemon
) -> None:
    if method in allowed:
        return
    async with connected(daemon) as client:
        await client.ask(method, path)
        response = await whole(client, method)

    assert response.status == 405
    assert {allow.strip() for allow in response.headers["allow"].split(",")} == allowed


async def whole(client: Http1, method: str) -> Answer:
    """Wait for the response; that to HEAD has no body."""
    head = await client.head()
    headers = {name.decode().lower(): value.decode() for name, value in head.headers}
    body = b"" if method == "HEAD" else b"".join([piece async for piece in client.body()])
    return Answer(head.status_code, headers, body)


async def test_an_allowed_origin_may_read(daemon: Daemon, name: str) -> None:
    for origin in ("https://example.org", "http://localhost:3000"):
        for path in (target(name), "/health", "/nowhere"):
            response, _ = await head_and_lines(daemon, path, {"Origin": origin}, lines=0)

            assert response.headers["access-control-allow-origin"] == origin
            assert "Origin" in response.headers["vary"]


async def test_another_origin_may_not(daemon: Daemon) -> None:
    for origin in ("https://example.com", "https://example.org.evil", "null", "*"):
        response, _ = await head_and_lines(daemon, "/health", {"Origin": origin}, lines=0)

        assert response.status == 200
        assert "access-control-allow-origin" not in response.headers
        assert "Origin" in response.headers["vary"]


async def test_a_preflight_is_answered(daemon: Daemon, name: str) -> None:
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    allowed = await ask(
        daemon, "OPTIONS", target(name), {"Origin": "https://example.org", **asking}
    )
    refused = await ask(
        daemon, "OPTIONS", target(name), {"Origin": "https://example.com", **asking}
    )
    headers = {
        h.strip().lower() for h in allowed.headers["access-control-allow-headers"].split(",")
    }

    assert allowed.status == 204
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert {"authorization", "content-type", "last-event-id"} <= headers
    assert int(allowed.headers["access-control-max-age"]) > 0
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-methods" not in refused.headers


async def test_without_origins_in_the_configuration_nothing_is_shared(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon()
    response = await ask(daemon, "GET", "/health", {"Origin": "https://example.org"})

    assert not [header for header in response.headers if header.startswith("access-control")]


async def test_where_every_origin_is_allowed_any_may_read(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(server={"cors_origins": ["*"]})
    response = await ask(daemon, "GET", "/health", {"Origin": "https://example.org"})

    assert response.headers["access-control-allow-origin"] in {"*", "https://example.org"}


LISTED = "https://example.org"
BAD_CHUNKS = (
    f"POST {target('s')} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\n"
    "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (f"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\n\r\n", 404),
        (f"PUT /health HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\n\r\n", 405),
        (f"GET {target('a@b')} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nOrigin: {LISTED}\r\n\r\n", 400),  # without a host
        (f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\nX: {'x' * 20_000}", 431),
        (f"GET / HTTP/2.1\r\nHost: 127.0.0.1\r\nOrigin: {LISTED}\r\n\r\n", 505),
        (BAD_CHUNKS, 400),
    ],
)
async def test_a_page_can_read_every_refusal(daemon: Daemon, sent: str, status: int) -> None:
    """Also those that come before the request has a route: or all a page sees is that it failed."""
    async with connected(daemon) as client:
        client.has_asked()
        await client.stream.send_all(sent.encode())
        answer = await client.answer()

    assert answer.status == status
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert answer.headers["vary"] == "Origin"
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_an_unknown_path_is_a_problem(daemon: Daemon) -> None:
    for path in ("/nowhere", "/v1/sessions/a/b/c", "/v1/sessions/a/events/"):
        problem(await ask(daemon, "GET", path), 404)


# --- too many --------------------------------------------------------------------------------


async def turned_away(daemon: Daemon, name: str) -> None:
    """Check that a stream is turned away, in both of its ways."""
    async with connected(daemon) as client:
        await client.ask("GET", target(name))
        head = await client.head()
        stream = Following(client.body())
        events = await stream.rest()
    refused = await ask(daemon, "GET", target(name, "overload=status"))

    assert head.status_code == 200
    check_what_is_said_of_a_stream(
        {name.decode().lower(): value.decode() for name, value in head.headers}
    )
    assert stream.heard[0].startswith("retry: ")
    assert 1000 <= int(stream.heard[0].removeprefix("retry: ")) <= 2000
    assert [event.type for event in events] == ["broadcaster.end"]
    assert json.loads(events[0].data) == {"reason": "memory", "reconnect": True}
    assert stream.cursor == ""
    problem(refused, 503)
    assert int(refused.headers["retry-after"]) > 0


async def test_who_comes_when_it_is_full_is_told_to_come_back(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        sessions={"max_subscribers": 3, "max_subscribers_per_session": 2, "retry_ms": 1000}
    )
    async with following(daemon, "a"), following(daemon, "a") as second:
        await until_listened_to(daemon, "a", 2)
        await turned_away(daemon, "a")
        async with following(daemon, "b"):
            await until_listened_to(daemon, "b")
            await turned_away(daemon, "b")
            await turned_away(daemon, "c")
        await until_listened_to(daemon, "b", 0)
        async with following(daemon, "c") as third:
            publish(daemon, "c", "there is room again")
            publish(daemon, "a", "and they never knew")

            assert await third.data(1) == ["there is room again"]
            assert await second.data(1) == ["and they never knew"]


async def test_a_session_too_many_turns_its_first_subscriber_away(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(sessions={"max_sessions": 1, "retry_ms": 1000})
    async with following(daemon, "a"):
        await turned_away(daemon, "b")


async def test_a_crowd_that_comes_at_once_is_cut_to_the_limit(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(sessions={"max_subscribers_per_session": 5, "max_history_events": 1})
    outcomes: list[str] = []

    async def come() -> None:
        async with connected(daemon) as client:
            await client.ask("GET", target("s"))
            await client.head()
            event = await Following(client.body()).event()
            assert event is not None
            outcomes.append(event.type)

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(come)

        async def the_others_are_told() -> bool:
            return len(outcomes) == 25

        await eventually(the_others_are_told)
        publish(daemon, "s", "for those who stayed")

    assert sorted(outcomes) == ["broadcaster.end"] * 25 + ["message"] * 5


# --- slow readers ----------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_slow_reader_that_may_skip_is_told_what_it_missed(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon(
        sessions={
            "slow_consumer": "skip",
            "max_lag_events": 20,
            "max_history_events": 50,
            "max_history_bytes": 16 * 1024 * 1024,
        }
    )
    async with following(daemon, "s") as stream:
        ids: list[str] = []
        for _ in range(15):
            ids += publish(daemon, "s", *["x" * 100_000] * 9)
        seen: list[Event] = []
        while not seen or seen[-1].id != ids[-1]:
            event = await stream.event()
            assert event is not None
            seen.append(event)
    expected = iter(ids)
    for before, event in itertools.pairwise([Event("", ""), *seen]):
        if event.type == "broadcaster.gap":
            news = json.loads(event.data)
            assert news["asked"] == before.id
            assert before.id in ids
            expected = iter(ids[ids.index(news["oldest"]) :])
        else:
            assert event.id == next(expected)

    assert "broadcaster.gap" in {event.type for event in seen}
    assert next(expected, None) is None


# --- looking at it ---------------------------------------------------------------------------


async def test_the_list_of_sessions_has_pages(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    for name in ("b", "a", "d", "c", "e"):
        publish(daemon, name, 1)
    listed: list[str] = []
    cursor = ""
    for _ in range(3):
        found = (await ask(daemon, "GET", f"/v1/sessions?limit=2&cursor={cursor}")).json()
        sessions = found["sessions"]
        assert isinstance(sessions, list)
        listed += [session["session"] for session in sessions]
        assert found["total"] == 5
        cursor = str(found["next"])

    assert listed == list("abcde")
    assert found["next"] is None
    problem(await ask(daemon, "GET", "/v1/sessions?limit=0"), 400)


async def test_a_session_is_described(daemon: Daemon, name: str) -> None:
    ids = publish(daemon, name, *"abc")
    async with following(daemon, name):
        await until_listened_to(daemon, name)
        found = (await ask(daemon, "GET", f"/v1/sessions/{name}")).json()

    assert found["session"] == name
    assert found["subscribers"] == 1
    assert found["retained_events"] == 3
    assert isinstance(found["retained_bytes"], int)
    assert found["retained_bytes"] > 0
    assert (found["oldest_id"], found["last_id"]) == (ids[0], ids[2])
    for age in (found["oldest_age_s"], found["age_s"], found["idle_s"]):
        assert isinstance(age, float)
        assert 0 <= age < SOON

    await until_listened_to(daemon, name, 0)


async def test_health_is_for_anyone(daemon: Daemon, name: str) -> None:
    async with following(daemon, name):
        await until_listened_to(daemon, name)
        whole_health = await ask(daemon, "GET", "/health")
    live = await ask(daemon, "GET", "/health/live")
    ready = await ask(daemon, "GET", "/health/ready")
    document = whole_health.json()
    memory = document["memory"]

    assert (whole_health.status, live.status, ready.status) == (200, 200, 200)
    assert document["status"] == "healthy"
    assert isinstance(memory, dict)
    assert {"rss_mb", "accounted_mb", "warning_mb", "critical_mb", "breaker", "trend"} <= set(
        memory
    )
    assert memory["rss_mb"] > 10
    assert isinstance(document["subscribers"], int)
    assert document["subscribers"] >= 1
    assert {"sessions", "uptime_s", "version"} <= set(document)
    assert whole_health.headers["cache-control"] == "no-store"
