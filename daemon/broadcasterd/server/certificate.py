"""The certificate and the key of TLS: whether they can be used, told by the setting at fault."""

from __future__ import annotations

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from broadcasterd.config import ConfigError, Server

FINGERPRINT_DIGITS = 12
"""Of 64: enough to tell two certificates apart."""


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


def name_of_certificate(config: Server) -> str | None:
    """Return the beginning of a certificate's SHA-256, and its last day; None without TLS.

    The certificate can be used: see :func:`check_certificate`.

    Raises:
        OSError: it cannot be read any more.

    """
    if config.tls_certificate is None:
        return None
    content = config.tls_certificate.read_bytes()
    try:
        certificate = x509.load_pem_x509_certificates(content)[0]
    except ValueError:  # OpenSSL takes more forms than this parser
        return "of a form that is not known here"
    digits = certificate.fingerprint(SHA256()).hex()[:FINGERPRINT_DIGITS]
    return f"{digits} until {certificate.not_valid_after_utc:%Y-%m-%d}"


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
