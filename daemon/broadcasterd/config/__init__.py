"""The configuration: all settings, and how a file and the environment set them.

``sections.py`` has every setting with its default, ``kinds.py`` the kinds of values with their
units and bounds. ``loading.py`` reads the file and the environment, by way of ``draft.py``, which
converts value by value and keeps the problems. ``checks.py`` has the checks that need no other part
of the system. Nothing here opens any file but the configuration. The command line calls `load`;
everything else is handed the finished, immutable `Config`, or the cell `Settings` that has the one
in force.
"""

from broadcasterd.config.checks import check_exposure, check_pairs, is_loopback
from broadcasterd.config.in_force import Settings
from broadcasterd.config.kinds import Secret
from broadcasterd.config.loading import ENVIRONMENT_ONLY, SECRET_VARIABLE, from_mapping, load
from broadcasterd.config.problems import ConfigError
from broadcasterd.config.sections import (
    SHIPPED_RULES,
    AlertRule,
    Alerts,
    Auth,
    Config,
    Dashboard,
    EngineSettings,
    Limits,
    Log,
    Memory,
    Server,
    Sessions,
    receivers,
)

__all__ = [
    "ENVIRONMENT_ONLY",
    "SECRET_VARIABLE",
    "SHIPPED_RULES",
    "AlertRule",
    "Alerts",
    "Auth",
    "Config",
    "ConfigError",
    "Dashboard",
    "EngineSettings",
    "Limits",
    "Log",
    "Memory",
    "Secret",
    "Server",
    "Sessions",
    "Settings",
    "check_exposure",
    "check_pairs",
    "from_mapping",
    "is_loopback",
    "load",
    "receivers",
]
