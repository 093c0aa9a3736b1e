"""Reads all that is counted, wherever that is, and keeps what rates and recent durations need.

Nothing here is on the way of an event: it looks once a second, and when somebody asks.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping

import trio

from broadcasterd.api.routes import Api, Route
from broadcasterd.api.stats import Boundary, Change, Growth, OfRoute, Stats
from broadcasterd.figures.counts import Cause
from broadcasterd.figures.histogram import Window
from broadcasterd.figures.rates import COARSE_S, FINE_S, WINDOWS_S, Rates, Totals
from broadcasterd.memory.breaker import State, Transition
from broadcasterd.monitor import Monitor
from broadcasterd.server.serve import HttpServer

KEPT_CHANGES = 50
"""Transitions of the breaker that are remembered: a day of trouble, as it recovers in seconds."""

_SERVER_ERROR = 500


class Meter:
    """Every figure of a daemon.

    Args:
        api: answers requests, and counts them.
        server: accepts connections, and counts those.
        monitor: has the figures of memory and of the loop.

    """

    def __init__(self, api: Api, server: HttpServer, monitor: Monitor) -> None:
        self._api = api
        self._hub = api.hub
        self._server = server
        self._monitor = monitor
        self._started_at = time.time()
        self._rates = Rates(trio.current_time())
        counts = self._hub.counts
        self._published, self._fan_out = Window(counts.published), Window(counts.fan_out)
        self._lags = Window(monitor.loop.lags)
        self._routes = {route: Window(of.durations) for route, of in api.requests.items()}
        self._entered: Counter[State] = Counter()
        self._history: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._hub.pressure.watchers.append(self._note_transition)

    async def run(self) -> None:
        """Sample until cancelled."""
        turned_at = trio.current_time()
        while True:
            await trio.sleep(FINE_S)
            now = trio.current_time()
            self._rates.add(self._totals(), now)
            if now - turned_at >= COARSE_S:
                turned_at = now
                for window in (self._published, self._fan_out, self._lags, *self._routes.values()):
                    window.turn()

    def stats(self) -> Stats:
        """Return all figures of this moment."""
        hub, limits = self._hub, self._server.connection_limits
        totals, now = self._totals(), trio.current_time()
        settings = hub.settings
        return Stats(
            vitals=self._monitor.vitals(hub),
            counts=hub.counts,
            sent=hub.subscribers.sent,
            started_at=self._started_at,
            cpu=time.process_time(),
            connections=limits.taken,
            max_connections=settings.limits.max_connections,
            max_sessions=settings.sessions.max_sessions,
            max_streams=settings.sessions.max_subscribers,
            ended=hub.subscribers.ended_by_reason,
            refused=self._refused(),
            failures={
                Boundary.CONNECTION: self._server.failed_connections,
                Boundary.REQUEST: hub.counts.failed_requests,
                Boundary.RESPONSE: self._server.failed_responses,
                Boundary.SESSION: hub.counts.failed_sessions,
                Boundary.STREAM: hub.counts.failed_streams,
            },
            entered=self._entered,
            history=tuple(self._history),
            growth={
                name: Growth(*self._rates.grown(totals, now, seconds))
                for name, seconds in WINDOWS_S.items()
            },
            published=self._published.quantiles(),
            fan_out=self._fan_out.quantiles(),
            lags=self._monitor.loop.lags,
            recent_lags=self._lags.quantiles(),
            routes=[self._of_route(route, window) for route, window in self._routes.items()],
        )

    def _of_route(self, route: Route, window: Window) -> OfRoute:
        return OfRoute(route.method, route.path, self._api.requests[route], window.quantiles())

    def _totals(self) -> Totals:
        counts, sent = self._hub.counts, self._hub.subscribers.sent
        by_status: Counter[int] = Counter()
        for route in self._api.requests.values():
            by_status.update(route.by_status)
        published: Counter[int] = Counter()
        for each in counts.publishes.values():
            published.update(each)
        by_status += published
        return Totals(
            events=counts.events,
            publishes=published.total(),
            deliveries=sent.events,
            delivered_bytes=sent.bytes,
            requests=by_status.total(),
            errors=sum(n for status, n in by_status.items() if status >= _SERVER_ERROR),
            refusals=sum(self._refused().values()),
        )

    def _refused(self) -> Mapping[Cause, int]:
        connections = self._server.connection_limits.refused.total()
        return {**self._hub.counts.refused, Cause.CONNECTIONS: connections}

    def _note_transition(self, transition: Transition) -> None:
        self._entered[transition.after] += 1
        change = Change(time.time(), transition.before, transition.after, transition.used)
        self._history.append(change)
