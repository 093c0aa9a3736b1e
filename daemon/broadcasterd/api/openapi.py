"""The description of the HTTP interface: an OpenAPI 3.1 document, as plain data.

``docs/http.md`` is for people, this document for their tools. Tests hold it to the routes of
``routes.py``, and to the answers that a running daemon gives to requests made from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from broadcasterd import __version__
from broadcasterd.access.grants import MAX_SUBJECT_CHARS, Action
from broadcasterd.api import live
from broadcasterd.api.formats import JSON_TYPE, NDJSON_TYPE, STREAM_TYPE
from broadcasterd.api.pages import MAX_PAGE_EVENTS, MAX_WAIT_S
from broadcasterd.api.posted import EventName
from broadcasterd.api.problems import PROBLEM_TYPE
from broadcasterd.api.schemas import (
    COUNT,
    EVENTS,
    LINE,
    STREAM_EVENT,
    TEXT,
    TIME,
    Schema,
    components,
    record,
    reference,
)
from broadcasterd.api.sessions import MAX_LISTED, MAX_OFFSET, SESSION_ORDER, STREAM_ORDER
from broadcasterd.api.subscribe import MAX_ID_CHARS
from broadcasterd.config import Auth, Config
from broadcasterd.core.position import ID_PARAMETERS
from broadcasterd.core.session_name import NAME_PATTERN


def document(config: Config) -> Schema:
    """Return the description of a daemon with these settings."""
    paths = _paths(config)
    named: Schema = {
        "schemas": components(),
        "responses": {str(status): _problem(status) for status in _PROBLEMS},
    }
    if schemes := _schemes(config.auth):
        named["securitySchemes"] = schemes
    _let_in(paths, schemes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "broadcasterd",
            "version": __version__,
            "summary": "Broadcasts events over Server-Sent Events, with replay.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": named,
    }


def _paths(config: Config) -> dict[str, Schema]:
    return {
        "/v1/sessions/{session}/events": {
            "parameters": [_SESSION],
            "get": _subscribe("subscribe"),
            "post": _publish(config.server.max_body_bytes),
        },
        "/agent_network_sse/{session}": {
            "parameters": [_SESSION],
            "get": _subscribe("subscribeAgentNetwork"),
        },
        "/v1/sessions": {"get": _list_sessions()},
        "/v1/sessions/{session}": {
            "parameters": [_SESSION],
            "get": _describe_session(),
            "delete": _close_session(),
        },
        "/v1/sessions/{session}/streams": {"parameters": [_SESSION], "get": _list_streams()},
        "/v1/tickets": {"post": _issue_ticket()},
        "/v1/streams/{stream}/token": {"parameters": [_STREAM], "post": _renew()},
        "/v1/streams/{stream}": {"parameters": [_STREAM], "delete": _end_stream()},
        "/v1/streams": {"delete": _revoke("revokeSubject", parameters=[_ANY_SUBJECT])},
        "/v1/subjects/{subject}/streams": {"parameters": [_SUBJECT], "delete": _revoke("revoke")},
        "/health": {"get": _health()},
        "/health/live": {"get": _state("live", "Whether the daemon runs", "live")},
        "/health/ready": {
            "get": _state("ready", "Whether the daemon takes requests", "ready", not_yet="draining")
        },
        "/stats": {"get": _stats()},
        live.PATH: {"get": _watch()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _description()},
        "/": {"get": _page("page", "The live page")},
        "/page/{file}": {"parameters": [_FILE], "get": _page("pageFile", "A file of the page")},
        "/client.js": {"get": _page("clientScript", "The client for pages", problems=[])},
    }


# --- operations ------------------------------------------------------------------------------


def _subscribe(name: str) -> Schema:
    return _operation(
        name,
        "Listen to a session",
        description="A stream of the session's events; a page of them, where `Accept` has"
        " `application/json` and not `text/event-stream`.",
        needs=[Action.SUBSCRIBE],
        carriers=["bearer", "cookie", "token", "ticket"],
        parameters=[
            _parameter("header", "Last-Event-ID", _ID, "resume after this event"),
            *(
                _parameter("query", alias, _ID, "the same, for who cannot set the header")
                for alias in sorted(ID_PARAMETERS)
            ),
            _parameter("query", "from", _FROM, "where to start, if not after an event"),
            _parameter("query", "limit", _whole(1, MAX_PAGE_EVENTS), "events of a page; 100"),
            _parameter("query", "wait", _whole(0, MAX_WAIT_S), "seconds to hold an empty page; 0"),
            _parameter("query", "overload", TEXT, "`status`: 503 where there is no room"),
        ],
        responses={
            "200": {
                "description": "the events",
                "headers": _NO_STORE_OF_EITHER,
                "content": {
                    STREAM_TYPE: {"schema": STREAM_EVENT},
                    JSON_TYPE: {"schema": reference("Page")},
                },
            },
            "204": {"description": "the session was closed: do not come back"},
        },
        problems=[400, 503],
    )


def _publish(max_body_bytes: int) -> Schema:
    return _operation(
        "publish",
        "Publish events to a session, which opens it",
        description=f"A body of JSON or text has at most {max_body_bytes} bytes, as has each event"
        " of a stream. The schema of a stream (NDJSON, SSE) is that of each of its events.",
        needs=[Action.PUBLISH],
        parameters=[
            _parameter("query", "event", _EVENT_NAME, "the event's type, of a text body"),
            _parameter("query", "final", _FINAL, "the last SSE event, without its blank line"),
        ],
        requestBody={
            "required": True,
            "content": {
                JSON_TYPE: {"schema": EVENTS, "example": {"data": {"text": "hello"}}},
                NDJSON_TYPE: {"schema": LINE},
                STREAM_TYPE: {"schema": STREAM_EVENT},
                "text/*": {"schema": TEXT, "example": "hello"},
            },
        },
        responses={"200": _json("the events are in the log", reference("Answer"))},
        problems=[400, 408, 409, 413, 415, 422, 503],
    )


def _list_sessions() -> Schema:
    return _operation(
        "listSessions",
        "List the open sessions by name",
        needs=[Action.ADMIN],
        parameters=[
            _parameter("query", "limit", _whole(1, MAX_LISTED), "sessions of a page; 100"),
            _parameter("query", "cursor", TEXT, "what `next` of the page before said"),
            _parameter("query", "q", TEXT, "only names that have this, in capitals or not"),
            _parameter(
                "query", "sort", _order("session", *SESSION_ORDER), "largest first with a minus"
            ),
            _parameter("query", "offset", _whole(0, MAX_OFFSET), "sessions to pass over; 0"),
        ],
        responses={"200": _json("a page of sessions", reference("Sessions"))},
        problems=[400],
    )


def _describe_session() -> Schema:
    return _operation(
        "describeSession",
        "Look at an open session",
        needs=[Action.SUBSCRIBE, Action.ADMIN],
        responses={"200": _json("its figures", reference("Session"))},
        problems=[400, 404],
    )


def _list_streams() -> Schema:
    return _operation(
        "listStreams",
        "List the open streams of a session, oldest first",
        needs=[Action.ADMIN],
        parameters=[
            _parameter("query", "limit", _whole(1, MAX_LISTED), "streams of a page; 100"),
            _parameter("query", "sort", _order(*STREAM_ORDER), "largest first with a minus"),
            _parameter("query", "offset", _whole(0, MAX_OFFSET), "streams to pass over; 0"),
        ],
        responses={"200": _json("a page of streams", reference("Streams"))},
        problems=[400, 404],
    )


def _end_stream() -> Schema:
    return _operation(
        "endStream",
        "End one stream: its client is told not to come back",
        needs=[Action.ADMIN],
        responses={"204": {"description": "it has ended"}},
        problems=[404],
    )


def _close_session() -> Schema:
    return _operation(
        "closeSession",
        "Close a session: its subscribers are told not to come back",
        needs=[Action.PUBLISH],
        responses={"204": {"description": "it is closed, or was before"}},
        problems=[400, 404, 503],
    )


def _issue_ticket() -> Schema:
    return _operation(
        "issueTicket",
        "Exchange a token for a ticket: `ticket` in the query opens one stream, once",
        needs=[Action.SUBSCRIBE],
        requestBody={
            "required": True,
            "content": {JSON_TYPE: {"schema": reference("TicketRequest")}},
        },
        responses={"201": _json("a ticket", reference("Ticket"))},
        problems=[400, 408, 413, 422, 503],
    )


def _renew() -> Schema:
    return _operation(
        "renewToken",
        "Let a stream of the token's subject last for as long as the token, if that is longer",
        needs=[Action.SUBSCRIBE],
        responses={"200": _json("when it ends now, in Unix time", reference("Renewal"))},
        problems=[400, 404],
    )


def _revoke(name: str, parameters: Sequence[Schema] = ()) -> Schema:
    return _operation(
        name,
        "End the streams of a subject, and deny its tokens and tickets of before",
        needs=[Action.ADMIN],
        responses={"200": _json("how many were ended", reference("Revocation"))},
        problems=[400, 404, 503],
        parameters=[*parameters],
    )


def _health() -> Schema:
    return _operation(
        "health",
        "Figures and a verdict",
        responses={
            "200": _json("healthy or degraded", reference("Health")),
            "503": _json("unhealthy", reference("Health")),
        },
    )


def _state(name: str, summary: str, yes: str, *, not_yet: str | None = None) -> Schema:
    responses = {"200": _json("it does", record({"status": {"const": yes}}))}
    if not_yet:
        responses["503"] = _json("it does not", record({"status": {"const": not_yet}}))
    return _operation(name, summary, responses=responses)


def _stats() -> Schema:
    return _operation(
        "stats",
        "Everything that is counted, and how it performs",
        needs=[Action.ADMIN],
        responses={"200": _json("the figures of this moment", reference("Stats"))},
    )


def _watch() -> Schema:
    return _operation(
        "watch",
        "All figures as a stream, once a second",
        description="First `event: history`, the last hour; then an `event: stats` each second.",
        needs=[Action.ADMIN],
        parameters=[_parameter("query", "overload", TEXT, "`status`: 503 where there is no room")],
        responses={
            "200": {
                "description": "the figures",
                "headers": {
                    "Cache-Control": {
                        "required": True,
                        "schema": {"const": "no-store, no-transform"},
                    }
                },
                "content": {STREAM_TYPE: {"schema": STREAM_EVENT}},
            }
        },
        problems=[503],
    )


def _page(name: str, summary: str, problems: Sequence[int] = (404,)) -> Schema:
    contents = {kind: {"schema": TEXT} for kind in ("text/html", "text/css", "text/javascript")}
    headers = {"ETag": {"required": True, "schema": TEXT}}
    return _operation(
        name,
        summary,
        responses={
            "200": {
                "description": "the file",
                "headers": headers,
                "content": {**contents, "image/svg+xml": {"schema": TEXT}},
            },
            "304": {"description": "it is what `If-None-Match` names", "headers": headers},
        },
        problems=problems,
    )


def _metrics() -> Schema:
    return _operation(
        "metrics",
        "The same figures for Prometheus",
        description="In OpenMetrics where `Accept` asks for it. Where `auth.metrics_from_loopback`"
        " is set, programs on the daemon's own machine need no token.",
        needs=[Action.ADMIN],
        responses={
            "200": {
                "description": "families of metrics",
                "headers": _NO_STORE,
                "content": {
                    "text/plain": {"schema": TEXT},
                    "application/openmetrics-text": {"schema": TEXT},
                },
            }
        },
    )


def _description() -> Schema:
    responses = {"200": _json("an OpenAPI 3.1 document", {"type": "object"})}
    return _operation("describeInterface", "This description", responses=responses)


def _operation(
    name: str,
    summary: str,
    *,
    responses: Mapping[str, Schema],
    problems: Sequence[int] = (),
    needs: Sequence[Action] = (),
    carriers: Sequence[str] = ("bearer", "cookie", "token"),
    **members: object,
) -> Schema:
    """Return an operation.

    Args:
        name: unique among all operations.
        summary: what it does, for people.
        responses: those that are no problems.
        problems: the statuses of problems, but for those of a refused token.
        needs: actions of which a token has to allow one; without any, no token is needed.
        carriers: the places that the token may come in.
        members: further members, which only some operations have.

    """
    statuses = sorted({*problems, *(_REFUSALS if needs else ())})
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}
    operation: Schema = {"operationId": name, "summary": summary, **members}
    if needs:
        operation["security"] = [{carrier: [need]} for need in needs for carrier in carriers]
    return {**operation, "responses": {**responses, **refused}}


# --- parameters ------------------------------------------------------------------------------


def _parameter(place: str, name: str, schema: Schema, description: str) -> Schema:
    return {"in": place, "name": name, "description": description, "schema": schema}


def _order(*names: str) -> Schema:
    return {"enum": [f"{sign}{name}" for name in names for sign in ("", "-")]}


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


_ID: Schema = {"type": "string", "maxLength": MAX_ID_CHARS}
_FINAL: Schema = {"enum": ["accept", "discard"]}
_EVENT_NAME: Schema = msgspec.json.schema(EventName)
_FROM: Schema = {
    "anyOf": [{"enum": ["start", "now"]}, {**TEXT, "pattern": "^last:[0-9]{1,9}$"}, TIME]
}


def _variable(name: str, schema: Schema, description: str) -> Schema:
    return {**_parameter("path", name, schema, description), "required": True}


_SESSION = _variable("session", {"type": "string", "pattern": f"^{NAME_PATTERN}$"}, "its name")
_STREAM = _variable("stream", TEXT, "what the first comment of the stream names")
_FILE = _variable("file", {**TEXT, "minLength": 1}, "its name")
_SUBJECT = _variable("subject", {**TEXT, "minLength": 1}, "`sub` of its tokens")
_ANY_SUBJECT = {
    **_parameter(
        "query", "subject", {**TEXT, "maxLength": MAX_SUBJECT_CHARS}, "`sub` of its tokens"
    ),
    "required": True,
}

# --- responses -------------------------------------------------------------------------------

_NO_STORE: Schema = {"Cache-Control": {"required": True, "schema": {"const": "no-store"}}}
_NO_STORE_OF_EITHER: Schema = {
    "Cache-Control": {"required": True, "schema": {"enum": ["no-store, no-transform", "no-store"]}}
}
_RETRY_AFTER: Schema = {
    "Retry-After": {"required": True, "schema": COUNT, "description": "seconds"}
}
_CHALLENGED: Schema = {"WWW-Authenticate": {"required": True, "schema": TEXT}}
_MAY_BE_CHALLENGED: Schema = {"WWW-Authenticate": {"schema": TEXT}}

_REFUSALS = (400, 401, 403, 429)
"""Answers to a request whose token is not good, or does not suffice."""

_PROBLEMS: dict[int, tuple[str, Schema]] = {
    400: ("the request does not have the form that it must have", _MAY_BE_CHALLENGED),
    401: ("there is no token, or none that is valid", _CHALLENGED),
    403: ("the token does not allow this", _MAY_BE_CHALLENGED),
    404: ("there is nothing of this name", {}),
    408: ("the body took too long", {}),
    409: ("the session was closed while the request published to it", {}),
    413: ("the body, or an event of it, is too large", {}),
    415: ("the body is of no type that is taken", {}),
    422: ("the body is not what it should be", {}),
    429: ("too many, too fast", _RETRY_AFTER),
    503: ("not now: the daemon is full, short of memory, stops, or cannot keep it", _RETRY_AFTER),
}


def _json(description: str, schema: Schema) -> Schema:
    content = {JSON_TYPE: {"schema": schema}}
    return {"description": description, "headers": _NO_STORE, "content": content}


def _problem(status: int) -> Schema:
    description, headers = _PROBLEMS[status]
    return {
        "description": f"{HTTPStatus(status).phrase}: {description}",
        "headers": {**_NO_STORE, **headers},
        "content": {PROBLEM_TYPE: {"schema": reference("Problem")}},
    }


# --- who may do it ---------------------------------------------------------------------------


def _schemes(auth: Auth) -> dict[str, Schema]:
    """Return the places of a token, or of a ticket for one; none where no token is asked for."""
    if auth.mode == "none":
        return {}
    schemes: dict[str, Schema] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": auth.cookie},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
    }
    if auth.allow_query_token:
        schemes["token"] = {"type": "apiKey", "in": "query", "name": "token"}
    return schemes


def _let_in(paths: dict[str, Schema], schemes: Mapping[str, Schema]) -> None:
    """Remove the places of tokens that this daemon does not offer from all operations."""
    for operations in paths.values():
        for operation in operations.values():
            if isinstance(operation, dict) and "security" in operation:
                operation["security"] = [
                    way for way in operation["security"] if way.keys() <= schemes.keys()
                ]
                if not operation["security"]:
                    del operation["security"]
                    del operation["responses"]["401"], operation["responses"]["403"]
