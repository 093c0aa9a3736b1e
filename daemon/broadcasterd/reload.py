"""A reload: read the configuration anew, and apply it where that can be done live.

A configuration that cannot be used changes nothing: the old one stays, and the record says why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
import structlog
import trio

from broadcasterd.config import Config, ConfigError

log = structlog.stdlib.get_logger(__name__)

NEED_A_RESTART = frozenset(
    {
        *("server.host", "server.port", "server.backlog", "log.format", "log.file"),
        *("engine.kind", "engine.path", "engine.url", "engine.password_file", "engine.tls_ca"),
        *("engine.sentinel_password_file", "engine.tls_certificate", "engine.tls_key"),
        *("engine.prefix", "engine.replicas", "engine.timeout"),
    }
)  # and whether there is TLS at all
"""Keys that the running daemon keeps as they were when it started."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a new file.

    Attributes:
        config: the configuration in force from now on.
        changed: the keys that are in force with another value.
        needs_restart: the keys whose other value waits for a restart.

    """

    config: Config
    changed: list[str]
    needs_restart: list[str]


def settle(old: Config, new: Config) -> Settled:
    """Return the part of a new configuration that can be in force at once."""
    differing = list(_differing(old, new))
    fixed = NEED_A_RESTART
    if (old.server.tls_certificate is None) != (new.server.tls_certificate is None):
        fixed |= {"server.tls_certificate", "server.tls_key"}
    waiting = [name for name in differing if name in fixed]
    config = new
    for name in waiting:
        section, key = name.split(".")
        kept = {key: getattr(getattr(old, section), key)}
        part = msgspec.structs.replace(getattr(config, section), **kept)
        config = msgspec.structs.replace(config, **{section: part})
    return Settled(config, [name for name in differing if name not in fixed], waiting)


class Reloader:
    """Holds the configuration in force.

    Args:
        config: the one that the daemon was started with.
        load: reads the configuration anew; raises ConfigError where it cannot be used.
        apply: tells each part of the daemon; raises ConfigError, before anything is changed,
            where a file that a setting names cannot be used.
        keys: returns fields of the record that name the keys in force.

    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config],
        apply: Callable[[Config], Awaitable[None]],
        keys: Callable[[], Mapping[str, object]],
    ) -> None:
        self.config = config
        self._load = load
        self._apply = apply
        self._keys = keys

    async def reload(self) -> str:
        """Reload; return what was wrong, or nothing."""
        try:
            settled = settle(self.config, self._load())
            await self._apply(settled.config)
        except ConfigError as error:
            why = "; ".join(str(error).splitlines())
            log.error("reload refused", why=why)  # noqa: TRY400 (whose file it is needs no traceback)
            return why
        self.config = settled.config
        tell = log.warning if settled.needs_restart else log.info
        tell(
            "configuration reloaded",
            changed=settled.changed,
            needs_restart=settled.needs_restart or None,
            **self._keys(),
        )
        return ""


class Reloads:
    """Reloads that are asked for: one after the other, each with its own outcome.

    Args:
        reload: does one; returns what was wrong, or nothing.

    """

    def __init__(self, reload: Callable[[], Awaitable[str]]) -> None:
        self._reload = reload
        self._ask, self._asked = trio.open_memory_channel[_Request](0)

    async def ask(self) -> str:
        """Have one done; return what was wrong, or nothing."""
        request = _Request()
        await self._ask.send(request)
        await request.done.wait()
        return request.refused

    async def run(self) -> None:
        """Do them, until cancelled."""
        async for request in self._asked:
            request.refused = await self._reload()
            request.done.set()


class _Request:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.refused = ""


def _differing(old: Config, new: Config) -> Iterator[str]:
    for section in old.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        for key in before.__struct_fields__:
            if getattr(before, key) != getattr(after, key):
                yield f"{section}.{key}"
