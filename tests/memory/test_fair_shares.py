"""A flood of one subject costs the others no event: who holds more than its share pays first."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import StartDaemon
from tests.support.flood import (
    ANSWER_S,
    MIB,
    PATIENCE_S,
    client_of,
    come_too_near,
    new_sessions,
)
from tests.support.tokens import claims, jwt_mode, sign

pytestmark = pytest.mark.slow

EVENTS = 400
SIZE = 2000
"""A history of 0.9 MB, in each of two sessions: more than a session of the flood, and idler."""

FLOOD_SESSIONS = 400
FLOOD_EVENTS, FLOOD_SIZE = 10, 8192
"""In each of them."""

NEED_MB = 20
"""So much has to be freed: more than all the others have."""

CRITICAL_MB = {"warning": 400.0, "open": -0.5}
"""Above what is used: so that the one state is reached, or the other too."""

SUBJECTS = ("alice", "bob", "carol")


def token_of(subject: str) -> str:
    """Return a token for all sessions."""
    return sign(claims(subscribe=("*",), publish=("*",), admin=True, sub=subject))


@pytest.mark.parametrize("state", CRITICAL_MB)
async def test_the_histories_of_a_floods_neighbours_stay_whole(
    state: str, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    settings: dict[str, dict[str, Any]] = {
        "auth": jwt_mode(tmp_path),
        "limits": {"publish_rate": 1e6, "publish_burst": 1_000_000},
    }
    daemon = start_daemon(**settings)
    names = [f"{subject}-{number}" for subject in SUBJECTS for number in range(2)]
    async with AsyncExitStack() as stack:
        for name in names:
            of_subject = client_of(daemon, token_of(name.partition("-")[0]))
            client = await stack.enter_async_context(of_subject)
            await client.publish_all(name, ["x" * SIZE] * EVENTS, at_once=100)
        mallory = await stack.enter_async_context(client_of(daemon, token_of("mallory")))
        requests = new_sessions(events=FLOOD_EVENTS, size=FLOOD_SIZE)
        for session, body, kind in islice(requests, FLOOD_SESSIONS):
            reply = await mallory.ask("POST", f"/v1/sessions/{session}/events", body, kind)
            assert reply.status == 200

        await come_too_near(daemon, client, settings, need_mb=NEED_MB, critical=CRITICAL_MB[state])
        await client.until_breaker(state, within=ANSWER_S)
        await client.until_breaker("closed", within=PATIENCE_S)
        listed = await client.sessions()

    left = sum(s["retained_bytes"] for name, s in listed.items() if name not in names)
    assert left < (FLOOD_SESSIONS * FLOOD_EVENTS * FLOOD_SIZE) - (NEED_MB - 5) * MIB, (
        "it did not pay"
    )
    assert dict.fromkeys(names, EVENTS) == {
        name: listed[name]["retained_events"] for name in names if name in listed
    }
