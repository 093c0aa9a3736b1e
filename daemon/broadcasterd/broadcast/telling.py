"""Telling an engine, little by little, what it does not know: after a handover, or a loss."""

from __future__ import annotations

from collections.abc import Container

from broadcasterd.broadcast.durable_session import DurableSession
from broadcasterd.broadcast.hub import Hub
from broadcasterd.engine.port import Ended, Revoked

TOLD_BYTES = 4 * 1024 * 1024
"""Events that it is told of in one go: they are there twice until it has them."""


class Telling:
    """Tells a hub's engine of the hub.

    Args:
        hub: whose sessions, and names of closed ones, the engine is to know.

    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._told = -1  # the generation of the engine that was told of all

    def go_on(self) -> bool:
        """Tell the engine of a part of what it does not know; return whether that was all."""
        engine = self._hub.engine
        if self._told == engine.generation or engine.health.why:
            return True
        room = TOLD_BYTES
        for session in self._hub.sessions.values():
            if isinstance(session, DurableSession) and not session.keeping.is_told:
                if room <= 0:
                    return False
                session.tell_engine()
                room -= session.log.bytes
        if self._told >= 0:
            tell_names(self._hub)
        self._told = engine.generation
        return True


def tell_names(hub: Hub, ended: Container[str] = (), revoked: Container[str] = ()) -> None:
    """Tell the engine which sessions were closed, and which subjects revoked.

    Args:
        hub: knows of them.
        ended: sessions of which the engine knows that.
        revoked: subjects of which it knows that.

    """
    for name, at in hub.ended_names():
        if name not in ended:
            hub.engine.note(Ended(name, hub.clock.unix_time(at)))
    for subject, revoked_at in hub.revocations:
        if subject not in revoked:
            hub.engine.note(Revoked(subject, revoked_at))
