"""Those who disturb the soak: they close sessions, and flood the daemon until its breaker opens."""

from __future__ import annotations

import json

import trio

from tests.performance.soak_world import Violation, World, check_refusal, some_session
from tests.support.flood import client_of

CLOSE_EVERY_S = 2.0
FLOOD_EVERY_S = 15.0
FLOOD_S = (0.5, 8.0)
FLOODERS = 3
FLOOD_EVENTS = 100
FLOOD_BODY = json.dumps([{"data": "x" * 2000}] * FLOOD_EVENTS).encode()


async def close_sessions(world: World) -> None:
    """Close a session now and then, some of them twice."""
    dice = world.random_for("closer")
    async with client_of(world.daemon) as client:
        while True:
            await world.gate.nap(dice.expovariate(1 / CLOSE_EVERY_S))
            async with world.gate.acting():
                session = some_session(dice)
                world.closed.add(session)
                allowed = {204, 404}  # nobody has asked for it, or it was forgotten since
                for _ in range(dice.choice((1, 1, 2))):
                    reply = await client.ask("DELETE", f"/v1/sessions/{session}")
                    if reply.status not in allowed:
                        raise Violation(f"to close {session} was answered {reply}")
                    allowed = {reply.status}
                    world.figures.deleted += reply.status == 204


async def flood(world: World) -> None:
    """Publish without a pause into new sessions now and then, for a short time."""
    dice = world.random_for("flood")
    number = 0
    while True:
        await world.gate.nap(dice.expovariate(1 / FLOOD_EVERY_S))
        async with world.gate.acting():
            number += 1
            seconds = dice.uniform(*FLOOD_S)
            async with trio.open_nursery() as nursery:
                for publisher in range(FLOODERS):
                    prefix = f"flood-{number}-{publisher}"
                    nursery.start_soon(_flood, world, prefix, trio.current_time() + seconds)


async def _flood(world: World, prefix: str, end: float) -> None:
    number = 0
    async with client_of(world.daemon) as client:
        while trio.current_time() < end and not world.gate.is_held:
            number += 1
            path = f"/v1/sessions/{prefix}-{number}/events"
            reply = await client.ask("POST", path, FLOOD_BODY)
            if reply.status == 200:
                world.figures.flooded += FLOOD_EVENTS
            else:
                check_refusal(reply)
                await world.gate.nap(0.05)
