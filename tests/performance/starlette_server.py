"""A peer: sse-starlette on uvicorn, written as its documentation does, with the daemon's paths.

It keeps no log and gives no promise; it is here to be measured, not to be used. It runs in the
environment of .ci/requirements-bench.lock: `starlette_server.py PORT`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BACKLOG = 4096  # as the daemon's

Queue = asyncio.Queue[ServerSentEvent]
sessions: dict[str, set[Queue]] = {}
last_ids: dict[str, int] = {}


async def health(request: Request) -> Response:
    """Answer that it is there."""
    return JSONResponse({"status": "healthy"})


async def subscribe(request: Request) -> Response:
    """Stream what comes from now on."""
    subscribers = sessions.setdefault(request.path_params["session"], set())
    queue: Queue = asyncio.Queue()

    async def stream() -> AsyncIterator[ServerSentEvent]:
        subscribers.add(queue)
        try:
            yield ServerSentEvent(comment="stream", retry=3000, sep="\n")
            while True:
                yield await queue.get()
        finally:
            subscribers.discard(queue)

    return EventSourceResponse(stream(), ping=15, sep="\n")


async def publish(request: Request) -> Response:
    """Take one event, an array, or one event a line."""
    session = request.path_params["session"]
    if request.headers["content-type"] == "application/x-ndjson":
        events = [json.loads(line) for line in (await request.body()).splitlines()]
    else:
        document = await request.json()
        events = document if isinstance(document, list) else [document]
    first_id = last_ids.get(session, 0) + 1
    for event_id, event in enumerate(events, first_id):
        message = ServerSentEvent(event["data"], id=str(event_id), sep="\n")
        for queue in sessions.get(session, ()):
            queue.put_nowait(message)
    last_ids[session] = first_id + len(events) - 1
    return JSONResponse({"session": session, "accepted": len(events), "first_id": first_id})


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/v1/sessions/{session}/events", subscribe, methods=["GET"]),
        Route("/v1/sessions/{session}/events", publish, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
    )
