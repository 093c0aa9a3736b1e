"""The configuration in force outlives the files that it was read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadcasterd.access.tokens import KeyRing
from broadcasterd.config import Config, ConfigError, from_mapping
from broadcasterd.daemon import check
from broadcasterd.handover.kept_configuration import pack, unpack
from tests.support.certificate import Certificate
from tests.support.tokens import RSA_KEY, public_jwk, write_jwks

SECRET = b"s" * 64


def everything(directory: Path) -> Config:
    """Return a configuration that names every kind of file, and they are there."""
    (directory / "secret").write_bytes(SECRET + b"\n")
    certificate = Certificate.make(directory)
    return from_mapping(
        {
            "server": {
                "port": 7,
                "tls_certificate": str(certificate.chain),
                "tls_key": str(certificate.key),
            },
            "sessions": {"retry_ms": 4321},
            "auth": {
                "algorithms": ["HS256", "RS256"],
                "secret_file": str(directory / "secret"),
                "jwks_file": str(write_jwks(directory / "jwks.json", public_jwk(RSA_KEY))),
            },
            "limits": {"trusted_proxies": ["10.0.0.0/8"]},
            "alerts": {"rules": [{"name": "memory", "threshold": 1.5}]},
        }
    )


def keys_of(ring: KeyRing) -> set[str]:
    """Return the key material, as text to compare."""
    return {
        key.material.decode() if isinstance(key.material, bytes) else str(key.algorithms)
        for key in ring.keys
    }


def test_it_is_whole_when_its_files_are_gone(tmp_path: Path) -> None:
    config = everything(tmp_path)
    keys = check(config, None)
    packed = pack(config, None)
    for file in tmp_path.iterdir():
        file.unlink()
    kept = unpack(packed)

    assert (7, 4321) == (kept.server.port, kept.sessions.retry_ms)
    assert (config.limits, config.alerts) == (kept.limits, kept.alerts)
    assert keys_of(keys) == keys_of(check(kept, None))
    with pytest.raises(ConfigError):
        check(config, None)


def test_a_credential_wins_over_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "named").write_bytes(b"n" * 64)
    (tmp_path / "secret").write_bytes(SECRET)
    config = from_mapping({"auth": {"secret_file": str(tmp_path / "named")}})
    kept = unpack(pack(config, tmp_path))

    assert {SECRET.decode()} == keys_of(check(kept, None))


def test_defaults_need_no_file() -> None:
    config = from_mapping({"auth": {"mode": "none"}})

    assert config == unpack(pack(config, None))


@pytest.mark.parametrize("packed", [b"", b"{}", b'{"tables": {"sessions": {"x": 1}}, "files": {}}'])
def test_what_another_version_kept_is_refused(packed: bytes) -> None:
    with pytest.raises(ConfigError):
        unpack(packed)
