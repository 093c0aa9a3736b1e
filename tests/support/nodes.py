"""Several daemons that share what one Redis has, in one Trio run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from broadcasterd.daemon import Restore, nothing_to_restore
from tests.support.http1 import Answer
from tests.support.inprocess import Serving, serving
from tests.support.talk import JSON, ask, eventually, target

TIMEOUT_S = 10.0
"""After so long a Redis that does not answer counts as lost here: a loaded machine may stall."""


def node(
    url: str,
    restore: Restore = nothing_to_restore,
    /,
    *,
    engine: Mapping[str, object] | None = None,
    **sections: Mapping[str, object],
) -> AbstractAsyncContextManager[Serving]:
    """Run a daemon while inside that shares what is at a place."""
    engine = {"kind": "redis", "url": url, "timeout": TIMEOUT_S, **(engine or {})}
    # It is in the process of the tests, whose memory says nothing of its health.
    sections = {"memory": {"warning_mb": 100_000, "critical_mb": 200_000}, **sections}
    return serving(restore, engine=engine, **sections)  # type: ignore[arg-type] # sections, and no more


@asynccontextmanager
async def nodes(
    count: int, url: str, **sections: Mapping[str, object]
) -> AsyncIterator[list[Serving]]:
    """Run several."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node(url, **sections)) for _ in range(count)]


async def post(at: Serving, session: str, *events: object) -> Answer:
    """Publish events, each with its data or as a whole; return the answer."""
    body = [each if isinstance(each, dict) else {"data": each} for each in events]
    return await ask(at, "POST", target(session), JSON, json.dumps(body).encode())


async def publish(at: Serving, session: str, *events: object) -> dict[str, object]:
    """Publish events; return what the daemon says of them."""
    answer = await post(at, session, *events)

    assert 200 == answer.status, answer.body
    return answer.json()


FAILOVER_S = 60.0
"""What a publisher goes on for: Sentinels take seconds to agree, a replica to copy everything."""


@dataclass
class Publisher:
    """Publishes one event after the other, each again and again until it is answered 200.

    Each has an idempotency key: what nobody knows the outcome of is not published twice.

    Attributes:
        answered: the data of those that were answered 200, in order.
        refusals: the statuses of all other answers.

    """

    session: str
    name: str
    nodes: Sequence[Serving]
    answered: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)

    async def publish(self, number: int, at: Serving) -> None:
        """Publish an event at a node, and at the others where that one refuses."""
        data = f"{self.name}-{number}"
        event = {"data": data, "idempotency_key": data}

        async def is_taken() -> bool:
            answer = await post(at, self.session, event)
            if answer.status != 200:
                self.refusals.append(answer.status)
                assert answer.status == 503, answer.body
                assert "retry-after" in answer.headers
            return answer.status == 200

        await eventually(is_taken, within=FAILOVER_S)
        self.answered.append(data)
