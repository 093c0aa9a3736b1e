"""Where the Redis servers are that take writes: at one address, behind Sentinels, or in a Cluster.

What a URL of the settings means is decided here, and nowhere else.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import trio
from coredis.connection import (
    BaseConnection,
    TCPConnection,
    TCPLocation,
    UnixDomainSocketConnection,
    UnixDomainSocketLocation,
)
from coredis.exceptions import AuthenticationError, RedisError

from broadcasterd.config import ConfigError, EngineSettings
from broadcasterd.engine.redis.wire import SLOTS

PORT, SENTINEL_PORT = 6379, 26379

Location = TCPLocation | UnixDomainSocketLocation

EXPECTED = (
    'expected "redis://host:6379", "unix:///path", "sentinel://host,host/name" or'
    ' "cluster://host,host"; with rediss, sentinels or clusters over TLS'
)

_SCHEME = re.compile(r"(redis|sentinel|cluster)(s?)|unix")


class NotFound(Exception):  # noqa: N818 (what they are)
    """Nobody says where the servers are that take writes."""


@dataclass(frozen=True, slots=True)
class Primary:
    """A server that takes writes, and the slots that are its own."""

    location: Location
    slots: Sequence[range] = (range(SLOTS),)


class Dialer:
    """Makes connections: to Redis, each with the same credentials, and to Sentinels with theirs.

    Args:
        settings: those of the engine; the files that they name are read.
        user: the ACL user, if not the default one.
        db: the number of the database.
        is_tls: whether to use TLS.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.

    """

    def __init__(
        self, settings: EngineSettings, user: str | None, db: int, *, is_tls: bool
    ) -> None:
        self.timeout = settings.timeout
        password = read_password("password_file", settings.password_file)
        of_sentinels = read_password("sentinel_password_file", settings.sentinel_password_file)
        self._options: dict[str, Any] = {
            "stream_timeout": settings.timeout,
            "connect_timeout": settings.timeout,
            "ssl_context": _context(settings) if is_tls else None,
        }
        self._to_redis: Mapping[str, Any] = {"username": user, "password": password, "db": db}
        self._to_sentinel: Mapping[str, Any] = {"password": of_sentinels, "db": None}

    def connection(self, location: Location, *, is_sentinel: bool = False) -> BaseConnection:
        """Return a connection that is not open yet."""
        options = {**self._options, **(self._to_sentinel if is_sentinel else self._to_redis)}
        if isinstance(location, UnixDomainSocketLocation):
            del options["ssl_context"]
            return UnixDomainSocketConnection(location, **options)
        return TCPConnection(location, socket_keepalive=True, **options)

    async def ask(
        self, location: Location, command: bytes, *arguments: str, is_sentinel: bool = False
    ) -> Any:  # noqa: ANN401 (what RESP has)
        """Return a server's answer to one command, on a connection of its own.

        Raises:
            NotFound: it does not answer, or refuses.

        """
        answer, problem = None, None
        connection = self.connection(location, is_sentinel=is_sentinel)
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(connection.run)
                    answer = await connection.create_request(command, *arguments, decode=True)
                except (RedisError, OSError) as error:
                    problem = error
                nursery.cancel_scope.cancel()
        finally:
            let_go(connection)
        if problem is not None:
            raise NotFound(str(problem)) from problem
        return answer


def let_go(connection: BaseConnection) -> None:
    """Close what coredis leaves open of a connection that was not made, or not awaited."""
    for stream in (
        connection._write_buffer_in,  # noqa: SLF001
        connection._write_buffer_out,  # noqa: SLF001
        connection._push_message_buffer_in,  # noqa: SLF001
        connection._push_message_buffer_out,  # noqa: SLF001
        connection._streamed_message_buffer_in,  # noqa: SLF001
        connection._streamed_message_buffer_out,  # noqa: SLF001
    ):
        stream.close()


class Place(Protocol):
    """Knows where the servers are that take writes."""

    @property
    def is_cluster(self) -> bool:
        """Whether they are several, each with slots of its own."""

    async def find(self) -> Sequence[Primary]:
        """Return them.

        Raises:
            NotFound: nobody says.

        """


@dataclass(frozen=True, slots=True)
class Fixed:
    """One server, at an address."""

    location: Location
    is_cluster = False

    async def find(self) -> Sequence[Primary]:
        """Return it."""
        await trio.lowlevel.checkpoint()
        return (Primary(self.location),)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """One server at a time, which Sentinels name."""

    dialer: Dialer
    sentinels: Sequence[TCPLocation]
    name: str
    is_cluster = False

    async def find(self) -> Sequence[Primary]:
        """Ask one after the other."""
        why = "no Sentinel answers"
        for sentinel in self.sentinels:
            try:
                address = await self.dialer.ask(
                    sentinel, b"SENTINEL GET-MASTER-ADDR-BY-NAME", self.name, is_sentinel=True
                )
            except NotFound as refused:
                if isinstance(refused.__cause__, AuthenticationError):
                    why = "the Sentinels do not take the password"
                continue
            if address:
                return (Primary(TCPLocation(address[0], int(address[1]))),)
            why = f"the Sentinels know of no primary that is named {self.name}"
        raise NotFound(why)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Several servers, each with slots of its own; any of them knows the others."""

    dialer: Dialer
    nodes: Sequence[TCPLocation]
    is_cluster = True

    async def find(self) -> Sequence[Primary]:
        """Ask one after the other."""
        for node in self.nodes:
            try:
                answer = await self.dialer.ask(node, b"CLUSTER SLOTS")
            except NotFound:
                continue
            slots: dict[TCPLocation, list[range]] = {}
            for first, last, primary, *_ in answer:
                host = primary[0] or node.host  # none is: as it was asked
                location = TCPLocation(host, int(primary[1]))
                slots.setdefault(location, []).append(range(first, last + 1))
            if slots:
                return [Primary(location, ranges) for location, ranges in slots.items()]
        raise NotFound("no node of the Cluster answers")


def place_of(settings: EngineSettings) -> tuple[Place, Dialer]:
    """Return where the servers of the settings are, and what connects to them.

    Raises:
        ConfigError: the URL has no known form, or a file cannot be used.

    """
    try:
        url = _Url(settings.url or "")
    except ValueError:
        raise ConfigError(f"engine.url: {EXPECTED}") from None
    dialer = Dialer(settings, url.user, url.db, is_tls=url.is_tls)
    place: Place
    if url.kind == "sentinel":
        place = Sentinels(dialer, url.locations(SENTINEL_PORT), url.path)
    elif url.kind == "cluster":
        place = Cluster(dialer, url.locations(PORT))
    elif url.kind == "redis":
        place = Fixed(url.locations(PORT)[0])
    else:
        place = Fixed(UnixDomainSocketLocation(f"/{url.path}"))
    return place, dialer


class _Url:
    """The parts of a URL.

    Raises:
        ValueError: it has no known form.
        ConfigError: it has a password.

    """

    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        scheme = _SCHEME.fullmatch(parts.scheme)
        if scheme is None or parts.fragment:
            raise ValueError(text)
        self.kind, self.is_tls = scheme[1] or "unix", bool(scheme[2])
        user, _, hosts = parts.netloc.rpartition("@")
        user, _, password = user.partition(":")
        if password:
            raise ConfigError("engine.url: expected no password in it, but engine.password_file")
        self.user = unquote(user) or None
        self.path = parts.path.strip("/")
        self.db = int(parse_qs(parts.query).get("db", ["0"])[0])
        self._hosts = [] if self.kind == "unix" else [*map(_address, hosts.split(","))]
        if self.kind == "redis" and self.path:
            self.db, self.path = int(self.path), ""
        has_path = self.kind in {"sentinel", "unix"}
        has_many = self.kind in {"sentinel", "cluster"}
        if (
            has_path != bool(self.path)
            or (len(self._hosts) > 1 and not has_many)
            or (self.kind == "cluster" and self.db)
        ):
            raise ValueError(text)

    def locations(self, port: int) -> list[TCPLocation]:
        """Return where its hosts are, by default at a port."""
        return [TCPLocation(host, own or port) for host, own in self._hosts]


def _address(text: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(text)
    return parts.hostname, parts.port


def read_password(setting: str, path: Path | None) -> str | None:
    """Return a password, if a setting of the engine names its file.

    Raises:
        ConfigError: it cannot be read, or is empty.

    """
    if path is None:
        return None
    name = f"engine.{setting}"  # without its value: it may be the password, by mistake
    try:
        password = path.read_text().rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{name}: cannot be read: {why}") from error
    if not password:
        raise ConfigError(f"{name}: is empty")
    return password


def _context(settings: EngineSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'engine.tls_ca = "{settings.tls_ca}": cannot be used: {error}'
        ) from error
    if settings.tls_certificate is not None:
        try:  # a key that is encrypted is refused: nobody is there to type its password
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")  # nosec B106
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'engine.tls_certificate = "{settings.tls_certificate}": it, or engine.tls_key,'
                f" cannot be used: {error}"
            ) from error
    return context
