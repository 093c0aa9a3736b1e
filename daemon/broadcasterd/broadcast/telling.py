"""Telling an engine, little by little, what it does not know: after a handover, or a loss."""

from __future__ import annotations

from collections.abc import Container, Iterable

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
        self._names_told = hub.engine.generation  # whoever takes it up tells the first of names

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
        if self._names_told != engine.generation:
            tell_ended(self._hub)
            tell_revoked(self._hub, self._hub.revocations)
            self._names_told = engine.generation
        self._told = engine.generation
        return True


def tell_ended(hub: Hub, known: Container[str] = ()) -> None:
    """Tell the engine which sessions were closed, but for those of which it knows that."""
    for name, at in hub.absent.ended():
        if name not in known:
            hub.engine.note(Ended(name, hub.clock.unix_time(at)))


def tell_revoked(hub: Hub, revoked: Iterable[tuple[str, float]]) -> None:
    """Tell the engine that subjects were revoked, and when."""
    hub.engine.note(*(Revoked(subject, at) for subject, at in revoked))
