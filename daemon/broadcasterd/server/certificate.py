"""The certificate and the key of TLS: whether they can be used, told by the setting at fault."""

from __future__ import annotations

import ssl
from pathlib import Path

from broadcasterd.config import ConfigError, Server


def check_certificate(config: Server) -> None:
    """See whether the certificate and its key can be used; without TLS there is nothing to see.

    Raises:
        ConfigError: a file cannot be read, is no certificate or no key, or they do not go together.

    """
    if config.tls_certificate is None or config.tls_key is None:
        return
    for key, path in (("tls_certificate", config.tls_certificate), ("tls_key", config.tls_key)):
        _check_readable(key, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(config.tls_certificate)
    except ssl.SSLError as error:
        raise ConfigError(
            f'server.tls_certificate = "{config.tls_certificate}": expected certificates in PEM'
            " (RFC 7468)"
        ) from error
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key, password=_no_password)
    except _EncryptedError as error:
        raise ConfigError(
            f'server.tls_key = "{config.tls_key}": is encrypted; expected a key without a password,'
            " since nobody is there to type it"
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            why = f'is not the key of server.tls_certificate = "{config.tls_certificate}"'
        else:
            why = f"expected a private key in PEM (RFC 7468): {error.reason or error}"
        raise ConfigError(f'server.tls_key = "{config.tls_key}": {why}') from error


class _EncryptedError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedError


def _check_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f'server.{key} = "{path}": cannot be read: {error.strerror}') from error
