"""Reads all that is counted, wherever that is, and keeps what rates and recent durations need.

Nothing here is on the way of an event: it looks once a second, and when somebody asks.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

import trio

from broadcasterd.alerts.rules import Alerts, Standing
from broadcasterd.api.routes import ROUTES, Api, Route
from broadcasterd.api.stats import Alert, Boundary, Change, Growth, OfRoute, Stats
from broadcasterd.figures.counts import Cause
from broadcasterd.figures.histogram import Window
from broadcasterd.figures.rates import COARSE_S, FINE_S, WINDOWS_S, Rates, Totals
from broadcasterd.figures.watched import Watched
from broadcasterd.host.quality import Newest
from broadcasterd.memory.breaker import MIB, State, Transition
from broadcasterd.monitor import Monitor
from broadcasterd.server.serve import HttpServer

KEPT_CHANGES = 50
"""Transitions of the breaker that are remembered: a day of trouble, as it recovers in seconds."""

_SERVER_ERROR = 500
_REFUSED = (429, 503)

_RATES = {f"{name}_per_s": name for name in Totals._fields}


_HEALTH = next(route for route in ROUTES if (route.method, route.path) == ("GET", "/health"))


class Meter:
    """Every figure of a daemon.

    Args:
        api: answers requests, and counts them.
        server: accepts connections, and counts those.
        monitor: has the figures of memory and of the loop.
        alerts: how the rules stand.
        quality: the newest test run.

    """

    def __init__(
        self,
        api: Api,
        server: HttpServer,
        monitor: Monitor,
        alerts: Alerts,
        quality: Newest,
    ) -> None:
        self._alerts = alerts
        self._quality = quality
        self._api = api
        self._hub = api.hub
        self._server = server
        self._monitor = monitor
        self._started_at = time.time()
        self._rates = Rates(trio.current_time())
        counts = self._hub.counts
        self._published, self._fan_out = Window(counts.published), Window(counts.fan_out)
        self._lags = Window(monitor.loop.lags)
        self._commits = Window(counts.commits)
        self._routes = {route: Window(of.durations) for route, of in api.requests.items()}
        named = self._published, self._fan_out, self._lags, self._commits
        self._windows = [*named, *self._routes.values()]
        self._entered: Counter[State] = Counter()
        self._history: deque[Change] = deque(maxlen=KEPT_CHANGES)
        self._hub.pressure.watchers.append(self._note_transition)
        self._readings = self._table_of_readings()

    async def run(self) -> None:
        """Sample until cancelled."""
        turned_at = trio.current_time()
        while True:
            await trio.sleep(FINE_S)
            now = trio.current_time()
            self._rates.add(self._totals(), now)
            if now - turned_at >= COARSE_S:
                turned_at = now
                for window in self._windows:
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
            totals=totals,
            growth={
                name: Growth(*self._rates.grown(totals, now, seconds))
                for name, seconds in WINDOWS_S.items()
            },
            published=self._published.quantiles(),
            fan_out=self._fan_out.quantiles(),
            commits=self._commits.quantiles(),
            lags=self._monitor.loop.lags,
            recent_lags=self._lags.quantiles(),
            alerts=[_alert(each, now) for each in self._alerts.standings],
            routes=[self._of_route(route, window) for route, window in self._routes.items()],
        )

    def reading(self, figure: Watched) -> float | None:
        """Return a figure that an alert may watch; ``None`` where it has no value now."""
        if figure in _RATES:
            return self._rate(_RATES[figure])
        return self._readings[figure]()

    def _table_of_readings(self) -> Mapping[Watched, Callable[[], float | None]]:
        hub, monitor, taken = self._hub, self._monitor, self._server.connection_limits
        settings = hub.settings
        return {
            Watched.USED_MB: lambda: monitor.used() / MIB,
            Watched.RSS_MB: lambda: monitor.rss() / MIB,
            Watched.ACCOUNTED_MB: lambda: hub.accounted_bytes / MIB,
            Watched.CLIENTS_MB: lambda: hub.client_bytes / MIB,
            Watched.USED_MB_PER_MINUTE: lambda: monitor.vitals(hub).trend_per_minute,
            Watched.STALLED_PERCENT: lambda: monitor.vitals(hub).stalled_percent,
            Watched.SESSIONS: lambda: len(hub.sessions),
            Watched.STREAMS: lambda: len(hub.subscribers),
            Watched.CONNECTIONS: lambda: taken.taken,
            Watched.SESSIONS_SHARE: lambda: len(hub.sessions) / settings.sessions.max_sessions,
            Watched.STREAMS_SHARE: lambda: len(hub.subscribers) / settings.sessions.max_subscribers,
            Watched.CONNECTIONS_SHARE: lambda: taken.taken / settings.limits.max_connections,
            Watched.LOOP_LAG_MS: lambda: 1000 * monitor.loop.recent_lag(),
            Watched.HEALTH_P99_MS: lambda: _p99_ms(self._routes[_HEALTH]),
            Watched.PUBLISH_P99_MS: lambda: _p99_ms(self._published),
            Watched.FAN_OUT_P99_MS: lambda: _p99_ms(self._fan_out),
            Watched.ENGINE_DOWN: lambda: float(bool(hub.engine.health.why)),
            Watched.ERROR_RATE: self._error_rate,
            Watched.FAILED_TESTS_SHARE: self._failed_tests_share,
            Watched.HOOKS_SECONDS: self._quality.hooks_seconds,
        }

    def _rate(self, name: str) -> float:
        grown, seconds = self._last_minute()
        count: int = getattr(grown, name)
        return count / seconds

    def _error_rate(self) -> float | None:
        grown, _ = self._last_minute()
        return grown.errors / grown.requests if grown.requests else None

    def _failed_tests_share(self) -> float | None:
        passed = self._quality.success_rate()
        return None if passed is None else 1 - passed

    def _last_minute(self) -> tuple[Totals, float]:
        return self._rates.grown(self._totals(), trio.current_time(), WINDOWS_S["1m"])

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
            publishes_refused=sum(published[status] for status in _REFUSED),
        )

    def _refused(self) -> Mapping[Cause, int]:
        connections = self._server.connection_limits.refused.total()
        return {**self._hub.counts.refused, Cause.CONNECTIONS: connections}

    def _note_transition(self, transition: Transition) -> None:
        self._entered[transition.after] += 1
        change = Change(time.time(), transition.before, transition.after, transition.used)
        self._history.append(change)


def _p99_ms(window: Window) -> float | None:
    """Return the quantile in milliseconds, if there was anything."""
    found = window.quantiles()
    return 1000 * found.p99 if found.count else None


def _alert(standing: Standing, now: float) -> Alert:
    rule = standing.rule
    return Alert(
        name=rule.name,
        metric=rule.metric.value,
        value=standing.value,
        threshold=rule.threshold,
        severity=rule.severity,
        firing_s=None if standing.fired_at is None else now - standing.fired_at,
    )
