"""The Quart application: it registers the table of routes, and answers what is not in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from urllib.parse import unquote

from quart import Response, request
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from broadcasterd.api.answer import NOTHING, Answer, LongAnswer, Stream
from broadcasterd.api.cors import is_preflight, shared_with
from broadcasterd.api.problems import from_crash, problem_answer
from broadcasterd.api.request import Head, join_fields, parse_query
from broadcasterd.api.routes import ROUTES, Api, Call, Route
from broadcasterd.errors import Problem
from broadcasterd.server.asgi import Application, StreamedBody

_PARAMETER = re.compile(r"\{(\w+)(\.\.\.)?\}")

_DETAILS = {
    404: "there is nothing at this path",
    405: "this path does not take this method: see the Allow header",
}


class _Rest(BaseConverter):
    """A parameter of any characters: Werkzeug's cannot begin with a slash or have a LF."""

    part_isolating = False
    regex = r"(?s:.+)"


def create_app(api: Api) -> Application:
    """Return the application, which hands requests to the handlers that work on ``api``."""
    app = Application(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.converters["rest"] = _Rest
    for route in ROUTES:
        _add_route(app, api, route)
    _add_errors(app, api)
    _add_cors(app, api)
    return app


def _add_route(app: Application, api: Api, route: Route) -> None:
    async def respond(**path: str) -> Response:
        head = _head()
        decoded = {name: unquote(value) for name, value in path.items()}
        answer = await api.answer(route, Call(head, request.body, decoded))
        if isinstance(answer, Stream):
            return _stream(answer, head)
        return _long_response(answer) if isinstance(answer, LongAnswer) else _response(answer)

    endpoint = f"{route.method} {route.path}"
    app.add_url_rule(
        rule_of(route.path),
        endpoint,
        respond,
        methods=[route.method],
        provide_automatic_options=False,
    )
    if route.is_stream:
        for rule in app.url_map.iter_rules(endpoint=endpoint):
            (rule.methods or set()).discard("HEAD")


def rule_of(path: str) -> str:
    """Return a route's path as Werkzeug writes it."""
    return _PARAMETER.sub(lambda found: f"<{'rest:' if found[2] else ''}{found[1]}>", path)


def _stream(stream: Stream, head: Head) -> Response:
    body = StreamedBody(stream.admission, request.scope["state"]["response"], head.peer)
    response = Response(body, headers=dict(stream.headers))
    response.timeout = None  # the default would end the stream after a minute
    return response


def _long_response(answer: LongAnswer) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in answer.pieces:
            yield piece

    return Response(pieces(), answer.status, dict(answer.headers))


def _add_errors(app: Application, api: Api) -> None:
    @app.errorhandler(Problem)
    async def problem(error: Problem) -> Response:
        return _response(problem_answer(error))

    @app.errorhandler(HTTPException)
    async def refused(error: HTTPException) -> Response:
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        allow = {name: value for name, value in error.get_headers() if name == "Allow"}
        problem = Problem(status, _DETAILS.get(status, error.name), headers=allow)
        return _response(problem_answer(problem))

    @app.errorhandler(Exception)
    async def crash(error: Exception) -> Response:
        api.hub.counts.failed_requests += 1
        return _response(problem_answer(from_crash(error)))


def _add_cors(app: Application, api: Api) -> None:
    @app.before_request
    async def preflight() -> ResponseReturnValue | None:
        server = api.settings.server
        if server.cors_origins and is_preflight(request.method, _fields(), server):
            return _response(NOTHING)
        return None

    @app.after_request
    async def share(response: Response) -> Response:
        if (server := api.settings.server).cors_origins:
            response.headers.update(shared_with(request.method, _fields(), server))
        return response


def _head() -> Head:
    scope = request.scope
    client = scope["client"]
    return Head(
        method=request.method,
        path=scope["path"],
        query=parse_query(scope["query_string"]),
        headers=_fields(),
        peer=client[0] if client else "",
        http_version=scope["http_version"],
    )


def _fields() -> dict[str, str]:
    return join_fields(request.scope["headers"])


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, dict(answer.headers))
    if "Content-Type" not in answer.headers:
        del response.headers["Content-Type"]  # Quart's own guess
    if answer.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
        response.headers.pop("Content-Length", None)  # RFC 9110 §8.6
    return response
