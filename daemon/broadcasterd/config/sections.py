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
    KeyPrefix,
    Leeway,
    Megabytes,
    MiB,
    Milliseconds,
    Network,
    Origin,
    Port,
    Rate,
    Receiver,
    Replicas,
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
    """Where the daemon listens and what a request may cost.

    Attributes:
        host: the address to listen at; other machines do not reach a loopback one. "localhost":
            127.0.0.1 and ::1; "*" or "::": all, of IPv4 and of IPv6.
        port: the port; 0: the system picks a free one.
        backlog: connections waiting to be accepted; the kernel's somaxconn caps it.
        tls_certificate: PEM, with its chain; serves HTTPS.
        tls_key: PEM; goes with the certificate.
        h2c: HTTP/2 without TLS, to a proxy that begins with its preface.
        cors_origins: pages that may use it: ["https://example.org", "https://*.example.org"],
            ["*"].
        cors_headers: header fields that such pages may send besides the usual ones.
        allowed_hosts: with auth.mode = "none": names it is reached by, beside local ones.
        max_body_bytes: bytes of one request to publish; more is answered 413.
        keep_alive_timeout: seconds that a connection may wait for its next request.
        shutdown_grace: seconds that streams are given to end when the daemon stops.

    """

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
    """How long sessions and events live, and how many of each there may be.

    Attributes:
        session_ttl: seconds without a subscriber or an event until a session expires.
        event_ttl: seconds that an event can be replayed.
        cleanup_interval: seconds between two looks for what has expired.
        max_sessions: sessions at a time.
        max_history_events: events each session keeps for replay.
        max_history_bytes: bytes each session keeps for replay.
        heartbeat_interval: seconds between comments that keep an idle stream alive.
        retry_ms: milliseconds a client waits before it reconnects.
        min_retry_ms: milliseconds: no publisher can have clients wait less.
        max_subscribers: streams at a time, over all sessions.
        max_subscribers_per_session: streams at a time, of one session.
        max_lag_events: events a subscriber may fall behind before it counts as slow.
        slow_consumer: "end" its stream, to be resumed by id, or "skip" what it missed.

    """

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


class EngineSettings(Section, frozen=True, kw_only=True):
    """What keeps sessions and events beyond the process.

    Attributes:
        kind: "memory" keeps nothing, but a restart under systemd hands everything over; "sqlite"
            keeps a file; "redis" has several daemons share sessions and events (docs/redis.md).
            Another one takes a restart.
        durability: answer a publisher once its events are on disk ("commit"), or before
            ("relaxed").
        path: the file of "sqlite", in a directory that is there. Without it: events.sqlite in the
            state directory that systemd gives.
        url: the place of "redis": redis://host, unix:///path, sentinel://host,host/name or
            cluster://host,host. With rediss, sentinels and clusters, it is spoken to over TLS. An
            ACL user stands before an @.
        password_file: the file of that user's password, or of the default user's.
        sentinel_password_file: the file of the password that Sentinels ask for.
        tls_ca: a file of authorities that may vouch for Redis, in PEM, in place of the system's.
        tls_certificate: a file of the certificate that is shown to Redis and to Sentinels, in PEM,
            with its chain.
        tls_key: the file of its key, in PEM.
        prefix: begins every key in Redis. Daemons with the same one share sessions.
        replicas: how many replicas of Redis must have an event before its publisher is answered.
        timeout: after so long a Redis that does not answer counts as lost.

    """

    kind: Literal["memory", "sqlite", "redis"] = "memory"
    durability: Literal["commit", "relaxed"] = "commit"
    path: Path | None = None
    url: Text | None = None
    password_file: Path | None = None
    sentinel_password_file: Path | None = None
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    prefix: KeyPrefix = "broadcasterd"
    replicas: Replicas = 0
    timeout: Seconds = 2.0


class Memory(Section, frozen=True, kw_only=True):
    """When memory counts as short, and when as recovered (a share of `warning_mb`).

    Attributes:
        breaker: shed load when memory is short; false also stops early cleanup, as does
            USE_LEGACY_BROADCASTER=true in the environment.
        warning_mb: MB: above it, histories are shortened.
        critical_mb: MB: above it, publishers and new subscribers are turned away.
        sample_interval: seconds between two measurements.
        recover_below: share of warning_mb; below it, all is well again.

    """

    breaker: bool = True
    warning_mb: Megabytes = 200.0
    critical_mb: Megabytes = 500.0
    sample_interval: Seconds = 1.0
    recover_below: Share = 0.9


class Auth(Section, frozen=True, kw_only=True):
    """Which tokens are believed, and where they may be carried.

    Attributes:
        mode: "jwt", or "none": anyone may do anything (loopback addresses only).
        algorithms: signatures that are accepted; each key needs one that fits it.
        secret: the secret itself; a variable of the environment alone, and no key of a file.
        secret_file: the secret of HS*: at least 32 bytes (HS384: 48, HS512: 64).
        jwks_file: public keys of RS*, PS*, ES* and EdDSA, and secrets with names ("kty": "oct"), as
            RFC 7517 has them.
        previous_secret_ttl: seconds that a secret is good for after another took its place.
        audience: the `aud` that a token must have.
        issuer: the `iss` that a token must have.
        cookie: the cookie that may carry a token.
        allow_query_token: accept ?token=; URLs end up in logs, so prefer tickets.
        leeway: seconds that the clocks of issuer and daemon may be apart.
        metrics_from_loopback: GET /metrics without a token for this machine's own programs, such as
            Prometheus; not where a proxy on it passes that path on.
        i_know_this_is_open: with mode = "none", listen beyond this machine all the same.

    """

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

    Attributes:
        trusted_proxies: networks whose Forwarded, X-Forwarded-For is believed.
        max_connections: connections at a time: each takes a descriptor and some memory.
        max_connections_per_address: connections at a time; without a proxy before it, 100 is
            plenty.
        max_requests_per_connection: requests; the last one closes it, so that load can move
            elsewhere.
        max_head_bytes: bytes of a request line and header fields: they are kept in memory.
        head_timeout: seconds for a whole head, against senders of single bytes.
        body_timeout: seconds for a whole body that is no stream, for the same reason.
        stream_idle_timeout: seconds without a byte of a body that is a stream.
        max_subscribers_per_address: streams at a time, of one address.
        max_subscribers_per_subject: streams at a time, of the tokens of one subject.
        max_sessions_per_subject: open sessions that one subject named first.
        publish_rate: events a second of one subject in the long run; beyond it 429.
        publish_burst: events of one subject at once, after a pause.
        publish_rate_bytes: bytes of events a second of one subject, in the same way.
        publish_burst_bytes: bytes of events of one subject at once, after a pause.
        max_publishing_per_subject: requests that publish, at a time, of one subject.
        max_pending_bytes_per_subject: memory that their bodies take on their way in.
        max_failures_per_minute: bad tokens of one address; beyond it 429.

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

    Attributes:
        name: its name: of letters, digits, "_", "." and "-".
        metric: the figure.
        threshold: in the figure's own unit; or a threshold of memory, as in force.
        hold: how long the figure is there or above until the alert fires.
        clear_below: share of the threshold; below it for so long, the alert is over.
        clear_after: how long it is to be below that.
        severity: info, warning, error or critical: the priority of the record.
        action: notify_team, page_on_call, "journal" for no one else, or a URL.

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
        name="engine_down",
        metric=Watched.ENGINE_DOWN,
        threshold=1.0,
        hold=10.0,
        severity="critical",
        action="page_on_call",
    ),
    AlertRule(
        name="publishes_refused",
        metric=Watched.PUBLISHES_REFUSED_PER_S,
        threshold=0.1,
        hold=300.0,
        action="notify_team",
    ),
    AlertRule(
        name="test_failures",
        metric=Watched.FAILED_TESTS_SHARE,
        threshold=0.05,
        action="notify_team",
    ),
    AlertRule(
        name="hook_performance",
        metric=Watched.HOOKS_SECONDS,
        threshold=5.0,
        action="notify_team",
    ),
)
"""The alerts that there are where nothing else is said."""


class Alerts(Section, frozen=True, kw_only=True):
    """What is told to people, and where their two actions go: to the journal, or a webhook too.

    Attributes:
        interval: seconds between two looks at the figures.
        notify_team: where this action goes: "journal" is its record and no more, or the URL of a
            webhook.
        page_on_call: the same of the action for what cannot wait.
        webhook_key_file: signs what webhooks are sent: 24 bytes or more, or whsec_ and Base64.
        rules: the alerts, instead of those that are shipped; an empty list is none.

    """

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
    """The live page at ``/``.

    Attributes:
        enabled: the live page at /; its figures are for tokens of admins all the same.
        quality_report: past test runs, to be shown there.

    """

    enabled: bool = True
    quality_report: Path | None = None


class Log(Section, frozen=True, kw_only=True):
    """Records of the daemon's own doings: which, and in what form.

    Attributes:
        level: the least that is recorded: debug, info, warning or error.
        format: journal, json or console; auto: journal under systemd, else console.
        file: instead of the journal or standard error. SIGUSR1 has it opened anew, once another
            program has moved it away.

    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "json", "console"] = "auto"
    file: Path | None = None


class Config(Section, frozen=True, kw_only=True):
    """Everything that can be set; `Config()` is the packaged defaults."""

    server: Server = Server()
    sessions: Sessions = Sessions()
    engine: EngineSettings = EngineSettings()
    memory: Memory = Memory()
    auth: Auth = Auth()
    limits: Limits = Limits()
    alerts: Alerts = Alerts()
    dashboard: Dashboard = Dashboard()
    log: Log = Log()
