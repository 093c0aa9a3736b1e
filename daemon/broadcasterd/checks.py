"""What a start checks, and a reload too: keys, the certificate, the log file, exposure."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from broadcasterd.access.rotation import NO_SECRETS, Secrets
from broadcasterd.access.tokens import KeyRing
from broadcasterd.alerts import webhooks
from broadcasterd.alerts.notice import read_key
from broadcasterd.config import Config, ConfigError, check_exposure, receivers
from broadcasterd.host.credentials import credentials_directory
from broadcasterd.observe.log_file import check_log_file
from broadcasterd.server.certificate import check_certificate


def check(config: Config, before: Secrets = NO_SECRETS) -> KeyRing:
    """Read all that settings name, as a start does; return the keys that verify tokens.

    Args:
        config: the settings.
        before: the secrets that were in force until now.

    Raises:
        ConfigError: a key, a certificate or the log file cannot be used, or nobody would have to
            prove anything.

    """
    check_exposure(config)
    check_certificate(config.server)
    read_key(config.alerts)
    webhooks.prepare(url for _, url in receivers(config.alerts))
    check_log_file(config.log)
    return KeyRing.load(config.auth, before)


def check_tls_stays(config: Config, before: str | None) -> None:
    """Refuse to serve in the clear because a credential is missing; settings alone may say so.

    Args:
        config: the settings.
        before: the certificate of the process before.

    Raises:
        ConfigError: it was a credential, and nothing is in its place.

    """
    directory = credentials_directory(os.environ)
    if config.server.tls_certificate is not None or before is None or directory is None:
        return
    if Path(before).parent == directory:
        raise ConfigError(
            f'server.tls_certificate = "{before}": is missing, or empty; expected a certificate, as'
            " until now. To serve without TLS, stop the service, and start it"
        )


def check_exposure_of(sockets: Sequence[socket.socket], config: Config) -> None:
    """Refuse settings that do not go with where the daemon really listens.

    Raises:
        ConfigError: see :func:`~broadcasterd.config.check_exposure`.

    """
    for sock in sockets:
        server = msgspec.structs.replace(config.server, host=sock.getsockname()[0])
        check_exposure(msgspec.structs.replace(config, server=server))
