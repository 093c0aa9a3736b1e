"""The table of routes: each path once, and an answer for everything that a handler does."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
import structlog.testing
import trio

from broadcasterd.access.grants import EVERYONE, Action, Grant
from broadcasterd.access.tokens import KeyRing
from broadcasterd.api.answer import NOTHING, Answer, Stream
from broadcasterd.api.auth import Guard
from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.live import Live
from broadcasterd.api.request import Head
from broadcasterd.api.routes import ROUTES, Api, Call, Route
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Auth, Config, Settings
from broadcasterd.errors import Problem
from broadcasterd.figures.counts import Requests
from tests.support.broadcast import make_hub, start_hub
from tests.support.following import Pieces


async def nothing() -> None:
    """End a body before it begins."""


def call(method: str = "GET", *, path: dict[str, str] | None = None, **headers: str) -> Call:
    head = Head(method, "/", (), headers, "127.0.0.1", "1.1")
    return Call(head, Pieces(nothing), path or {})


def not_asked_for(*_: str) -> NoReturn:
    raise AssertionError("nobody asked for them")


def api_of(settings: Settings, keys: KeyRing | None = None, hub: Hub | None = None) -> Api:
    hub = hub or make_hub(settings)
    ring = keys or KeyRing((), None, None, 0.0)
    return Api(
        hub,
        Guard(settings, ring, hub.clock),
        settings,
        vitals=not_asked_for,
        stats=not_asked_for,
        metrics=not_asked_for,
        live=Live(hub, not_asked_for),
        requests=defaultdict(Requests),
    )


@pytest.fixture
def open_api() -> Api:
    """Return an interface that anyone may use."""
    return api_of(Settings(Config(auth=Auth(mode="none"))))


def route_that(raises: Exception | None, *needs: Action, anyone: bool = False) -> Route:
    async def handler(_api: Api, _call: Call, grant: Grant) -> Answer:
        if raises is not None:
            raise raises
        return Answer(body=str(grant == EVERYONE).encode())

    return Route("GET", "/", handler, None if anyone else needs)


def test_each_method_of_each_path_stands_once() -> None:
    assert {1} == set(Counter((route.method, route.path) for route in ROUTES).values())


async def test_a_problem_is_an_answer(open_api: Api) -> None:
    problem = Problem(418, "no coffee", headers={"X": "y"}, extra={"index": 3})
    answer = await open_api.answer(route_that(problem), call())

    assert isinstance(answer, Answer)
    assert (418, "application/problem+json", "y") == (
        answer.status,
        answer.headers["Content-Type"],
        answer.headers["X"],
    )
    assert {"detail": "no coffee", "index": 3}.items() <= msgspec.json.decode(answer.body).items()


async def test_a_failure_is_a_record_and_an_answer_that_tells_nothing(open_api: Api) -> None:
    with structlog.testing.capture_logs() as records:
        answer = await open_api.answer(route_that(RuntimeError("a secret")), call())

    assert isinstance(answer, Answer)
    assert 500 == answer.status
    assert b"secret" not in answer.body
    assert ["a request failed"] == [record["event"] for record in records]


async def test_a_client_that_went_away_is_told_nothing(open_api: Api) -> None:
    assert NOTHING == await open_api.answer(route_that(ClientDisconnected()), call())


async def test_a_cancelled_handler_is_no_failure(open_api: Api) -> None:
    async def handler(_api: Api, _call: Call, _grant: Grant) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    with trio.move_on_after(0) as scope:
        await open_api.answer(Route("GET", "/", handler, None), call())

    assert scope.cancelled_caught


async def test_only_what_is_for_anyone_needs_no_token(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    auth = Auth(secret_file=secret)
    api = api_of(Settings(Config(auth=auth)), KeyRing.load(auth))
    statuses = {
        f"{route.method} {route.path}": answer.status
        for route in ROUTES
        if route.needs is not None
        for answer in [await api.answer(route, call(route.method, path=dict.fromkeys(names, "x")))]
        if isinstance(answer, Answer)
    }

    assert {401} == set(statuses.values())
    assert {route.path for route in ROUTES if route.needs is None} == {
        "/health",
        "/health/live",
        "/health/ready",
        "/openapi.json",
        "/",
        "/page/{file}",
        "/client.js",
    }
    assert 200 == (await _status(api, route_that(None, anyone=True)))


names = ("session", "stream", "subject")


async def _status(api: Api, route: Route) -> int:
    answer = await api.answer(route, call())
    assert isinstance(answer, Answer)
    return answer.status


async def test_a_subscription_is_a_stream_that_begins_where_it_asks(nursery: trio.Nursery) -> None:
    settings = Settings(Config(auth=Auth(mode="none")))
    hub = await start_hub(nursery, make_hub(settings))
    api = api_of(settings, hub=hub)
    [listen] = [route for route in ROUTES if route.path == "/agent_network_sse/{session}"]
    answer = await api.answer(listen, call(path={"session": "s"}))

    assert isinstance(answer, Stream)
    assert answer.admission.session is hub.find("s")
    assert answer.admission.opening.startswith(b"retry: 3000\n: stream ")
