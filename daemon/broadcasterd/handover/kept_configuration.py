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

from broadcasterd.access.tokens import jwks_source, secret_source
from broadcasterd.config import Config, ConfigError, from_mapping
from broadcasterd.handover.descriptor_store import sealed_memory


class _Kept(msgspec.Struct):
    """The keys that are set, by section, and the content of files by ``section.key``."""

    tables: dict[str, dict[str, object]]
    files: dict[str, bytes]


def pack(config: Config, credentials: Path | None) -> bytes:
    """Return a configuration, and all that its files have.

    Args:
        config: the one in force.
        credentials: the directory of systemd's credentials, which win over the files named.

    Raises:
        OSError: a file cannot be read any more.
        ConfigError: a credential cannot be.

    """
    files = {name: path.read_bytes() for name, path in _files(config, credentials)}
    return msgspec.json.encode(_Kept(_tables(config), files))


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


def _files(config: Config, credentials: Path | None) -> Iterator[tuple[str, Path]]:
    auth, server = config.auth, config.server
    if auth.mode == "jwt":
        if (secret := secret_source(auth, credentials)) is not None:
            yield "auth.secret_file", secret[1]
        if (jwks := jwks_source(auth, credentials)) is not None:
            yield "auth.jwks_file", jwks[1]
    if server.tls_certificate is not None and server.tls_key is not None:
        yield "server.tls_certificate", server.tls_certificate
        yield "server.tls_key", server.tls_key


def _tables(config: Config) -> dict[str, dict[str, object]]:
    tables: dict[str, dict[str, object]] = msgspec.to_builtins(config, enc_hook=str)
    return {
        section: {key: value for key, value in table.items() if value is not None}
        for section, table in tables.items()
    }
