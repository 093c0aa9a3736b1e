"""The task that looks at the rules, and tells what changes: in the log, and by webhooks."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

import structlog
import trio

from broadcasterd.alerts.notice import action_name, notice, shown
from broadcasterd.alerts.rules import Alerts, Change, Rule
from broadcasterd.alerts.webhooks import Webhooks
from broadcasterd.config import Settings
from broadcasterd.figures.watched import Watched

log = structlog.stdlib.get_logger(__name__)

MIN_INTERVAL_S = 0.01
"""Settings may ask for less, which would keep a core busy."""


class Watch:
    """Has the rules of the configuration looked at, for as long as it runs.

    Args:
        settings: those in force.
        alerts: how the rules stand.
        webhooks: sends what is to be told beyond the log.
        read: returns a figure of this moment; ``None`` where it has no value.
        memory: returns the thresholds of warning and of the breaker that are in force, megabytes.
        daemon: names this daemon to people.

    """

    def __init__(
        self,
        settings: Settings,
        alerts: Alerts,
        webhooks: Webhooks,
        *,
        read: Callable[[Watched], float | None],
        memory: Callable[[], tuple[float, float]],
        daemon: str,
    ) -> None:
        self._settings = settings
        self._alerts = alerts
        self._webhooks = webhooks
        self._read = read
        self._memory = memory
        self._daemon = daemon
        self._alerts.replace(self._rules(), trio.current_time())

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await trio.sleep(max(self._settings.config.alerts.interval, MIN_INTERVAL_S))
            self._tell(self._alerts.look(self._read, trio.current_time()))

    def reconfigure(self) -> None:
        """Go on with the rules that are in force now."""
        self._tell(self._alerts.replace(self._rules(), trio.current_time()))

    def _rules(self) -> list[Rule]:
        warning_mb, critical_mb = self._memory()
        return [
            Rule.of(rule, warning_mb=warning_mb, critical_mb=critical_mb)
            for rule in self._settings.config.alerts.rules
        ]

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            rule = change.rule
            fields = {
                "alert": rule.name,
                "metric": rule.metric.value,
                "value": None if change.value is None else shown(change.value),
                "threshold": shown(rule.threshold),
                "severity": rule.severity,
                "action": action_name(rule.action),
            }
            if change.is_firing:
                tell: Callable[..., None] = getattr(log, rule.severity)
                tell("alert firing", **fields)
            else:
                log.info("alert resolved", **fields, lasted_s=round(change.lasted, 1))
            if (url := self._settings.config.alerts.receiver(rule.action)) is not None:
                name = f"msg_{secrets.token_hex(12)}"
                news = notice(change, name=name, daemon=self._daemon, at=time.time())
                self._webhooks.send(url, news)
