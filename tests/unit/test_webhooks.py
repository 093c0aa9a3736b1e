"""Notices on their way: tried again, in order, for so long; and whatever comes, nothing waits."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from broadcasterd.alerts import webhooks
from broadcasterd.alerts.notice import Notice
from broadcasterd.alerts.webhooks import (
    ATTEMPT_S,
    GIVE_UP_AFTER_S,
    MAX_BACKOFF_S,
    QUEUED,
    Webhooks,
    prepare,
)
from broadcasterd.config import ConfigError
from broadcasterd.figures.counts import Counts

URL = "https://chat.example/hooks/s3cret"
OTHER = "https://pager.example/s3cret"

Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def news(alert: str = "a") -> Notice:
    figures: dict[str, Any] = dict.fromkeys(("value", "threshold", "clear_below", "lasted_s"), 1.0)
    texts: dict[str, Any] = dict.fromkeys(
        ("severity", "action", "metric", "time", "daemon", "version"), "x"
    )
    return Notice(id=f"msg_{alert}", status="firing", alert=alert, text="", **figures, **texts)


class Receivers:
    """Receivers of notices, and what came to them.

    Args:
        answers: by host; what is not there takes everything.

    """

    def __init__(self, nursery: trio.Nursery, **answers: Handler) -> None:
        self.nursery = nursery
        self.counts = Counts()
        self.webhooks = Webhooks(self.counts, b"k" * 32, connect=self._connect)
        self.came: list[tuple[float, httpx.Request]] = []
        self.answers = answers

    async def start(self) -> None:
        await self.nursery.start(self.webhooks.run)

    @property
    def taken(self) -> list[str]:
        """The alerts that were told, by request."""
        return [json.loads(request.content)["alert"] for _, request in self.came]

    @property
    def times(self) -> list[float]:
        return [round(at - self.came[0][0], 3) for at, _ in self.came]

    def _connect(self, _url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.came.append((trio.current_time(), request))
        handler = self.answers.get(request.url.host.partition(".")[0], _take)
        return await handler(request)


async def _take(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(204)


async def _hang(_request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


def _answer(*statuses: int, headers: Mapping[str, str] | None = None) -> Handler:
    """Return a receiver that answers so in turn, and the last for ever."""
    left = list(statuses)

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(left.pop(0) if len(left) > 1 else left[0], headers=headers)

    return answer


def _fail(error: Exception) -> Handler:
    async def fail(_request: httpx.Request) -> httpx.Response:
        raise error

    return fail


@pytest.fixture(autouse=True)
def _half_of_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, high: high)


async def receivers(nursery: trio.Nursery, **answers: Handler) -> Receivers:
    made = Receivers(nursery, **answers)
    await made.start()
    return made


async def test_a_notice_is_posted_and_signed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery)
    with capture_logs() as records:
        made.webhooks.send(URL, news())
        await trio.testing.wait_all_tasks_blocked()
    [(_, request)] = made.came
    [record] = records

    assert ("POST", URL) == (request.method, str(request.url))
    assert "msg_a" == request.headers["webhook-id"]
    assert request.headers["webhook-signature"].startswith("v1,")
    assert "application/json" == request.headers["content-type"]
    assert ("alert delivered", "a", 1) == (record["event"], record["alert"], record["attempts"])
    assert (1, 0) == (made.counts.notices_delivered, made.counts.notices_lost)


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (_answer(500, 503, 429, 408, 204), "it answered 500"),
        (_fail(httpx.ConnectError("https://x/s3cret")), "ConnectError"),
        (_fail(UnicodeError("label s3cret too long")), "UnicodeError"),
    ],
    ids=["status", "connection", "name"],
)
async def test_a_notice_that_is_not_taken_is_sent_again_under_its_name(
    fails: Handler, why: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery, chat=fails)
    with capture_logs() as records:
        made.webhooks.send(URL, news())
        await trio.sleep(14.5)
        made.answers["chat"] = _take
        await trio.sleep(60)

    assert [0.0, 1.0, 3.0, 7.0] == made.times[:4]
    assert {"msg_a"} == {request.headers["webhook-id"] for _, request in made.came}
    assert ["alert delayed", "alert delivered"] == [record["event"] for record in records]
    assert why == records[0]["why"]
    assert 1 == made.counts.notices_delivered


async def test_the_waits_are_bounded_and_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery, chat=_answer(500))
    with capture_logs() as records:
        made.webhooks.send(URL, news())
        await trio.sleep(2 * GIVE_UP_AFTER_S)

    waits = [b - a for a, b in zip(made.times, made.times[1:], strict=False)]

    assert MAX_BACKOFF_S == max(waits)
    assert GIVE_UP_AFTER_S - MAX_BACKOFF_S < made.times[-1] <= GIVE_UP_AFTER_S
    assert ["alert delayed", "alert not delivered"] == [record["event"] for record in records]
    assert (0, 1) == (made.counts.notices_delivered, made.counts.notices_lost)


async def test_the_waits_are_not_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked: list[tuple[float, float]] = []

    def lowest(low: float, high: float) -> float:
        asked.append((low, high))
        return low

    monkeypatch.setattr("random.uniform", lowest)
    made = await receivers(nursery, chat=_answer(500, 500, 204))
    made.webhooks.send(URL, news())
    await trio.sleep(60)

    assert [0.0, 0.5, 1.5] == made.times
    assert {(0.5, 1.0)} == set(asked)


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("9999", 60.0), ("soon", 1.0)])
async def test_a_receiver_may_ask_for_time(
    asked: str, waited: float, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    busy = _answer(429, 204, headers={"Retry-After": asked})
    made = await receivers(nursery, chat=busy)
    made.webhooks.send(URL, news())
    await trio.sleep(100)

    assert [0.0, waited] == made.times


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
async def test_what_would_be_refused_again_is_not_sent_again(
    status: int, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(
        nursery, chat=_answer(status, headers={"Location": "https://pager.example/"})
    )
    with capture_logs() as records:
        made.webhooks.send(URL, news("a"))
        made.webhooks.send(URL, news("b"))
        await trio.sleep(60)

    assert ["a", "b"] == made.taken
    assert ["chat.example"] * 2 == [request.url.host for _, request in made.came]
    assert [("alert not delivered", f"it answered {status}")] * 2 == [
        (record["event"], record["why"]) for record in records
    ]


async def test_a_receiver_that_hangs_is_left_and_holds_up_no_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery, chat=_hang)
    with capture_logs() as records:
        made.webhooks.send(URL, news("a"))
        await trio.sleep(0.5)
        made.webhooks.send(OTHER, news("b"))
        await trio.sleep(ATTEMPT_S)
        made.answers["chat"] = _take
        made.webhooks.send(URL, news("c"))
        await trio.sleep(2)

    assert ["a", "b", "a", "c"] == made.taken, "in order, for each receiver"
    assert [0.0, 0.5, ATTEMPT_S + 1, ATTEMPT_S + 1] == made.times
    assert "no answer within 10 s" == records[1]["why"]


async def test_a_queue_is_bounded_and_the_oldest_goes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery, chat=_hang)
    with capture_logs() as records:
        made.webhooks.send(URL, news("0"))
        await trio.sleep(1)
        for number in range(1, QUEUED + 2):
            made.webhooks.send(URL, news(str(number)))
    lost = [record["alert"] for record in records if record["event"] == "alert not delivered"]
    made.answers["chat"] = _take
    await trio.sleep(60)

    assert ["1", "2"] == lost, "the first is under way"
    assert ["0", "0", "3", "4"] == made.taken[:4]
    assert (QUEUED, 2) == (made.counts.notices_delivered, made.counts.notices_lost)


async def test_a_receiver_that_has_taken_all_leaves_nothing_behind(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    made = await receivers(nursery)
    before = trio.lowlevel.current_statistics().tasks_living
    for alert in ("a", "b"):
        made.webhooks.send(URL, news(alert))
        await trio.testing.wait_all_tasks_blocked()

    assert ["a", "b"] == made.taken
    assert before == trio.lowlevel.current_statistics().tasks_living


async def test_a_client_that_cannot_be_made_costs_the_notice_alone(nursery: trio.Nursery) -> None:
    def fail(_url: str) -> httpx.AsyncClient:
        raise ValueError("a bad proxy: https://user:s3cret@proxy.example")

    counts = Counts()
    hooks = Webhooks(counts, connect=fail)
    await nursery.start(hooks.run)
    with capture_logs() as records:
        hooks.send(URL, news())
        await trio.testing.wait_all_tasks_blocked()

    assert ["ValueError"] == [record["why"] for record in records]
    assert 1 == counts.notices_lost


async def test_no_record_has_a_url(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    refused = OSError(111, "Connection refused")
    error = httpx.ConnectError(f"{URL} cannot be reached")
    error.__cause__ = ExceptionGroup("s3cret", [refused])
    made = await receivers(nursery, chat=_fail(error), pager=_answer(404))
    with capture_logs() as records:
        made.webhooks.send(URL, news())
        made.webhooks.send(OTHER, news())
        await trio.sleep(2 * GIVE_UP_AFTER_S)

    assert "ConnectError: Connection refused" in [record["why"] for record in records]
    assert "s3cret" not in str(records)
    assert "example" not in str(records)


async def test_a_certificate_that_is_not_believed_is_named_by_its_reason(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    refused = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] for chat.example")
    refused.reason = "CERTIFICATE_VERIFY_FAILED"
    error = httpx.ConnectError("no")
    error.__cause__ = refused
    made = await receivers(nursery, chat=_fail(error))
    with capture_logs() as records:
        made.webhooks.send(URL, news())
        await trio.testing.wait_all_tasks_blocked()

    assert "ConnectError: CERTIFICATE_VERIFY_FAILED" == records[0]["why"]


# --- the client ------------------------------------------------------------------------------


def test_what_is_needed_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ssl.SSLContext] = []
    create = httpx.create_ssl_context

    def counted() -> ssl.SSLContext:
        made.append(create())
        return made[-1]

    webhooks._authorities.cache_clear()
    monkeypatch.setattr("httpx.create_ssl_context", counted)
    prepare(["http://127.0.0.1:1/"])

    assert 0 == len(made)

    prepare([URL, OTHER])

    assert 1 == len(made)


def test_a_proxy_that_cannot_be_used_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:s3cret@proxy.example")
    with pytest.raises(ConfigError) as caught:
        prepare([URL])

    assert "alerts: the webhooks cannot be used here: ValueError" == str(caught.value)


def test_a_receiver_on_this_machine_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "ftp://nowhere.example")

    prepare(["http://127.0.0.1:1/", "http://localhost/"])
