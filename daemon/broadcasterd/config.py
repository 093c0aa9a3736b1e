"""The configuration: all settings, and how a file and the environment set them.

This module owns every setting with its default and unit, and the checks that need no other part of
the system. It opens nothing but the configuration file. The command line calls `load`; everything
else is handed the finished, immutable `Config`.
"""

import difflib
import ipaddress
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from broadcasterd import former_names
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
AlertAction = Annotated[str, Meta(pattern=r"^(journal|https?://\S+)$")]
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
    """Where `metric` (by default the one called `name`) rises above `threshold`, do `action`."""

    name: Text
    metric: Text | None = None
    threshold: float
    action: AlertAction = "journal"


class Alerts(Section, frozen=True, kw_only=True):
    """The people to tell when a number gets too high."""

    rules: tuple[AlertRule, ...] = ()


class Log(Section, frozen=True, kw_only=True):
    """Records of the daemon's own doings: which, and in what form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "journal", "json", "console"] = "auto"


class Config(Section, frozen=True, kw_only=True):
    """Everything that can be set; `Config()` is the packaged defaults."""

    server: Server = Server()
    sessions: Sessions = Sessions()
    memory: Memory = Memory()
    auth: Auth = Auth()
    limits: Limits = Limits()
    alerts: Alerts = Alerts()
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
_UNPRINTABLE = frozenset({"auth.secret_file", "alerts.rules"})


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
    if not _is_loopback(config.server.host):
        raise ConfigError(
            f'server.host = "{config.server.host}": expected a loopback address (127.0.0.1, ::1,'
            ' localhost), because auth.mode = "none" lets everyone in; if that is meant, set'
            " auth.i_know_this_is_open = true"
        )


class _Draft:
    """The values set so far, by section and key, and every problem met on the way."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, object]] = {section: {} for section in _SECTIONS}
        self.problems: list[str] = []

    def take(self, section: str, key: str, value: object, *, variable: str | None = None) -> None:
        """Convert one value to its field's type; `variable` is the environment's name of it."""
        name = f"{section}.{key}"
        kind = _kinds(section)[key]
        try:
            meant = value if variable is None else _parse(str(value), kind)
            if isinstance(meant, str) and kind in _QUANTITIES:
                meant = _in_units(meant, *_QUANTITIES[kind])
            taken: object = msgspec.convert(
                meant, type=kind, strict=variable is None, dec_hook=_to_path
            )
            if isinstance(taken, float) and not math.isfinite(taken):
                raise msgspec.ValidationError("Expected a finite number")  # noqa: TRY301
        except (msgspec.ValidationError, json.JSONDecodeError) as error:
            shown = "" if name in _UNPRINTABLE else f" = {json.dumps(value, default=str)}"
            source = f" (from {variable})" if variable else ""
            self.problems.append(f"{name}{shown}{source}: {_expectation(kind, error)}")
        else:
            self.values[section][key] = taken

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
                if key in _kinds(section):
                    draft.take(section, key, value)
                else:
                    hint = _nearest(key, _kinds(section))
                    if key in former_names.KEYS:
                        hint = f"; here it is {former_names.KEYS[key]}"
                    draft.problems.append(f"{section}.{key}: unknown key{hint}")


def _take_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    known = {
        f"{ENVIRONMENT_PREFIX}{section}__{key}".upper(): (section, key)
        for section in _SECTIONS
        for key in _kinds(section)
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
    memory, server, limits = config.memory, config.server, config.limits
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


# --- types and their texts -------------------------------------------------------------------


def _kinds(section: str) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(_SECTIONS[section])}


def _bare(kind: object) -> object:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _parse(text: str, kind: object) -> object:
    """Return an environment variable's text as TOML would have it; msgspec reads numbers."""
    kind = _bare(kind)
    if kind is bool:
        return _TRUTH.get(text.strip().lower(), text)
    if get_origin(kind) is tuple:
        if get_args(kind)[0] is AlertRule:
            return json.loads(text)
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


def _to_path(kind: type, value: object) -> Path:
    """Let msgspec read paths, the one type here that it does not know."""
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("Expected a path")


def _expectation(kind: object, error: Exception) -> str:
    """Say what was expected: in the type's own words, or else in the parser's."""
    if words := _words(kind):
        return f"expected {words}"
    if isinstance(error, json.JSONDecodeError):
        return f"expected JSON: {error}"
    return str(error).replace("`", "")


def _words(kind: object) -> str:
    if kind is bool:
        return "true or false"
    if kind is Path:
        return "a path"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
