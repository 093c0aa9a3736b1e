"""Every setting with its default and its kind, table by table of the configuration file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from broadcasterd.config.kinds import (
    AlertAction,
    Algorithm,
    Bytes,
    Count,
    Hold,
    HostName,
    Leeway,
    Megabytes,
    MiB,
    Milliseconds,
    Network,
    Origin,
    Port,
    Rate,
    Receiver,
    RuleName,
    Seconds,
    Secret,
    Share,
    Span,
    Text,
    Threshold,
    Token,
)
from broadcasterd.figures.watched import Watched


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""


class Server(Section, frozen=True, kw_only=True):
    """Where the daemon listens and what a request may cost."""

    host: Text = "127.0.0.1"
    port: Port = 8000
    backlog: Count = 4096
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    h2c: bool = False
    cors_origins: tuple[Origin, ...] = ()
    cors_headers: tuple[Token, ...] = ()
    allowed_hosts: tuple[HostName, ...] = ()
    max_body_bytes: Bytes = MiB
    keep_alive_timeout: Seconds = 75.0
    shutdown_grace: Seconds = 10.0


class Sessions(Section, frozen=True, kw_only=True):
    """How long sessions and events live, and how many of each there may be."""

    session_ttl: Seconds = 3600.0
    event_ttl: Seconds = 600.0
    cleanup_interval: Seconds = 60.0
    max_sessions: Count = 10_000
    max_history_events: Count = 500
    max_history_bytes: Bytes = MiB
    heartbeat_interval: Seconds = 15.0
    retry_ms: Milliseconds = 3000
    min_retry_ms: Milliseconds = 500
    max_subscribers: Count = 15_000
    max_subscribers_per_session: Count = 15_000
    max_lag_events: Count = 500
    slow_consumer: Literal["end", "skip"] = "end"


class Memory(Section, frozen=True, kw_only=True):
    """When memory counts as short, and when as recovered (a share of `warning_mb`)."""

    breaker: bool = True
    warning_mb: Megabytes = 200.0
    critical_mb: Megabytes = 500.0
    sample_interval: Seconds = 1.0
    recover_below: Share = 0.9


class Auth(Section, frozen=True, kw_only=True):
    """Which tokens are believed, and where they may be carried."""

    mode: Literal["jwt", "none"] = "jwt"
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("HS256",)
    secret: Secret | None = None
    secret_file: Path | None = None
    jwks_file: Path | None = None
    previous_secret_ttl: Span = 3600.0
    audience: Text | None = None
    issuer: Text | None = None
    cookie: Token = "broadcaster_token"
    allow_query_token: bool = False
    leeway: Leeway = 30.0
    metrics_from_loopback: bool = False
    i_know_this_is_open: bool = False


class Limits(Section, frozen=True, kw_only=True):
    """What one connection, address or token subject may take, so that none takes it all.

    An address is the client's, behind the proxies of `trusted_proxies`. A request whose token
    names no subject (`sub`) is counted by its address alone.
    """

    trusted_proxies: tuple[Network, ...] = ()
    max_connections: Count = 20_000
    max_connections_per_address: Count = 16_384
    max_requests_per_connection: Count = 10_000
    max_head_bytes: Bytes = 16 * 1024
    head_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    stream_idle_timeout: Seconds = 600.0
    max_subscribers_per_address: Count = 15_000
    max_subscribers_per_subject: Count = 5000
    max_sessions_per_subject: Count = 5000
    publish_rate: Rate = 10_000.0
    publish_burst: Count = 20_000
    publish_rate_bytes: Rate = 32.0 * MiB
    publish_burst_bytes: Bytes = 64 * MiB
    max_publishing_per_subject: Count = 5000
    max_pending_bytes_per_subject: Bytes = 128 * MiB
    max_failures_per_minute: Count = 300


class AlertRule(Section, frozen=True, kw_only=True):
    """A figure that has been at ``threshold`` or above for ``for`` seconds is told to ``action``.

    It is over once the figure has been below ``clear_below`` (a share of the threshold) for
    ``clear_after`` seconds.
    """

    name: RuleName
    metric: Watched
    threshold: Threshold
    hold: Hold = msgspec.field(default=0.0, name="for")
    clear_below: Share = 0.9
    clear_after: Hold = 60.0
    severity: Literal["info", "warning", "error", "critical"] = "warning"
    action: AlertAction = "journal"


SHIPPED_RULES = (
    AlertRule(
        name="memory_warning",
        metric=Watched.USED_MB,
        threshold="memory.warning_mb",
        hold=60.0,
        action="notify_team",
    ),
    AlertRule(
        name="memory_critical",
        metric=Watched.USED_MB,
        threshold="memory.critical_mb",
        severity="critical",
        action="page_on_call",
    ),
    AlertRule(
        name="error_rate",
        metric=Watched.ERROR_RATE,
        threshold=0.01,
        hold=300.0,
        action="notify_team",
    ),
    AlertRule(
        name="health_latency",
        metric=Watched.HEALTH_P99_MS,
        threshold=100.0,
        hold=300.0,
        action="notify_team",
    ),
    AlertRule(
        name="loop_lag",
        metric=Watched.LOOP_LAG_MS,
        threshold=100.0,
        hold=300.0,
        action="notify_team",
    ),
    AlertRule(
        name="publishes_refused",
        metric=Watched.PUBLISHES_REFUSED_PER_S,
        threshold=0.1,
        hold=300.0,
        action="notify_team",
    ),
)
"""The alerts that there are where nothing else is said."""


class Alerts(Section, frozen=True, kw_only=True):
    """What is told to people, and where their two actions go: to the journal, or a webhook too."""

    interval: Seconds = 1.0
    notify_team: Receiver = "journal"
    page_on_call: Receiver = "journal"
    webhook_key_file: Path | None = None
    rules: tuple[AlertRule, ...] = SHIPPED_RULES

    def receiver(self, action: str) -> str | None:
        """Return the URL that an action goes to; ``None`` where the journal is all."""
        receiver: str = getattr(self, action) if action in _TO_PEOPLE else action
        return None if receiver == "journal" else receiver


_TO_PEOPLE = ("notify_team", "page_on_call")

MAX_RULES = 100
"""Each is looked at every second, and each may have a webhook of its own."""


def receivers(alerts: Alerts) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each setting that has a URL."""
    for action in _TO_PEOPLE:
        if (url := alerts.receiver(action)) is not None:
            yield f"alerts.{action}", url
    for n, rule in enumerate(alerts.rules):
        if rule.action not in _TO_PEOPLE and (url := alerts.receiver(rule.action)) is not None:
            yield f"alerts.rules[{n}].action", url


class Dashboard(Section, frozen=True, kw_only=True):
    """The live page at ``/``."""

    enabled: bool = True
    quality_report: Path | None = None


class Log(Section, frozen=True, kw_only=True):
    """Records of the daemon's own doings: which, and in what form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "json", "console"] = "auto"
    file: Path | None = None


class Config(Section, frozen=True, kw_only=True):
    """Everything that can be set; `Config()` is the packaged defaults."""

    server: Server = Server()
    sessions: Sessions = Sessions()
    memory: Memory = Memory()
    auth: Auth = Auth()
    limits: Limits = Limits()
    alerts: Alerts = Alerts()
    dashboard: Dashboard = Dashboard()
    log: Log = Log()
