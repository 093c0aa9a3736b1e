"""The parts of the daemon, put together; and how new settings reach each of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

from broadcasterd.access.tokens import KeyRing, credentials_directory
from broadcasterd.api.auth import Guard
from broadcasterd.broadcast.hub import Hub
from broadcasterd.config import Config, Settings, check_exposure
from broadcasterd.host.memory import MemoryProbe
from broadcasterd.monitor import Monitor
from broadcasterd.observe.log import set_level
from broadcasterd.server.app import create_app
from broadcasterd.server.serve import HttpServer


class Parts:
    """What runs in one Trio run.

    Args:
        config: all settings.
        keys: verify tokens.
        sockets: to listen on.
        takeover: see :func:`~broadcasterd.server.app.create_app`.

    """

    def __init__(
        self, config: Config, keys: KeyRing, sockets: Sequence[socket.socket], *, takeover: bool
    ) -> None:
        self._sockets = sockets
        self.monitor = Monitor(config.memory, MemoryProbe())
        self.settings = Settings(config)
        self.hub = Hub(
            self.settings,
            thresholds=self.monitor.thresholds if config.memory.breaker else None,
            rss=self.monitor.rss,
        )
        self._guard = Guard(config, keys)
        self._app = create_app(
            self.hub,
            config,
            guard=self._guard,
            vitals=lambda: self.monitor.vitals(self.hub),
            takeover=takeover,
        )
        self.server = HttpServer(self._app, config.server, config.limits, sockets)

    async def reconfigure(self, new: Config) -> None:
        """Tell each part of new settings; first those that may refuse them.

        Raises:
            ConfigError: they cannot be used. Nothing was changed.

        """
        check_exposure_of(self._sockets, new)
        keys = load_keys(new)
        self.server.reconfigure(new.server, new.limits)
        self._guard.reconfigure(new, keys)
        self._app.settings = new
        set_level(new.log.level)
        self.monitor.reconfigure(new.memory)
        thresholds = self.monitor.thresholds if new.memory.breaker else None
        self.settings.replace(new)
        await self.hub.reconfigure(thresholds)


def load_keys(config: Config) -> KeyRing:
    """Read the keys that verify tokens.

    Raises:
        ConfigError: they cannot be used.

    """
    return KeyRing.load(config.auth, credentials_directory(os.environ))


def check_exposure_of(sockets: Sequence[socket.socket], config: Config) -> None:
    """Refuse settings that do not go with where the daemon really listens.

    Raises:
        ConfigError: see :func:`~broadcasterd.config.check_exposure`.

    """
    for sock in sockets:
        server = msgspec.structs.replace(config.server, host=sock.getsockname()[0])
        check_exposure(msgspec.structs.replace(config, server=server))
