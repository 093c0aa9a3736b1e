"""Which engine the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broadcasterd.config import ConfigError, Settings
from broadcasterd.engine.memory import MemoryEngine
from broadcasterd.engine.port import Engine
from broadcasterd.figures.counts import Counts

FILE = "events.sqlite"
"""Its name in the state directory."""


def open_engine(
    settings: Settings,
    state: Path | None,
    unix_now: Callable[[], float],
    counts: Counts,
) -> Engine:
    """Return the engine of the settings; it is not running yet.

    Args:
        settings: those in force.
        state: a directory that the service keeps, for a file that no setting names.
        unix_now: the wall clock.
        counts: what the daemon counts.

    Raises:
        ConfigError: what the settings name cannot be used.

    """
    if settings.engine.kind == "memory":
        return MemoryEngine()
    if settings.engine.kind == "redis":
        return _open_redis(settings, counts)
    # Whoever does not use it does not load it.
    from broadcasterd.engine.sqlite import SqliteEngine  # noqa: PLC0415

    path = settings.engine.path or (state and state / FILE)
    if path is None:
        raise ConfigError(
            'engine.kind = "sqlite": expected engine.path beside it, where systemd gives no state'
            " directory (STATE_DIRECTORY)"
        )
    return SqliteEngine(path, unix_now, counts)


def _open_redis(settings: Settings, counts: Counts) -> Engine:
    try:
        from broadcasterd.engine.redis.engine import RedisEngine  # noqa: PLC0415 (as above)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"coredis", "hiredis"}:
            raise
        raise ConfigError(
            'engine.kind = "redis": needs coredis and hiredis, which are not installed: pip install'
            " 'broadcasterd[redis]'"
        ) from error
    return RedisEngine(settings, counts)
