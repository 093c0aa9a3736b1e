"""The one table of routes: the path of each, the rights that it needs, and its handler.

The HTTP server looks here, and so do the description (``openapi.py``) and the tests of tokens.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter

import msgspec

from broadcasterd.access.grants import EVERYONE, Action, Grant
from broadcasterd.api import grants, health, live, openapi, pages, sessions, stats
from broadcasterd.api.answer import (
    NOTHING,
    Answer,
    LongAnswer,
    Stream,
    json_answer,
    long_json_answer,
    shared_json_answer,
)
from broadcasterd.api.auth import Guard
from broadcasterd.api.bodies import ClientDisconnected
from broadcasterd.api.fields import entity_tags
from broadcasterd.api.formats import format_of
from broadcasterd.api.live import Live
from broadcasterd.api.problems import from_crash, problem_answer
from broadcasterd.api.publish import publish
from broadcasterd.api.request import Head
from broadcasterd.api.room import TurnedAway
from broadcasterd.api.subscribe import STREAM_HEADERS, Admission, Over, admit
from broadcasterd.api.subscribe_shared import admit_when_ready
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Config, Settings
from broadcasterd.errors import Problem
from broadcasterd.figures.counts import Requests
from broadcasterd.page.assets import INDEX, Asset, assets, client_script

CLIENT_GONE = 499
"""The status that a request is counted under whose client left, as nginx does."""


@lru_cache(maxsize=1)
def _description(config: Config) -> bytes:
    return msgspec.json.encode(openapi.document(config))


@dataclass(frozen=True, slots=True)
class Api:
    """The objects that the handlers work on.

    Attributes:
        hub: has the sessions that are served.
        guard: asked first, by every route that is not open to everyone.
        settings: those in force.
        vitals: returns the daemon's figures of this moment.
        stats: returns more of them.
        metrics: returns those for Prometheus, in a format that ``Accept`` takes.
        live: the stream of figures.
        requests: those that were answered, by route; publishes are in the hub's counts.

    """

    hub: Hub
    guard: Guard
    settings: Settings
    vitals: Callable[[], health.Vitals]
    stats: Callable[[], stats.Stats]
    metrics: Callable[[str], Answer]
    live: Live
    requests: Mapping[Route, Requests] = field(
        default_factory=lambda: {r: Requests() for r in ROUTES if r.handler is not _publish}
    )

    async def answer(self, route: Route, call: Call) -> Answer | LongAnswer | Stream:
        """Return the response to a request. A problem is an answer; so is a logged failure."""
        began = perf_counter()
        answer: Answer | LongAnswer | Stream
        try:
            answer = await route.handler(self, call, route.admit(self.guard, call))
        except ClientDisconnected:
            self._count(route, call, CLIENT_GONE, began)
            return NOTHING  # nobody is there to read it
        except Exception as error:  # noqa: BLE001 (one request's failure is its own)
            answer = self._answer_to(error)
        self._count(route, call, answer.status, began)
        return answer

    def answer_at_once(self, route: Route, call: Call) -> Answer | Stream | None:
        """Return the response to a request to listen; ``None`` if it may have to be waited for."""
        if route.handler is not _listen or self.hub.engine.is_shared or pages.wants_page(call.head):
            return None
        began = perf_counter()
        answer: Answer | Stream
        try:
            answer = _listen_at_once(self, call, route.admit(self.guard, call))
        except Exception as error:  # noqa: BLE001 (one request's failure is its own)
            answer = self._answer_to(error)
        self._count(route, call, answer.status, began)
        return answer

    def _answer_to(self, error: Exception) -> Answer:
        if isinstance(error, Problem):
            self.hub.counts.turned_away(error.cause)
            return problem_answer(error)
        self.hub.counts.failed_requests += 1
        return problem_answer(from_crash(error))

    def _count(self, route: Route, call: Call, status: int, began: float) -> None:
        if route.handler is _publish:
            by_status = self.hub.counts.publishes[format_of(call.head)]
        else:
            requests = self.requests[route]
            requests.durations.record(perf_counter() - began)
            by_status = requests.by_status
        by_status[status] = by_status.get(status, 0) + 1


class Call(msgspec.Struct, frozen=True):
    """A request for a route.

    Attributes:
        head: its head.
        body: what it sends, in pieces as they arrive.
        path: what the path's parameters are, decoded.
        until_gone: cancels what is inside when the client leaves, where nothing else tells that.

    """

    head: Head
    body: AsyncIterable[bytes]
    path: Mapping[str, str] = msgspec.field(default_factory=dict)
    until_gone: Callable[[], AbstractContextManager[object]] = nullcontext


Handler = Callable[[Api, Call, Grant], Awaitable[Answer | LongAnswer | Stream]]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One method of one path.

    Attributes:
        path: with its parameters in braces; ``{subject...}`` may have slashes, others may not.
        handler: makes the response.
        needs: a token has to cover one of these, on the session that ``{session}`` names.
            ``None``: open to everyone, and no token is looked at. Empty: any good token.
        takes_ticket: whether a ticket serves as well as a token.
        is_stream: whether the answer has no end: neither length nor state could HEAD tell.
        is_local: whether this machine's own requests need no token, where a setting says so.

    """

    method: str
    path: str
    handler: Handler
    needs: tuple[Action, ...] | None
    takes_ticket: bool = False
    is_stream: bool = False
    is_local: bool = False

    def admit(self, guard: Guard, call: Call) -> Grant:
        """Return the grant that lets a request in.

        Raises:
            Problem: there is none.

        """
        if self.needs is None or (self.is_local and guard.trusts_machine(call.head)):
            return EVERYONE
        session = call.path.get("session")
        if self.takes_ticket and session is not None:
            return guard.authorize_stream(call.head, session)
        if self.needs:
            return guard.authorize(call.head, *self.needs, session=session)
        return guard.authenticate(call.head)


# --- handlers --------------------------------------------------------------------------------


async def _listen(api: Api, call: Call, grant: Grant) -> Answer | LongAnswer | Stream:
    name = call.path["session"]
    if pages.wants_page(call.head):
        found = await pages.page(call.head, name, grant, api.hub, call.until_gone)
        if found is None:
            return NOTHING
        return json_answer(found) if isinstance(found, dict) else long_json_answer(found)
    if api.hub.engine.is_shared:
        return _stream(await admit_when_ready(call.head, name, grant, api.hub))
    return _listen_at_once(api, call, grant)


def _listen_at_once(api: Api, call: Call, grant: Grant) -> Answer | Stream:
    return _stream(admit(call.head, call.path["session"], grant, api.hub))


def _stream(admission: Admission | TurnedAway | Over) -> Answer | Stream:
    if isinstance(admission, Over):
        return NOTHING
    if isinstance(admission, TurnedAway):
        return Answer(headers=STREAM_HEADERS, body=admission.body)
    return Stream(admission, STREAM_HEADERS)


async def _publish(api: Api, call: Call, grant: Grant) -> Answer:
    name = call.path["session"]
    published = await publish(call.head, name, call.body, grant=grant, hub=api.hub)
    return json_answer(published.document())


async def _list_sessions(api: Api, call: Call, _grant: Grant) -> Answer:
    return json_answer(sessions.list_sessions(call.head, api.hub))


async def _show_session(api: Api, call: Call, _grant: Grant) -> Answer:
    return json_answer(sessions.describe(api.hub.find(call.path["session"])))


async def _list_streams(api: Api, call: Call, _grant: Grant) -> Answer:
    session = api.hub.find(call.path["session"])
    return json_answer(sessions.list_streams(call.head, session))


async def _end_stream(api: Api, call: Call, _grant: Grant) -> Answer:
    sessions.end_stream(call.path["stream"], api.hub)
    return NOTHING


async def _end_session(api: Api, call: Call, _grant: Grant) -> Answer:
    await api.hub.close(call.path["session"])
    return NOTHING


async def _issue_ticket(api: Api, call: Call, grant: Grant) -> Answer:
    ticket = await grants.issue_ticket(
        call.head, call.body, grant=grant, tickets=api.guard.tickets, hub=api.hub
    )
    return json_answer(ticket, HTTPStatus.CREATED)


async def _renew_stream(api: Api, call: Call, grant: Grant) -> Answer:
    return json_answer(grants.renew(call.path["stream"], grant=grant, hub=api.hub))


async def _revoke_subject(api: Api, call: Call, _grant: Grant) -> Answer:
    subject = call.path.get("subject") or grants.subject_of(call.head)
    revoked = await grants.revoke(subject, hub=api.hub)
    return json_answer(revoked)


async def _health(api: Api, _call: Call, _grant: Grant) -> Answer:
    figures = api.vitals()
    unhealthy = health.status(figures) == "unhealthy"
    status = HTTPStatus.SERVICE_UNAVAILABLE if unhealthy else HTTPStatus.OK
    return json_answer(health.document(figures), status)


async def _live(_api: Api, _call: Call, _grant: Grant) -> Answer:
    return json_answer({"status": "live"})


async def _ready(api: Api, _call: Call, _grant: Grant) -> Answer:
    if api.hub.draining:
        return json_answer({"status": "draining"}, HTTPStatus.SERVICE_UNAVAILABLE)
    return json_answer({"status": "ready"})


async def _stats(api: Api, _call: Call, _grant: Grant) -> Answer:
    return json_answer(stats.document(api.stats()))


async def _watch(api: Api, call: Call, grant: Grant) -> Answer | Stream:
    return _stream(api.live.admit(call.head, grant))


async def _metrics(api: Api, call: Call, _grant: Grant) -> Answer:
    return api.metrics(call.head.headers.get("accept", ""))


async def _describe_api(api: Api, _call: Call, _grant: Grant) -> LongAnswer:
    return shared_json_answer(_description(api.settings.config))


async def _page(api: Api, call: Call, _grant: Grant) -> Answer:
    config = api.settings.config
    found = assets(is_open=config.auth.mode == "none").get(call.path.get("file", INDEX))
    if found is None or not config.dashboard.enabled:
        raise Problem(HTTPStatus.NOT_FOUND, "there is nothing at this path")
    return _file(call, found)


async def _client_script(_api: Api, call: Call, _grant: Grant) -> Answer:
    return _file(call, client_script())


def _file(call: Call, file: Asset) -> Answer:
    if file.etag in entity_tags(call.head.headers.get("if-none-match", "")):
        return Answer(HTTPStatus.NOT_MODIFIED, file.headers)
    return Answer(headers=file.headers, body=file.body)


ANYONE = None
ANY_TOKEN: tuple[Action, ...] = ()
SUBSCRIBE, PUBLISH, ADMIN = (Action.SUBSCRIBE,), (Action.PUBLISH,), (Action.ADMIN,)

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/sessions/{session}/events",
        _listen,
        SUBSCRIBE,
        takes_ticket=True,
        is_stream=True,
    ),
    Route(
        "GET", "/agent_network_sse/{session}", _listen, SUBSCRIBE, takes_ticket=True, is_stream=True
    ),
    Route("POST", "/v1/sessions/{session}/events", _publish, PUBLISH),
    Route("GET", "/v1/sessions", _list_sessions, ADMIN),
    Route("GET", "/v1/sessions/{session}", _show_session, SUBSCRIBE + ADMIN),
    Route("DELETE", "/v1/sessions/{session}", _end_session, PUBLISH),
    Route("GET", "/v1/sessions/{session}/streams", _list_streams, ADMIN),
    Route("POST", "/v1/tickets", _issue_ticket, ANY_TOKEN),
    Route("POST", "/v1/streams/{stream}/token", _renew_stream, ANY_TOKEN),
    Route("DELETE", "/v1/streams/{stream}", _end_stream, ADMIN),
    Route("DELETE", "/v1/streams", _revoke_subject, ADMIN),
    # A subject may be a URL, and so have slashes.
    Route("DELETE", "/v1/subjects/{subject...}/streams", _revoke_subject, ADMIN),
    Route("GET", "/health", _health, ANYONE),
    Route("GET", "/health/live", _live, ANYONE),
    Route("GET", "/health/ready", _ready, ANYONE),
    Route("GET", "/stats", _stats, ADMIN),
    Route("GET", live.PATH, _watch, ADMIN, is_stream=True),
    Route("GET", "/metrics", _metrics, ADMIN, is_local=True),
    Route("GET", "/openapi.json", _describe_api, ANYONE),
    Route("GET", "/", _page, ANYONE),
    Route("GET", "/page/{file}", _page, ANYONE),
    Route("GET", "/client.js", _client_script, ANYONE),
)
