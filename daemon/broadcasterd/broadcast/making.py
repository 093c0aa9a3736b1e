"""Making a session: of the kind that goes with the engine."""

from __future__ import annotations

from typing import Protocol

from broadcasterd.broadcast.clock import Clock
from broadcasterd.broadcast.durable_session import DurableSession
from broadcasterd.broadcast.session import Session
from broadcasterd.broadcast.shared_session import SharedSession
from broadcasterd.broadcast.subscribers import Subscribers
from broadcasterd.config import Settings
from broadcasterd.core.reasons import EndReason
from broadcasterd.core.replaylog import ReplayLog
from broadcasterd.engine.port import Engine, is_shared
from broadcasterd.figures.counts import Counts
from broadcasterd.memory.account import Account


class Hub(Protocol):
    """What all sessions of a daemon share."""

    engine: Engine
    settings: Settings
    clock: Clock
    counts: Counts
    subscribers: Subscribers
    logs: Account

    def drop(self, session: Session, reason: EndReason) -> None:
        """Let go of a session and end it."""


def make_session(hub: Hub, name: str, incarnation: str, subject: str | None) -> Session:
    """Return a session that is not open yet.

    Args:
        hub: is to have it.
        name: as in the URL.
        incarnation: names its log in its ids.
        subject: the one on whose account it is opened.

    """
    engine = hub.engine
    log = make_log(hub, incarnation)
    if is_shared(engine):
        return SharedSession(
            name,
            log,
            hub.subscribers,
            engine=engine,
            new_log=lambda incarnation: make_log(hub, incarnation),
            drop=hub.drop,
            settings=hub.settings,
            clock=hub.clock,
            subject=subject,
        )
    if engine.keeps:
        return DurableSession(
            name,
            log,
            hub.subscribers,
            settings=hub.settings,
            clock=hub.clock,
            subject=subject,
            engine=engine,
        )
    return Session(
        name, log, hub.subscribers, settings=hub.settings, clock=hub.clock, subject=subject
    )


def make_log(hub: Hub, incarnation: str) -> ReplayLog:
    """Return a log with the bounds of the settings, on the account of all logs."""
    limits = hub.settings.sessions
    return ReplayLog(
        incarnation=incarnation,
        max_events=limits.max_history_events,
        max_bytes=limits.max_history_bytes,
        max_age=limits.event_ttl,
        account=hub.logs,
        counts=hub.counts,
    )
