"""The Quart application: routes, and what all of them share (CORS, errors)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus

import msgspec
from quart import Response, request
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from broadcasterd.access.grants import Action
from broadcasterd.api import health, openapi
from broadcasterd.api.auth import Guard
from broadcasterd.api.grants import issue_ticket, renew, revoke
from broadcasterd.api.problems import from_crash, from_http_exception, problem_response
from broadcasterd.api.publish import publish
from broadcasterd.api.request import Head, parse_query
from broadcasterd.api.sessions import describe, list_sessions
from broadcasterd.api.subscribe import (
    STREAM_HEADERS,
    Over,
    TurnedAway,
    admit,
    page,
    wants_page,
)
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Config
from broadcasterd.errors import Problem
from broadcasterd.server.asgi import Application, PulledBody, TakenOverBody
from broadcasterd.server.body import ClientDisconnected

CORS_MAX_AGE_S = 600


def create_app(
    hub: Hub,
    config: Config,
    *,
    guard: Guard,
    vitals: Callable[[], health.Vitals],
    takeover: bool = True,
) -> Application:
    """Return the application.

    Args:
        hub: whose sessions it serves.
        config: all settings; each request looks at ``settings`` for those that are in force.
        guard: asked by every route but those of health first of all.
        vitals: the daemon's figures of this moment.
        takeover: whether plain HTTP/1.1 streams are taken over from Hypercorn. Off only to
            measure what that is worth.

    """
    app = Application(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.settings = config
    _add_errors(app)
    _add_cors(app)
    _add_streams(app, hub, guard, takeover=takeover)
    _add_publishing(app, hub, guard)
    _add_sessions(app, hub, guard)
    _add_grants(app, hub, guard)
    _add_health(app, hub, vitals)
    _add_description(app)
    return app


def _add_streams(app: Application, hub: Hub, guard: Guard, *, takeover: bool) -> None:
    @app.get("/v1/sessions/<name>/events", provide_automatic_options=False)
    @app.get("/agent_network_sse/<name>", provide_automatic_options=False)
    async def subscribe(name: str) -> Response:
        head = _head()
        grant = guard.authorize_stream(head, name)
        if wants_page(head):
            found = await page(head, name, grant, hub)
            return _nothing() if found is None else _json(found)
        admission = admit(head, name, grant, hub)
        if isinstance(admission, Over):
            return _nothing()
        if isinstance(admission, TurnedAway):
            return Response(admission.body, headers=STREAM_HEADERS)
        connection = request.scope["state"]["connection"]
        if takeover and connection is not None and head.http_version == "1.1":
            response = Response(
                TakenOverBody(admission, connection, hub.poller, head.peer),
                headers={**STREAM_HEADERS, "Connection": "close"},
            )
        else:
            scope = request.scope["state"]["response"]
            response = Response(PulledBody(admission, scope, head.peer), headers=STREAM_HEADERS)
        response.timeout = None  # the default would end the stream after a minute (fact E)
        return response

    for rule in app.url_map.iter_rules(endpoint="subscribe"):
        # GET's answer never ends: there is no length, and no state, that HEAD could tell.
        (rule.methods or set()).discard("HEAD")


def _add_publishing(app: Application, hub: Hub, guard: Guard) -> None:
    @app.post("/v1/sessions/<name>/events", provide_automatic_options=False)
    async def post(name: str) -> Response:
        head = _head()
        grant = guard.authorize(head, Action.PUBLISH, session=name)
        limit = app.settings.server.max_body_bytes
        answer = await publish(head, name, request.body, grant=grant, hub=hub, max_body_bytes=limit)
        return _json(answer.document())


def _add_sessions(app: Application, hub: Hub, guard: Guard) -> None:
    @app.get("/v1/sessions", provide_automatic_options=False)
    async def sessions() -> Response:
        head = _head()
        guard.authorize(head, Action.ADMIN)
        return _json(list_sessions(head, hub))

    @app.get("/v1/sessions/<name>", provide_automatic_options=False)
    async def session(name: str) -> Response:
        guard.authorize(_head(), Action.SUBSCRIBE, Action.ADMIN, session=name)
        return _json(describe(hub.find(name)))

    @app.delete("/v1/sessions/<name>", provide_automatic_options=False)
    async def end(name: str) -> Response:
        guard.authorize(_head(), Action.PUBLISH, session=name)
        hub.end(name)
        return _nothing()


def _add_grants(app: Application, hub: Hub, guard: Guard) -> None:
    @app.post("/v1/tickets", provide_automatic_options=False)
    async def ticket() -> Response:
        return _json(await issue_ticket(_head(), request.body, guard=guard, hub=hub), 201)

    @app.post("/v1/streams/<stream_id>/token", provide_automatic_options=False)
    async def newer_token(stream_id: str) -> Response:
        return _json(renew(_head(), stream_id, guard=guard, hub=hub))

    # A subject may be a URL, and so have slashes.
    @app.delete("/v1/subjects/<path:subject>/streams", provide_automatic_options=False)
    async def revoked(subject: str) -> Response:
        return _json(await revoke(_head(), subject, guard=guard, hub=hub))


def _add_health(app: Application, hub: Hub, vitals: Callable[[], health.Vitals]) -> None:
    @app.get("/health", provide_automatic_options=False)
    async def whole() -> Response:
        figures = vitals()
        unhealthy = health.status(figures) == "unhealthy"
        return _json(health.document(figures), 503 if unhealthy else 200)

    @app.get("/health/live", provide_automatic_options=False)
    async def live() -> Response:
        return _json({"status": "live"})

    @app.get("/health/ready", provide_automatic_options=False)
    async def ready() -> Response:
        return _json({"status": "draining"}, 503) if hub.draining else _json({"status": "ready"})


def _add_description(app: Application) -> None:
    document = lru_cache(maxsize=1)(openapi.document)

    @app.get("/openapi.json", provide_automatic_options=False)
    async def description() -> Response:
        return _json(document(app.settings))


def _add_errors(app: Application) -> None:
    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        return problem_response(error)

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        return problem_response(from_http_exception(error))

    @app.errorhandler(ClientDisconnected)
    async def gone(_error: ClientDisconnected) -> Response:
        return _nothing()  # nobody is there to read it

    @app.errorhandler(Exception)
    async def crash(error: Exception) -> Response:
        return problem_response(from_crash(error))


def _add_cors(app: Application) -> None:
    @app.before_request
    async def preflight() -> ResponseReturnValue | None:
        if (
            request.method == "OPTIONS"
            and "access-control-request-method" in request.headers
            and app.settings.server.cors_origins
        ):
            return _nothing()
        return None

    @app.after_request
    async def share(response: Response) -> Response:
        allowed = app.settings.server.cors_origins
        if not allowed:
            return response
        origin = request.headers.get("Origin")
        response.headers.add("Vary", "Origin")
        if origin in allowed:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
        elif "*" in allowed:
            response.headers["Access-Control-Allow-Origin"] = "*"  # and so without credentials
        else:
            return response
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
            response.headers["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, Last-Event-ID, Cache-Control"
            )
            response.headers["Access-Control-Max-Age"] = str(CORS_MAX_AGE_S)
        return response


def _head() -> Head:
    scope = request.scope
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    client = scope["client"]
    return Head(
        method=request.method,
        path=scope["path"],
        query=parse_query(scope["query_string"]),
        headers=headers,
        peer=client[0] if client else "",
        http_version=scope["http_version"],
    )


def _nothing() -> Response:
    response = Response(b"", HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response


def _json(document: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(document),
        status,
        {"Cache-Control": "no-store"},
        content_type="application/json",
    )
