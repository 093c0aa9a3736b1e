"""The client behind `publish` and `tail`, against a server that answers by script.

How `publish` goes on until all is acknowledged: test_publisher.py.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from threading import Thread

import pytest

from broadcasterd import client
from broadcasterd.client import Client, End, Received, RequestFailed, connection

HEARTBEAT = ": still here\n"


def answer(
    status: int, body: str = "", *, kind: str = "application/problem+json", extra: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n{extra}\r\n"
    return (head + body).encode()


def stream(*lines: str) -> bytes:
    """Answer with an event stream that breaks off after these lines."""
    return answer(200, "\n".join([*lines, ""]), kind="text/event-stream")


class Script:
    """Answers one connection after the other, each as told, and keeps what was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"{self.base}/v1/sessions/s/events"
        self.requests: list[str] = []

    def _serve(self) -> None:
        with suppress(OSError):  # finished before the end
            for scripted in self._answers:
                with self._listener.accept()[0] as connection:
                    self.requests.append(_read_request(connection))
                    connection.sendall(scripted)
        self._listener.close()

    def finish(self) -> None:
        """Stop, even where the script was not played to its end."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def _read_request(connection: socket.socket) -> str:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += connection.recv(65536)
    head, _, body = heard.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    chunked = b"transfer-encoding: chunked" in head.lower()
    while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


class Waits(list[float]):
    """Stands in for sleep: remembers, and does not wait."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def tail(
    base: str,
    sleep: Callable[[float], None] = time.sleep,
    notify: Callable[[str], None] = lambda _: None,
    **place: str | None,
) -> list[Received]:
    """Listen to the session ``s`` to its end."""
    with (
        Client(base, sleep=sleep, notify=notify) as daemon,
        daemon.subscribe("s", **place) as events,
    ):
        return list(events)


def follow(
    *answers: bytes, start: str | None = None, last_event_id: str | None = None
) -> tuple[list[Received], Waits, list[str]]:
    """Tail a script to its end; return what came, the waits, and the requests."""
    script, waits = Script(*answers), Waits()
    try:
        received = tail(script.base, waits, start=start, last_event_id=last_event_id)
    finally:
        script.finish()
    return received, waits, script.requests


ENDED = answer(204)


# --- tail ------------------------------------------------------------------------------------


def test_events_come_as_they_were_sent() -> None:
    received, _, _ = follow(
        stream("id: a-1", "event: greeting", "data: one", "data: two", ""),
        ENDED,
    )

    assert received == [Received(id="a-1", event="greeting", data="one\ntwo")]


def test_reconnect_resumes_after_the_last_event() -> None:
    received, waits, requests = follow(
        stream("retry: 400", ": stream a", "id: a-1", "data: 1", "", "id: a-2", "data: 2", ""),
        stream("id: a-2", "", "id: a-3", "data: 3", ""),
        ENDED,
        start="last:2",
    )

    assert [event.data for event in received] == ["1", "2", "3"]
    assert all(0.4 <= seconds <= 0.6 for seconds in waits)
    assert "Last-Event-ID" not in requests[0]
    assert "Last-Event-ID: a-2\r\n" in requests[1]
    assert "Last-Event-ID: a-3\r\n" in requests[2]


def test_stream_that_is_cut_before_its_first_event_resumes_where_it_began() -> None:
    received, _, requests = follow(
        stream("retry: 1", ": stream a", "id: a-7", "", HEARTBEAT),
        ENDED,
        start="now",
    )

    assert received == []
    assert "from=now" in requests[0]
    assert "Last-Event-ID: a-7" in requests[1]


def test_blank_lines_and_ids_alone_are_no_events_but_empty_data_is() -> None:
    received, _, _ = follow(
        stream("id: a-1", "data: 1", "", "", ": hm", "", "id: a-2", "data:", "", "id: a-2", ""),
        ENDED,
    )

    assert [(event.id, event.data) for event in received] == [("a-1", "1"), ("a-2", "")]


def test_end_of_the_session_ends_the_tail() -> None:
    received, waits, _ = follow(
        stream(
            "id: a-1", "data: 1", "", "event: broadcaster.end", 'data: {"reconnect": false}', ""
        ),
    )

    assert [isinstance(event, End) and event.reconnect for event in received] == [False, False]
    assert isinstance(received[1], End)
    assert waits == []


def test_end_of_a_stream_that_may_be_resumed_does_not() -> None:
    received, waits, requests = follow(
        stream(
            "id: a-1",
            "data: 1",
            "",
            "retry: 500",
            "event: broadcaster.end",
            'data: {"reconnect":true}',
            "",
        ),
        ENDED,
    )

    assert [event.by_daemon for event in received] == [False, True]
    assert 0.5 <= waits[0] <= 0.75
    assert "Last-Event-ID: a-1" in requests[1]


def test_published_event_may_be_called_end() -> None:
    received, _, _ = follow(
        stream("id: a-1", "event: end", 'data: {"reconnect": false}', ""), ENDED
    )

    assert received == [Received(id="a-1", event="end", data='{"reconnect": false}')]


def test_gap_is_the_daemons_and_moves_no_cursor() -> None:
    received, _, requests = follow(
        stream("event: broadcaster.gap", 'data: {"oldest": "a-5"}', ""), ENDED, last_event_id="a-1"
    )

    assert [(event.event, event.by_daemon) for event in received] == [("broadcaster.gap", True)]
    assert "Last-Event-ID: a-1" in requests[1]


def test_the_position_after_a_gap_with_nothing_left_is_no_event() -> None:
    received, _, requests = follow(
        stream("event: broadcaster.gap", 'data: {"oldest": null}', "", "id: b-0", ""),
        stream("event: broadcaster.gap", 'data: {"oldest": "b-1"}', "", "id: b-1", "data:", ""),
        ENDED,
        last_event_id="a-1",
    )

    assert [(event.event, event.id) for event in received] == [
        ("broadcaster.gap", ""),
        ("broadcaster.gap", ""),
        ("message", "b-1"),
    ]
    assert ["Last-Event-ID: b-0" in request for request in requests] == [False, True, False]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refusal_is_final_and_says_why(status: int) -> None:
    problem = '{"title": "No", "detail": "not yours"}'

    with pytest.raises(
        RequestFailed, match=rf"^{status} .* from http://127\.0\.0\.1:[0-9]+/.*: No: not"
    ):
        follow(answer(status, problem))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_bad_moment_passes(status: int) -> None:
    received, waits, _ = follow(
        answer(status, extra="Retry-After: 120\r\n"), stream("id: a-1", "data: 1", ""), ENDED
    )

    assert [event.data for event in received] == ["1"]
    assert waits[0] == 120


def test_failures_in_a_row_wait_longer_each_time() -> None:
    _, waits, _ = follow(*[answer(503)] * 4, stream("retry: 3000", "id: a-1", "data: 1", ""), ENDED)

    in_a_row, after_a_stream = waits[:4], waits[4]

    assert in_a_row == sorted(in_a_row)
    assert in_a_row[3] >= 3 * 2**3
    assert after_a_stream <= 4.5


def test_daemon_that_is_down_is_tried_again() -> None:
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def give_up(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        tail(url, give_up, told.append)

    assert "next attempt in" in told[0]


def test_answer_that_is_no_event_stream_is_refused() -> None:
    with pytest.raises(RequestFailed, match="text/event-stream"):
        follow(answer(200, "<html>", kind="text/html"))


def test_waits_are_jittered() -> None:
    assert len({connection.backoff(1.0, 0) for _ in range(10)}) > 1


# --- publish ---------------------------------------------------------------------------------

RECEIPT = '{"session":"s","accepted":1,"first_id":"a-1","last_id":"a-1","subscribers":0}'


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script(answer(200, RECEIPT, kind="application/json"))
    yield script
    script.finish()


def ask(base: str, proxy: str | None = None, token: str | None = None) -> str:
    """Publish once, and return the receipt."""
    with Client(base, retry_for=0, proxy=proxy, token=token) as daemon:
        return daemon.publish("s", "hej").as_json()


def test_publish_returns_the_answer_and_sends_the_token(script: Script) -> None:
    assert ask(script.base, token="t0") == RECEIPT

    assert "Authorization: Bearer t0\r\n" in script.requests[0]
    assert "Content-Type: application/x-ndjson\r\n" in script.requests[0]
    assert '\r\n\r\n{"data": "hej","idempotency_key":"' in script.requests[0]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"detail": "too much"}', ": too much"),
        ("<html>", ""),
        ("[]", ""),
    ],
)
def test_publish_says_why_it_was_refused(body: str, told: str) -> None:
    script = Script(answer(413, body))

    with pytest.raises(RequestFailed) as caught:
        ask(script.base)
    script.finish()

    assert str(caught.value) == f"413 Request Entity Too Large from {script.url}{told}"


# --- on real machines ------------------------------------------------------------------------

ELSEWHERE = "http://broadcasterd.invalid"
REDIRECTS = [301, 302, 303, 307, 308]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", ["socks5://h:1", "foo://me:secret@h", "http://[::1", "ht tp://x"])
@pytest.mark.parametrize("command", ["publish", "tail"])
def test_a_proxy_of_the_environment_that_is_unusable_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, command: str
) -> None:
    monkeypatch.setenv(variable, value)
    attempts: dict[str, Callable[[], object]] = {
        "publish": lambda: ask(ELSEWHERE),
        "tail": lambda: tail(ELSEWHERE),
    }
    with pytest.raises(RequestFailed) as failed:
        attempts[command]()
    told = str(failed.value)

    assert told.startswith(f"{ELSEWHERE}: the proxy of {variable} cannot be used: ")
    assert "\n" not in told
    assert "secret" not in told


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks5://h:1", "foo://h"])
def test_a_daemon_on_loopback_is_asked_without_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, script: Script, proxy: str
) -> None:
    for variable in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert ask(script.base) == RECEIPT


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("localhost", True),
        ("daemon.localhost", True),
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("localhost.example", False),
        ("10.0.0.1", False),
        ("[2001:db8::1]", False),
    ],
)
def test_loopback_is_known(*, host: str, is_loopback: bool) -> None:
    assert is_loopback == connection._is_loopback(f"http://{host}:8000/v1")


def test_loopback_is_asked_through_a_proxy_where_that_is_told(script: Script) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        daemon = f"http://127.0.0.1:{listener.getsockname()[1]}"

    assert ask(daemon, proxy=script.base) == RECEIPT
    assert script.requests[0].startswith(f"POST {daemon}/v1/sessions/s/events HTTP/1.1\r\n")


@pytest.mark.parametrize("proxy", ["socks5://h:1", "foo://h"])
def test_a_proxy_that_was_told_and_is_unusable_is_one_line(proxy: str) -> None:
    with pytest.raises(RequestFailed, match="the proxy cannot be used: "):
        ask("http://127.0.0.1:1", proxy)


@pytest.mark.parametrize("status", REDIRECTS)
def test_tail_follows_redirects(status: int) -> None:
    there = Script(stream("id: a-1", "data: 1", ""), ENDED)
    here = Script(*[answer(status, extra=f"Location: {there.url}?from=now\r\n")] * 2)
    received = tail(here.base, lambda _: None)
    there.finish()
    here.finish()

    assert [event.data for event in received] == ["1"]
    assert "Last-Event-ID: a-1" in here.requests[1]
    assert "Last-Event-ID: a-1" in there.requests[1]


@pytest.mark.parametrize("status", REDIRECTS)
def test_publish_names_where_it_was_redirected_to(status: int) -> None:
    script = Script(answer(status, extra="Location: https://other.example/here\r\n"))
    with pytest.raises(RequestFailed) as refused:
        ask(script.base)
    script.finish()

    assert str(refused.value).startswith(f"{status} ")
    assert str(refused.value).endswith(f"from {script.url}: publish to https://other.example/here")


@pytest.mark.parametrize(("location", "requests"), [("ftp://h/", 1), ("/again", 21)])
def test_a_redirect_that_leads_nowhere_is_final(location: str, requests: int) -> None:
    script = Script(*[answer(302, extra=f"Location: {location}\r\n")] * requests)
    waits = Waits()
    with pytest.raises(RequestFailed, match=re.escape(script.url)):
        tail(script.base, waits)
    script.finish()

    assert len(script.requests) == requests
    assert waits == []


@pytest.mark.parametrize(
    "url", ["http://me:secret@127.0.0.1:1/", "http://xn--/", "http://h\0/", "http://\u2603.\u2603/"]
)
def test_every_failure_names_the_url(url: str) -> None:
    told: list[str] = []

    def give_up(_: float) -> None:
        raise RequestFailed(told[0])

    for attempt in (lambda: ask(url), lambda: tail(url, give_up, told.append)):
        with pytest.raises(RequestFailed) as failed:
            attempt()

        assert str(failed.value).startswith(url.replace("me:secret@", ""))
        assert "secret" not in str(failed.value)


def test_session_names_survive_the_url() -> None:
    url = client.events_url("http://h/", "a.b_c~d:e-f")

    assert url == "http://h/v1/sessions/a.b_c~d:e-f/events"
