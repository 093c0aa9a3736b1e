"""The stream over TLS and HTTP/2: the same promises as on a socket that was taken over.

The first part runs on all four paths. The rest is about faults of TLS or HTTP/2 alone: many
streams share one connection there, and none may hurt another.
"""

from __future__ import annotations

import json

import h2.errors
import pytest
import trio

from broadcasterd.broadcast import response_subscriber
from broadcasterd.core.reasons import EndReason
from broadcasterd.server import asgi, http1, http2_frames, sockets
from tests.support import inprocess
from tests.support.broadcast import drafts
from tests.support.certificate import Certificate
from tests.support.http1 import Http1
from tests.support.http2 import Http2
from tests.support.inprocess import Footprint, serving, until, until_back_to
from tests.support.paths import Path, serving_on
from tests.support.sse import Event

EVENTS = "/v1/sessions/news/events"
SESSION = "/v1/sessions/news"

TEXT = {"Content-Type": "text/plain"}
UNKNOWN = {"Content-Type": "application/octet-stream"}
"""Answered with 415 before any of the body was looked at."""

on_each_path = pytest.mark.parametrize("path", Path, ids=lambda path: path.name.lower())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up early on readers that do not read, instead of after many seconds."""
    monkeypatch.setattr(response_subscriber, "LAST_WORDS_TIMEOUT_S", 0.1)
    monkeypatch.setattr(asgi, "END_TIMEOUT_S", 0.1)
    monkeypatch.setattr(http1, "WRITE_TIMEOUT_S", 3.0)
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", 0.3)


# --- on all paths alike ----------------------------------------------------------------------


@on_each_path
async def test_what_is_published_arrives_at_once(path: Path, certificate: Certificate) -> None:
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.follow(EVENTS)
        answer = await clients.publish(EVENTS, "hello", {"number": 1})

        assert Event(str(answer["first_id"]), "hello") == await stream.event()
        assert Event(str(answer["last_id"]), '{"number":1}') == await stream.event()


@on_each_path
async def test_figures_are_a_stream_like_any_other(path: Path, certificate: Certificate) -> None:
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.follow("/v1/stats/events")
        seen = [await stream.event() for _ in range(2)]

        assert ["history", "stats"] == [event.type for event in seen if event is not None]


@on_each_path
async def test_an_event_larger_than_every_buffer_arrives_whole(
    path: Path, certificate: Certificate
) -> None:
    text = "0123456789abcdef" * 40_000
    async with serving_on(path, certificate) as (_, clients):
        stream = await clients.follow(EVENTS)
        await clients.publish(EVENTS, text)
        await clients.publish(EVENTS, "after it")

        assert [text, "after it"] == await stream.data(2)


@on_each_path
async def test_a_late_subscriber_gets_the_past_and_then_the_present(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        await clients.publish(EVENTS, *"abc")
        stream = await clients.follow(EVENTS)
        await clients.publish(EVENTS, "d")

        assert [*"abcd"] == await stream.data(4)


@on_each_path
async def test_a_stream_that_was_cut_resumes_after_its_cursor(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        await clients.publish(EVENTS, *"abcd")
        first = await clients.follow(EVENTS)
        assert [*"ab"] == await first.data(2)
        second = await clients.follow(EVENTS, {"Last-Event-ID": first.cursor})
        await clients.publish(EVENTS, "e")

        assert [*"cde"] == await second.data(3)


@on_each_path
async def test_an_id_that_nobody_gave_is_answered_with_a_gap_and_all_that_is_retained(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (_, clients):
        answer = await clients.publish(EVENTS, "a")
        stream = await clients.follow(EVENTS, {"Last-Event-ID": "another-1"})
        gap = await stream.event()

        assert gap is not None
        assert ("broadcaster.gap", "") == (gap.type, gap.id)
        assert {"asked": "another-1", "oldest": answer["first_id"]} == json.loads(gap.data)
        assert ["a"] == await stream.data(1)


@on_each_path
async def test_a_deleted_session_ends_its_streams_for_good(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        await clients.publish(EVENTS, "a")
        status, _ = await clients.fetch("DELETE", SESSION)

        assert 204 == status
        assert ["a"] == await stream.data(1)
        assert {"reason": "session_closed", "reconnect": False} == await stream.end()
        assert {EndReason.SESSION_CLOSED: 1} == daemon.hub.subscribers.ended_by_reason
        status, _ = await clients.fetch("GET", EVENTS)
        assert 204 == status


@on_each_path
async def test_a_silent_stream_is_kept_alive_by_comments(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate, sessions={"heartbeat_interval": 0.05}) as (_, clients):
        stream = await clients.follow(EVENTS)
        await stream.heartbeat()
        await stream.heartbeat()
        await clients.publish(EVENTS, "a")

        assert ["a"] == await stream.data(1)


@on_each_path
async def test_draining_says_so_and_ends_the_stream_cleanly(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate, sessions={"retry_ms": 700}) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        await daemon.server.stop_accepting()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.hub.drain)

            assert {"reason": "draining", "reconnect": True} == await stream.end()
        [_, _, retry, *_] = stream.heard
        assert 700 <= int(retry.removeprefix("retry: ")) <= 1400
        await until(lambda: not daemon.server._connections)


@on_each_path
@pytest.mark.usefixtures("impatient")
@pytest.mark.slow
async def test_a_reader_that_stops_is_ended_and_the_others_miss_nothing(
    path: Path, certificate: Certificate
) -> None:
    async with serving_on(path, certificate, sessions={"max_lag_events": 20}) as (daemon, clients):
        good = await clients.follow(EVENTS)
        before = await Footprint.settled()
        stalled = await clients.stall(EVENTS)
        await until(lambda: len(daemon.hub.subscribers) == 2)
        for number in range(60):
            text = str(number) * 20_000
            await clients.publish(EVENTS, text)
            assert [text] == await good.data(1)
        await until(lambda: len(daemon.hub.subscribers) == 1)

        assert {EndReason.SLOW_CONSUMER: 1} == daemon.hub.subscribers.ended_by_reason
        await stalled.until_gone()
        await until(lambda: Footprint.now().tasks <= before.tasks)


@on_each_path
async def test_a_reader_that_may_skip_is_told_where_it_missed_something(
    path: Path, certificate: Certificate
) -> None:
    limits = {"max_lag_events": 5, "slow_consumer": "skip"}
    async with serving_on(path, certificate, sessions=limits) as (daemon, clients):
        slow = await clients.follow(EVENTS, receive_buffer=4096)
        for number in range(100):
            await daemon.session("news").publish(drafts(f"{number} " * 10_000))
        numbers: list[int] = []
        gaps = 0
        while 99 not in numbers:
            event = await slow.event()
            assert event is not None
            if event.type == "broadcaster.gap":
                gaps += 1
                assert event.id == f"{daemon.session('news').log.incarnation}-{numbers[-1] + 1}"
            else:
                numbers.append(int(event.data.partition(" ")[0]))

        assert sorted(set(numbers)) == numbers
        assert 0 < gaps <= 100 - len(numbers)


# --- many streams on one connection ----------------------------------------------------------


async def test_a_stream_that_is_never_read_holds_no_more_than_a_bounded_buffer(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        await clients.stall(EVENTS)
        await until(lambda: daemon.hub.subscribers.by_id)
        for number in range(100):
            await daemon.session("news").publish(drafts(str(number) * 10_000))
        [subscriber] = daemon.hub.subscribers.by_id.values()

        assert subscriber.sent_bytes < 200_000, "it was written to though nobody read"


async def test_a_body_that_is_answered_early_is_refused_and_the_other_streams_go_on(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        client = await clients.http2()
        upload = await client.ask("POST", EVENTS, UNKNOWN, body=b"x" * 100, end=False)
        status, _ = await client.answer(upload)
        await client.go_on(upload, b"x" * 100)
        await client.until(lambda: upload in client.errors)

        assert 415 == status
        assert h2.errors.ErrorCodes.NO_ERROR == client.errors[upload]
        await clients.publish(EVENTS, "a")
        assert ["a"] == await stream.data(1)
        assert 0 == daemon.server.failed_connections


async def test_a_connection_may_carry_any_number_of_requests(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypercorn's own limit, which ends all streams, is 1,000: here it would be a few."""
    monkeypatch.setattr("hypercorn.config.Config.keep_alive_max_requests", 10)
    async with serving_on(Path.HTTP2, certificate) as (_, clients):
        stream = await clients.follow(EVENTS)
        for _ in range(30):
            assert 200 == (await clients.answer("GET", "/health/live")).status
        await clients.publish(EVENTS, "still here")

        assert ["still here"] == await stream.data(1)


async def test_a_stream_that_the_client_gives_up_ends_alone(certificate: Certificate) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        client = await clients.http2()
        before = await Footprint.settled()
        given_up = await client.ask("GET", EVENTS)
        await client.until(lambda: given_up in client.status)
        await client.reset(given_up)
        await until(lambda: len(daemon.hub.subscribers) == 1)

        assert {EndReason.CLIENT_GONE: 1} == daemon.hub.subscribers.ended_by_reason
        await clients.publish(EVENTS, "a")
        assert ["a"] == await stream.data(1)
        await until_back_to(before)


async def test_a_connection_whose_last_stream_was_given_up_does_not_stay(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inprocess, "KEEP_ALIVE_TIMEOUT_S", 0.1)
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        client = await clients.http2()
        stream = await client.ask("GET", EVENTS)
        await client.until(lambda: stream in client.status)
        await client.reset(stream)

        await until(lambda: not daemon.server._connections)


async def test_a_stop_does_not_wait_for_a_connection_whose_last_stream_was_given_up(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        client = await clients.http2()
        stream = await client.ask("GET", EVENTS)
        await client.until(lambda: stream in client.status)
        await client.reset(stream)
        await until(lambda: not daemon.hub.subscribers.by_id)
        await daemon.server.stop_accepting()

        await until(lambda: not daemon.server._connections)


@pytest.mark.usefixtures("impatient")
async def test_an_answer_that_nobody_asks_for_to_its_end_is_reset(certificate: Certificate) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        client = Http2(await clients.connect(), window=10)  # less than every opening
        await client.start()
        await until(lambda: daemon.server._connections)
        before = await Footprint.settled()
        stream = await client.ask("GET", EVENTS)
        client.stalled.add(stream)
        await until(lambda: daemon.hub.subscribers.by_id)
        daemon.hub.end("news")
        await client.until(lambda: stream in client.errors)

        assert not daemon.hub.subscribers.by_id
        await until(lambda: Footprint.now().tasks <= before.tasks)


async def test_priorities_are_not_kept(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_frames, "CONTROL_FRAMES_PER_S", 100_000)  # they come over hours
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        client = await clients.http2()
        for number in range(1_001, 3_201, 2):  # of streams that nobody will open; a tree has 1,000
            await client.prioritize(number)
        await clients.publish(EVENTS, "a")

        assert ["a"] == await stream.data(1)
        assert 0 == daemon.server.failed_connections


async def test_http2_is_spoken_without_tls_to_a_proxy_that_knows() -> None:
    h2c = {"h2c": True}
    async with serving(server=h2c) as daemon, await daemon.connect() as connection:
        client = Http2(connection)
        await client.start()
        stream = await client.follow(EVENTS)
        post = await client.ask("POST", EVENTS, TEXT, body=b"a")
        status, _ = await client.answer(post)

        assert 200 == status
        assert ["a"] == await stream.data(1)


async def test_a_last_goodbye_is_said_before_a_drained_connection_closes(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.HTTP2, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        await daemon.server.stop_accepting()
        daemon.hub.end("news")
        await stream.end()
        client = await clients.http2()
        await client.until(lambda: client.terminated)


# --- TLS itself ------------------------------------------------------------------------------


async def test_an_early_answer_reaches_a_client_that_is_still_sending(
    certificate: Certificate,
) -> None:
    async with serving_on(Path.TLS, certificate) as (_, clients):
        client = await clients.http1()
        await client.begin("POST", EVENTS, {**UNKNOWN, "Content-Length": str(10**7)})
        for _ in range(10):
            await client.go_on(b"x" * 100_000)
        answer = await client.answer()

        assert 415 == answer.status
        assert "application/json" in str(answer.json()["detail"])


@pytest.mark.parametrize(
    "head", [b"\x05\x01\x00 and some more", b"\x16\x03\x01\x00\x05hello"], ids=["socks", "tls"]
)
async def test_who_does_not_speak_tls_is_turned_away_and_nobody_else_notices(
    head: bytes, certificate: Certificate
) -> None:
    async with serving_on(Path.TLS, certificate) as (daemon, clients):
        stream = await clients.follow(EVENTS)
        async with await daemon.connect() as plain:
            await plain.send_all(head)
            await Http1(plain).closed()
        await clients.publish(EVENTS, "a")

        assert ["a"] == await stream.data(1)
        assert 0 == daemon.server.failed_connections


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_who_speaks_plain_http_is_told_that_it_is_https(
    size: int, certificate: Certificate
) -> None:
    async with serving(certificate=certificate) as daemon, await daemon.connect() as plain:
        stranger = Http1(plain)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.ask, "POST", EVENTS, TEXT, b"x" * size)
            answer = await stranger.answer()

        assert 400 == answer.status
        assert "this port speaks https" in str(answer.json()["detail"])
        await stranger.closed()
        assert (0, 0) == (daemon.server.failed_connections, len(daemon.hub.sessions))


async def test_plain_http_where_https_is_spoken_has_no_more_time_than_elsewhere(
    certificate: Certificate,
) -> None:
    limits = {"head_timeout": 0.1}
    async with (
        serving(certificate=certificate, limits=limits) as daemon,
        await daemon.connect() as plain,
    ):
        await plain.send_all(b"GET / HTTP/1.1\r\nHost:")
        stranger = Http1(plain)
        stranger.has_asked()

        assert 408 == (await stranger.answer()).status
        await stranger.closed()


async def test_a_handshake_that_is_never_made_is_given_up(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with serving(certificate=certificate) as daemon, await daemon.connect() as silent:
        await Http1(silent).closed()

        await until(lambda: not daemon.server._connections)
        assert 0 == daemon.server.failed_connections
