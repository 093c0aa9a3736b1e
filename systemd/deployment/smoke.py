"""The few checks without which a release is not fit to serve: a deployment depends on them."""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress

from deployment.http import Client
from deployment.releases import DeploymentError

SESSIONS = "smoke-*"
"""The sessions that checks make up. No others are touched."""

Check = Callable[[Client, str], str]
"""Takes the path of a session of its own, and returns what it saw.

Raises:
    DeploymentError: it saw something else.
    OSError, HTTPException, ValueError, KeyError: nothing came, or nothing that it understands.

"""

NO_ANSWER = (OSError, http.client.HTTPException, ValueError, KeyError)


def run(client: Client, checks: Iterable[Check], say: Callable[[str], None]) -> None:
    """Make the checks, and say what each saw. Their sessions are removed.

    Raises:
        DeploymentError: one of them failed.

    """
    for check in checks:
        session = f"/v1/sessions/smoke-{secrets.token_hex(6)}"
        try:
            try:
                say(check(client, session))
            finally:
                with suppress(*NO_ANSWER):
                    client.ask("DELETE", session)
        except NO_ANSWER as error:
            raise DeploymentError(f"{client.url}: {type(error).__name__}: {error}") from error


def expect(wanted: object, found: object, what: str) -> None:
    """Raise :class:`DeploymentError` where something is not as it should be."""
    if wanted != found:
        raise DeploymentError(f"{what}: expected {wanted!r}, not {found!r}")


def smoke(version: str | None) -> list[Check]:
    """Return the checks of a deployment to a version; ``None`` is any."""

    def version_serves(client: Client, _: str) -> str:
        expect(200, client.ask("GET", "/health/ready").status, "/health/ready")
        health = client.ask("GET", "/health")
        expect(200, health.status, f"/health, {health.document.get('status')}")
        found = health.document["version"]
        expect(version or found, found, "version")
        return f"{client.url} serves, version {found}, {health.document['status']}"

    return [version_serves, nobody_comes_in_without_a_token, events_come_once_and_in_order]


def nobody_comes_in_without_a_token(client: Client, session: str) -> str:
    """Publish and subscribe as a stranger."""
    if client.token is None:
        return 'nobody needs a token: auth.mode is "none"'
    stranger = Client(client.url, None)
    expect(401, stranger.ask("POST", f"{session}/events", {"data": 1}).status, "publishing")
    with stranger.listen(f"{session}/events") as stream:
        expect(401, stream.status, "subscribing")
    return "without a token: 401"


def events_come_once_and_in_order(client: Client, session: str) -> str:
    """Publish some events live, and close the session: that is the end of the stream."""
    sent = [f"event {number}" for number in range(3)]
    with client.listen(f"{session}/events") as stream:
        expect(200, stream.status, "subscribing")
        stream.wait_until_open()
        for data in sent:
            published = client.ask("POST", f"{session}/events", {"data": data})
            expect(200, published.status, f"publishing, {published.document.get('detail')}")
        expect(204, client.ask("DELETE", session).status, "closing the session")
        came = [stream.event() for _ in range(len(sent) + 1)]
    expect(
        [*sent, "broadcaster.end"], [each.data for each in came[:-1]] + [came[-1].type], "events"
    )
    return f"{len(sent)} events came, once and in order"
