"""Which engine the settings ask for."""

from __future__ import annotations

from collections.abc import Callable

from broadcasterd.config import EngineSettings
from broadcasterd.engine.memory import MemoryEngine
from broadcasterd.engine.port import Engine
from broadcasterd.figures.counts import Counts


def open_engine(settings: EngineSettings, unix_now: Callable[[], float], counts: Counts) -> Engine:
    """Return the engine of the settings; it is not running yet.

    Raises:
        ConfigError: what the settings name cannot be used.

    """
    if settings.kind == "memory":
        return MemoryEngine()
    # Whoever does not use it does not load it.
    from broadcasterd.engine.sqlite import SqliteEngine  # noqa: PLC0415

    assert settings.path is not None  # noqa: S101 (see config/checks.py)
    return SqliteEngine(settings.path, unix_now, counts)
