"""The configuration: all settings, and how a file and the environment set them.

This module owns every setting with its default and unit, and the checks that need no other part of
the system. It opens nothing but the configuration file. The command line calls `load`; everything
else is handed the finished, immutable `Config`.
"""

import difflib
import ipaddress
import json
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta
from typing_extensions import override

from broadcasterd import former_names
from broadcasterd.figures.watched import Watched
from broadcasterd.quantities import BYTES, SECONDS, quantity

# An error message takes the description for what was expected.
Seconds = Annotated[
    float, Meta(gt=0, description='a number of seconds above 0, or a duration like "10m"')
]
# A browser that is told of more than a day would never come back in practice.
Milliseconds = Annotated[
    int,
    Meta(
        gt=0,
        le=86_400_000,
        description='milliseconds from 1 to 86400000, which is a day, or a duration like "3s"',
    ),
]
Megabytes = Annotated[
    float, Meta(gt=0, description='a number of megabytes above 0, or a size like "1GiB"')
]
Bytes = Annotated[
    int, Meta(gt=0, description='a whole number of bytes above 0, or a size like "64KiB"')
]
Count = Annotated[int, Meta(gt=0, description="a whole number above 0")]
Share = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
# Anything slower would have a client wait for hours, or for ever.
Rate = Annotated[float, Meta(ge=0.001, description="a number per second from 0.001")]
Leeway = Annotated[
    float,
    Meta(ge=0, le=300, description='a number of seconds from 0 to 300, or a duration like "1m"'),
]
Span = Annotated[
    float, Meta(ge=0, description='a number of seconds from 0, or a duration like "10m"')
]
Port = Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")]
Text = Annotated[str, Meta(min_length=1, description="a string that is not empty")]
# As a browser sends it, but for the port and for capitals. With a path, a trailing slash, or
# letters that are not ASCII, it would never match, so it is refused.
Origin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|https?://((\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)\Z",
        description='origins like "https://example.org" or "https://*.example.org"',
    ),
]
Token = Annotated[
    str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z", description="names of HTTP, like X-Name")
]
# In lower case, as they are compared; a port does not matter.
HostName = Annotated[
    str, Meta(pattern=r"^(\*|[a-z0-9._-]+)$", description='host names like "events.example.org"')
]
# Checked by `check_pairs`: a pattern could not tell an address from a typing error.
Network = Annotated[str, Meta(min_length=2, description='networks like "10.0.0.0/8" or "::1"')]
RuleName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z",
        description="a name of up to 64 letters, digits, _, . and -",
    ),
]
# Whether it is a URL that can be asked is seen when the webhooks are made.
Receiver = Annotated[
    str,
    Meta(
        pattern=r"^(journal|https?://\S+)\Z",
        description='"journal", or a URL like "https://example.org/hook"',
    ),
]
AlertAction = Annotated[
    str,
    Meta(
        pattern=r"^(journal|notify_team|page_on_call|https?://\S+)\Z",
        description=(
            '"journal", "notify_team", "page_on_call", or a URL like "https://example.org/hook"'
        ),
    ),
]
Threshold = Annotated[
    Annotated[float, Meta(gt=0)] | Literal["memory.warning_mb", "memory.critical_mb"],
    Meta(description='a number above 0, "memory.warning_mb" or "memory.critical_mb"'),
]
Hold = Annotated[
    float, Meta(ge=0, description='a number of seconds from 0, or a duration like "5m"')
]
# "none" is missing on purpose: a token that nobody signed proves nothing.
Algorithm = Literal[
    "HS256", "HS384", "HS512",
    "RS256", "RS384", "RS512",
    "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512",
    "EdDSA",
]  # fmt: skip

MiB = 1024 * 1024


class ConfigError(ValueError):
    """The configuration cannot be used. One line per problem: key, value, what was expected."""


class Secret:
    """A variable's value that does not show itself.

    Attributes:
        content: its bytes, as they are in the environment.
    """

    __slots__ = ("content",)

    def __init__(self, text: str) -> None:
        self.content = os.fsencode(text)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.content == other.content

    @override
    def __hash__(self) -> int:
        return hash(self.content)

    @override
    def __repr__(self) -> str:
        return "Secret()"


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


class Settings:
    """The configuration in force: the one cell that everybody reads, each time that it matters.

    The daemon alone puts another configuration in, on a reload.

    Attributes:
        config: the whole.
        server, sessions, limits: its sections that are read while requests are served.
    """

    __slots__ = ("auth", "config", "limits", "server", "sessions")

    def __init__(self, config: Config) -> None:
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Put another configuration in force."""
        self.config = config
        self.server = config.server
        self.sessions = config.sessions
        self.auth = config.auth
        self.limits = config.limits


# --- reading it ------------------------------------------------------------------------------

ENVIRONMENT_PREFIX = "BROADCASTERD_"

_NO_SETTINGS = tuple(f"{ENVIRONMENT_PREFIX}{name}" for name in ("CONFIG", "URL", "TOKEN", "TEST_"))
"""Of the command line, and of the project's own tests."""

_QUANTITIES: Mapping[object, tuple[Mapping[str, float], float]] = {
    Seconds: (SECONDS, 1),
    Leeway: (SECONDS, 1),
    Span: (SECONDS, 1),
    Hold: (SECONDS, 1),
    Milliseconds: (SECONDS, 0.001),
    Bytes: (BYTES, 1),
    Megabytes: (BYTES, MiB),
}
"""Kinds that take a text with units: those, and the one that the kind's number is in."""

_SECTIONS: Mapping[str, Section] = {
    field.name: getattr(Config(), field.name) for field in msgspec.structs.fields(Config)
}
_TRUTH = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(
    ("false", "0", "no", "off"), False
)
# Their values may be secrets, or hold one (a webhook's URL): a message must not repeat them.
_UNPRINTABLE = frozenset(
    {"auth.secret", "auth.secret_file", "alerts.notify_team", "alerts.page_on_call"}
)

SECRET_VARIABLE = "BROADCASTERD_AUTH__SECRET"  # noqa: S105 (a name)

ENVIRONMENT_ONLY: Mapping[str, str] = {"auth.secret": "auth.secret_file"}
"""Keys that no file may have, since files are read and copied by many; the key that it may have."""


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the file, let the environment override it, and check the whole.

    Args:
        path: the file; without one, the file that `BROADCASTERD_CONFIG` names; without that, the
            packaged defaults.
        environ: `BROADCASTERD_<SECTION>__<KEY>` overrides a key; `USE_LEGACY_BROADCASTER=true`
            switches memory management off, whatever `memory.breaker` says.

    Raises:
        ConfigError: naming every problem that was found, not only the first.
    """
    if path is None and (named := environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")):
        path = Path(named)
    return _build(_read(path) if path is not None else {}, environ)


def from_mapping(tables: Mapping[str, object]) -> Config:
    """Make a configuration of what a TOML parser returns, as `load` does.

    Raises:
        ConfigError: as `load` does.
    """
    return _build(tables, {})


def check_exposure(config: Config) -> None:
    """Refuse to start a daemon that anyone could reach without proving who they are.

    Where tokens are asked for, the keys that verify them are checked when they are read.

    Raises:
        ConfigError: no tokens are asked for, and the address is reachable from other machines.
    """
    if config.auth.mode == "jwt" or config.auth.i_know_this_is_open:
        return
    if not is_loopback(config.server.host):
        raise ConfigError(
            f'server.host = "{config.server.host}": expected a loopback address (127.0.0.1, ::1,'
            ' localhost), because auth.mode = "none" lets everyone in; if that is meant, set'
            " auth.i_know_this_is_open = true"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by the name or the address itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Draft:
    """The values set so far, by section and key, and every problem met on the way."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
        self.problems: list[str] = []

    def take(self, section: str, key: str, value: object, *, variable: str | None = None) -> None:
        """Convert one value to its field's type; `variable` is the environment's name of it."""
        name, kind = f"{section}.{key}", _kinds(section)[key]
        if name == "alerts.rules":
            self._take_rules(name, value, variable)
        else:
            self._put(self.values[section], key, value, kind, name=name, variable=variable)

    def _put(
        self,
        into: dict[str, object],
        key: str,
        value: object,
        kind: object,
        *,
        name: str,
        variable: str | None = None,
    ) -> None:
        """Convert a value and put it where it belongs; `name` is that of a problem with it."""
        try:
            meant = value if variable is None else _parse(str(value), kind)
            if isinstance(meant, str) and kind in _QUANTITIES:
                meant = _in_units(meant, *_QUANTITIES[kind])
            taken: object = msgspec.convert(
                meant, type=kind, strict=variable is None, dec_hook=_to_own_type
            )
            if isinstance(taken, float) and not math.isfinite(taken):
                raise msgspec.ValidationError("Expected a finite number")  # noqa: TRY301
        except msgspec.ValidationError as error:
            shown = "" if _is_secret(name) else f" = {json.dumps(value, default=str)}"
            source = f" (from {variable})" if variable else ""
            hint = _nearest(str(value), Watched) if kind is Watched else ""
            self.problems.append(f"{name}{shown}{source}: {_expectation(kind, error)}{hint}")
        else:
            into[key] = taken

    def _take_rules(self, name: str, value: object, variable: str | None) -> None:
        """Convert the rules for alerts, table by table, so that a problem names its key."""
        before = len(self.problems)
        source = f" (from {variable})" if variable else ""
        try:
            tables = value if variable is None else json.loads(str(value))
        except json.JSONDecodeError as error:
            self.problems.append(f"{name}{source}: expected JSON: {error}")
            return
        if not isinstance(tables, list) or not all(isinstance(each, Mapping) for each in tables):
            self.problems.append(f"{name}{source}: expected tables, each written [[{name}]]")
            return
        rules = [self._rule(f"{name}[{n}]", table) for n, table in enumerate(tables)]
        names = [str(rule.get("name")) for rule in rules]
        if twice := sorted({each for each in names if names.count(each) > 1}):
            self.problems.append(f'{name}{source}: expected one of each name, has two "{twice[0]}"')
        if len(rules) > MAX_RULES:
            self.problems.append(f"{name}{source}: expected {MAX_RULES} at most, has {len(rules)}")
        if len(self.problems) == before:
            self.values["alerts"]["rules"] = tuple(AlertRule(**rule) for rule in rules)

    def _rule(self, name: str, table: Mapping[str, object]) -> dict[str, Any]:
        """Return the fields of one rule by their names here; those with a problem are missing."""
        fields = {field.encode_name: field for field in msgspec.structs.fields(AlertRule)}
        taken: dict[str, Any] = {}
        for key, value in table.items():
            if field := fields.get(key):
                self._put(taken, field.name, value, field.type, name=f"{name}.{key}")
            else:
                self.problems.append(f"{name}.{key}: unknown key{_nearest(key, fields)}")
        for key, field in fields.items():
            if field.required and key not in table:
                self.problems.append(f"{name}.{key}: expected {_words(field.type)}")
        return taken

    def finish(self) -> Config:
        """Make the configuration, unless there was a problem."""
        if self.problems:
            raise ConfigError("\n".join(self.problems))
        sections = {
            section: msgspec.structs.replace(defaults, **self.values[section])
            for section, defaults in _SECTIONS.items()
        }
        return msgspec.structs.replace(Config(), **sections)


def _build(tables: Mapping[str, object], environ: Mapping[str, str]) -> Config:
    draft = _Draft()
    _take_tables(draft, tables)
    _take_environment(draft, environ)
    config = draft.finish()
    check_pairs(config)
    return config


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _take_tables(draft: _Draft, tables: Mapping[str, object]) -> None:
    for section, table in tables.items():
        if section in former_names.KEYS:
            draft.problems.append(f"{section}: here it is {former_names.KEYS[section]}")
        elif at_home := [name for name in _SECTIONS if section in _kinds(name)]:
            words = " or ".join(f"[{name}]" for name in at_home)
            draft.problems.append(f"{section}: expected in a section: {words}")
        elif section not in _SECTIONS:
            draft.problems.append(f"{section}: unknown section{_nearest(section, _SECTIONS)}")
        elif not isinstance(table, Mapping):
            draft.problems.append(f"{section}: expected a table, written [{section}]")
        else:
            for key, value in table.items():
                if instead := ENVIRONMENT_ONLY.get(f"{section}.{key}"):
                    draft.problems.append(
                        f"{section}.{key}: no key of a file; expected {instead}, or"
                        f" {_variable(section, key)} in the environment"
                    )
                elif key in _kinds(section):
                    draft.take(section, key, value)
                else:
                    hint = _nearest(key, _kinds(section))
                    if key in former_names.KEYS:
                        hint = f"; here it is {former_names.KEYS[key]}"
                    draft.problems.append(f"{section}.{key}: unknown key{hint}")


def _take_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    known = {
        _variable(section, key): (section, key) for section in _SECTIONS for key in _kinds(section)
    }
    for variable, text in environ.items():
        if variable in known:
            section, key = known[variable]
            draft.take(section, key, text, variable=variable)
        elif variable in former_names.VARIABLES:
            draft.problems.append(f"{variable}: here it is {former_names.VARIABLES[variable]}")
        elif variable.startswith(ENVIRONMENT_PREFIX) and not variable.startswith(_NO_SETTINGS):
            draft.problems.append(f"{variable}: no setting{_nearest_variable(variable, known)}")

    legacy = environ.get("USE_LEGACY_BROADCASTER", "").strip().lower()
    if legacy and legacy not in _TRUTH:
        draft.problems.append(f'USE_LEGACY_BROADCASTER = "{legacy}": expected true or false')
    elif legacy and _TRUTH[legacy]:
        draft.values["memory"]["breaker"] = False


def check_pairs(config: Config) -> None:
    """Refuse settings that do not go together.

    Raises:
        ConfigError: naming two that do not.
    """
    memory, server, limits, log = config.memory, config.server, config.limits, config.log
    for name, url in receivers(config.alerts):
        if not _can_be_asked(url):
            raise ConfigError(f'{name}: expected a URL like "https://example.org/hook"')
    if log.file is not None and log.format == "journal":
        raise ConfigError(
            f'log.file = "{log.file}": expected log.format = "json" or "console" beside it'
        )
    for network in limits.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f'limits.trusted_proxies = "{network}": {error}') from error
    if memory.warning_mb >= memory.critical_mb:
        raise ConfigError(
            f"memory.warning_mb = {memory.warning_mb:g}: expected less than"
            f" memory.critical_mb = {memory.critical_mb:g}"
        )
    if (server.tls_certificate is None) != (server.tls_key is None):
        alone, absent = ("tls_certificate", "tls_key")[:: 1 if server.tls_certificate else -1]
        raise ConfigError(
            f'server.{alone} = "{getattr(server, alone)}": expected server.{absent} beside it'
        )


def _can_be_asked(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port, or an address of IPv6, that is none
        return False


# --- types and their texts -------------------------------------------------------------------


def _is_secret(name: str) -> bool:
    return name in _UNPRINTABLE or (name.startswith("alerts.rules") and name.endswith(".action"))


def _kinds(section: str) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(_SECTIONS[section])}


def _variable(section: str, key: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{section}__{key}".upper()


def _bare(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _parse(text: str, kind: object) -> object:
    """Return an environment variable's text as TOML would have it; msgspec reads numbers."""
    kind = _bare(kind)
    if kind is bool:
        return _TRUTH.get(text.strip().lower(), text)
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if not text and type(None) in get_args(kind):
        return None
    return text


def _in_units(text: str, units: Mapping[str, float], unit: float) -> float | str:
    """Return a text with units as the number that its field takes; any other text as it is."""
    amount = quantity(text, units)
    if amount is None:
        return text
    number = amount / unit
    return round(number) if math.isclose(number, round(number)) else number


def _to_own_type(kind: type, value: object) -> Path | Secret:
    """Let msgspec read the two types here that it does not know."""
    if isinstance(value, str) and value:
        return Secret(value) if kind is Secret else Path(value)
    raise ValueError("Expected a path")


def _expectation(kind: object, error: Exception) -> str:
    """Say what was expected: in the type's own words, or else in the parser's."""
    if words := _words(kind):
        return f"expected {words}"
    return str(error).replace("`", "")


def _words(kind: object) -> str:
    if kind is bool:
        return "true or false"
    if kind is Path:
        return "a path"
    if kind is Watched or get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind) or Watched)}"
    if get_origin(kind) is Annotated and (described := get_args(kind)[1].description):
        return str(described)
    if get_origin(kind) is tuple and (elements := _words(get_args(kind)[0])):
        return f"a list of {elements.removeprefix('one of ')}"
    # An optional value's words are those of the value.
    return next((words for inner in get_args(kind) if (words := _words(inner))), "")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _nearest_variable(variable: str, known: Iterable[str]) -> str:
    """Return a hint: the one with as many underscores as there should be, or a similar one."""
    by_text = {name.removeprefix(ENVIRONMENT_PREFIX).replace("__", "_"): name for name in known}
    text = variable.removeprefix(ENVIRONMENT_PREFIX).replace("__", "_")
    near = difflib.get_close_matches(text, by_text, n=1)
    return f" (did you mean {by_text[near[0]]}?)" if near else ""
