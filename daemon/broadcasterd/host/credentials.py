"""Credentials of systemd (systemd.exec(5)): copies of files that root alone can read.

Each takes the place of the setting that names such a file. The unit has an empty one where there
is no file: that one stands for nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from broadcasterd.config import Config, ConfigError, check_pairs

SETTINGS: Mapping[str, tuple[str, str]] = {
    "secret": ("auth", "secret_file"),
    "jwks.json": ("auth", "jwks_file"),
    "tls_certificate.pem": ("server", "tls_certificate"),
    "tls_key.pem": ("server", "tls_key"),
    "webhook_key": ("alerts", "webhook_key_file"),
    "engine_password": ("engine", "password_file"),
    "sentinel_password": ("engine", "sentinel_password_file"),
    "engine_certificate.pem": ("engine", "tls_certificate"),
    "engine_key.pem": ("engine", "tls_key"),
}
"""The section and the key that each credential is for, by its name."""


COARSE_S = 0.5
"""Times of files and of processes are told in ticks of 10 ms, and a wall clock may be slewed."""


def credentials_directory(environ: Mapping[str, str]) -> Path | None:
    """Return where systemd puts the service's credentials, if it does."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


def with_credentials(config: Config, directory: Path | None) -> Config:
    """Return a configuration that names the credentials, where there are any.

    Raises:
        ConfigError: one cannot be read, or stands alone where two are needed.

    """
    if directory is None:
        return config
    for name, (section, key) in SETTINGS.items():
        path = directory / name
        if _is_given(path, f"{section}.{key}"):
            part = msgspec.structs.replace(getattr(config, section), **{key: path})
            config = msgspec.structs.replace(config, **{section: part})
    check_pairs(config)
    return config


def made_at() -> float:
    """Return the Unix time at which this process was made (proc(5): ``starttime``)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    made = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - made)


def were_renewed(directory: Path, started_at: float) -> bool:
    """Return whether systemd wrote credentials for a process before it ran its code.

    Args:
        directory: has the credentials.
        started_at: the Unix time at which the process was made.

    """
    return any(path.stat().st_mtime > started_at - COARSE_S for path in directory.iterdir())


def _is_given(path: Path, setting: str) -> bool:
    try:
        return bool(path.read_bytes().strip())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f'{setting} = "{path}": cannot be read: {error.strerror}') from error
