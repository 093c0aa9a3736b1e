"""The configuration in force, packed to be kept for the next start with the files that it names.

A start that finds its files bad (a typo, a key that is gone, a certificate that its user cannot
read) goes on with what the service last ran with, and no stream is lost. Secrets are in it, so it
is kept in memory alone: systemd's descriptor store has it for as long as the service is meant to
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from broadcasterd.access.rotation import NO_SECRETS, Secrets
from broadcasterd.config import ENVIRONMENT_ONLY, Config, ConfigError, from_mapping
from broadcasterd.handover.descriptor_store import sealed_memory

NOT_KEPT = {*ENVIRONMENT_ONLY, "log.file"}
"""A secret of the environment is kept as a file, and a log file may be what cannot be written."""


class Before(msgspec.Struct):
    """What a start has to know of the process before, whatever settings that had.

    Attributes:
        secrets: those in force: one may be replaced now.
        certificate: the file of TLS, if there was TLS.

    """

    secrets: Secrets = NO_SECRETS
    certificate: str | None = None


class _Kept(msgspec.Struct):
    """The keys that are set, by section, and the content of files by ``section.key``."""

    tables: dict[str, dict[str, object]]
    files: dict[str, bytes]
    before: Before


class _KeptBefore(msgspec.Struct):
    before: Before = msgspec.field(default_factory=Before)


def pack(config: Config, secrets: Secrets) -> bytes:
    """Return a configuration, and all that its files have.

    Args:
        config: the one in force.
        secrets: those in force.

    Raises:
        OSError: a file cannot be read any more.

    """
    files = {name: path.read_bytes() for name, path in _files(config)}
    if secrets.current is not None:
        files["auth.secret_file"] = secrets.current
    certificate = config.server.tls_certificate
    before = Before(secrets, None if certificate is None else str(certificate))
    return msgspec.json.encode(_Kept(_tables(config), files, before))


def unpack_before(packed: bytes | None) -> Before:
    """Return what is known of the process before, if it packed its configuration."""
    try:
        return msgspec.json.decode(packed or b"{}", type=_KeptBefore).before
    except msgspec.DecodeError:
        return Before()


def unpack(packed: bytes) -> Config:
    """Return a configuration whose files are sealed memory of this process.

    Raises:
        ConfigError: it is of a version that had other settings.
        OSError: there is no memory for the files.

    """
    try:
        kept = msgspec.json.decode(packed, type=_Kept)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the configuration that was kept: {error}") from error
    for name, content in kept.files.items():
        section, _, key = name.partition(".")
        path = f"/proc/self/fd/{sealed_memory(key, content)}"  # open for as long as we live
        kept.tables.setdefault(section, {})[key] = path
    return from_mapping(kept.tables)


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    auth, server = config.auth, config.server
    if auth.mode == "jwt" and auth.jwks_file is not None:
        yield "auth.jwks_file", auth.jwks_file
    if config.alerts.webhook_key_file is not None:
        yield "alerts.webhook_key_file", config.alerts.webhook_key_file
    if server.tls_certificate is not None and server.tls_key is not None:
        yield "server.tls_certificate", server.tls_certificate
        yield "server.tls_key", server.tls_key


def _tables(config: Config) -> dict[str, dict[str, object]]:
    tables: dict[str, dict[str, object]] = msgspec.to_builtins(config, enc_hook=str)
    return {
        section: {
            key: value
            for key, value in table.items()
            if value is not None and f"{section}.{key}" not in NOT_KEPT
        }
        for section, table in tables.items()
    }
