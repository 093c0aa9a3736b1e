"""The configuration in force."""

from broadcasterd.config.sections import Config


class Settings:
    """The configuration in force: the one cell that everybody reads, each time that it matters.

    The daemon alone puts another configuration in, on a reload.

    Attributes:
        config: the whole.
        server, sessions, engine, limits: its sections that are read while requests are served.
    """

    __slots__ = ("auth", "config", "engine", "limits", "server", "sessions")

    def __init__(self, config: Config) -> None:
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Put another configuration in force."""
        self.config = config
        self.server = config.server
        self.sessions = config.sessions
        self.engine = config.engine
        self.auth = config.auth
        self.limits = config.limits
