"""The comparison: what one writes first, with the same paths as the daemon.

Quart-Trio on stock Hypercorn, a streaming generator for each subscriber and a memory channel into
it. It keeps no log and gives no promise; it is here to be measured, not to be used.
"""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial

import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import Response, request
from quart_trio import QuartTrio

# As many as the daemon retains for a session; a subscriber further behind holds the publisher up.
CHANNEL_EVENTS = 500


def build_app() -> QuartTrio:
    """Build the application; its sessions live as long as it does."""
    app = QuartTrio(__name__)
    sessions: dict[str, set[trio.MemorySendChannel[bytes]]] = {}
    last_ids: dict[str, int] = {}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/v1/sessions/<session>/events")
    async def subscribe(session: str) -> Response:
        send, receive = trio.open_memory_channel[bytes](CHANNEL_EVENTS)
        subscribers = sessions.setdefault(session, set())
        subscribers.add(send)

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield b"retry: 3000\n: stream\n"
                async for frame in receive:
                    yield frame
            finally:
                subscribers.discard(send)

        response = Response(stream(), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None  # else Quart cuts the stream after a minute
        return response

    @app.post("/v1/sessions/<session>/events")
    async def publish(session: str) -> dict[str, object]:
        data = (await request.get_json())["data"]
        text = data if isinstance(data, str) else json.dumps(data)
        event_id = last_ids[session] = last_ids.get(session, 0) + 1
        frame = f"id: {event_id}\ndata: {text}\n\n".encode()
        for subscriber in tuple(sessions.get(session, ())):
            await subscriber.send(frame)
        return {"session": session, "accepted": 1, "first_id": event_id, "last_id": event_id}

    return app


async def serve(port: int, *, on_ready: Callable[[int], None]) -> None:
    """Serve on the loopback address until cancelled; `on_ready` gets the port once it listens."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        urls: list[str] = await nursery.start(partial(hypercorn.trio.serve, build_app(), config))
        on_ready(int(urls[0].rpartition(":")[2]))
