"""The configuration in force outlives the files that it was read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadcasterd.access.rotation import NO_SECRETS, Secrets
from broadcasterd.access.tokens import KeyRing
from broadcasterd.alerts.notice import read_key
from broadcasterd.checks import check, check_tls_stays
from broadcasterd.config import Config, ConfigError, from_mapping, load
from broadcasterd.handover.kept_configuration import Before, pack, unpack, unpack_before
from tests.support.certificate import Certificate
from tests.support.tokens import RSA_KEY, public_jwk, write_jwks

SECRET = b"s" * 64
WEBHOOK_KEY = b"w" * 32


def everything(directory: Path) -> Config:
    """Return a configuration that names every kind of file, and they are there."""
    (directory / "secret").write_bytes(SECRET + b"\n")
    (directory / "webhook_key").write_bytes(WEBHOOK_KEY)
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
            "alerts": {
                "page_on_call": "https://pager.example/hook",
                "webhook_key_file": str(directory / "webhook_key"),
                "rules": [{"name": "m", "metric": "used_mb", "threshold": 1.5, "for": 3}],
            },
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
    keys = check(config)
    packed = pack(config, keys.secrets)
    for file in tmp_path.iterdir():
        file.unlink()
    kept = unpack(packed)

    assert (7, 4321) == (kept.server.port, kept.sessions.retry_ms)
    assert (config.limits, config.alerts.rules) == (kept.limits, kept.alerts.rules)
    assert config.alerts.page_on_call == kept.alerts.page_on_call
    assert WEBHOOK_KEY == read_key(kept.alerts)
    assert keys_of(keys) == keys_of(check(kept))
    with pytest.raises(ConfigError):
        check(config)


def test_the_secret_is_the_one_in_force_whatever_is_in_the_file_now(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    config = from_mapping({"auth": {"secret_file": str(tmp_path / "secret")}})
    keys = check(config)
    (tmp_path / "secret").write_bytes(b"n" * 64)

    assert {SECRET.decode()} == keys_of(check(unpack(pack(config, keys.secrets))))


def test_the_next_process_knows_which_secret_it_replaces(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    config = from_mapping({"auth": {"secret_file": str(tmp_path / "secret")}})
    packed = pack(config, check(config).secrets)
    (tmp_path / "secret").write_bytes(b"n" * 64)
    keys = check(config, unpack_before(packed).secrets)

    assert {SECRET.decode(), "n" * 64} == keys_of(keys)
    again = check(config, unpack_before(pack(config, keys.secrets)).secrets)

    assert keys.secrets == again.secrets, "its time goes on"


def test_defaults_need_no_file() -> None:
    config = from_mapping({"auth": {"mode": "none"}})

    assert config == unpack(pack(config, NO_SECRETS))


@pytest.mark.parametrize("packed", [b"", b"{}", b'{"tables": {"sessions": {"x": 1}}, "files": {}}'])
def test_what_another_version_kept_is_refused(packed: bytes) -> None:
    with pytest.raises(ConfigError):
        unpack(packed)
    assert Before() == unpack_before(packed)


def test_what_was_before_is_known_though_its_settings_are_not() -> None:
    packed = (
        b'{"tables": {"sessions": {"x": 1}}, "files": {},'
        b' "before": {"secrets": {"current": "c2VjcmV0"}, "certificate": "/c.pem"}}'
    )

    assert Before(Secrets(b"secret"), "/c.pem") == unpack_before(packed)
    assert Before() == unpack_before(None)


def test_a_certificate_that_was_a_credential_may_not_just_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate.make(tmp_path)
    files = {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    with_tls = from_mapping({"server": files, "auth": {"mode": "none"}})
    before = unpack_before(pack(with_tls, NO_SECRETS)).certificate
    check_tls_stays(Config(), before)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    check_tls_stays(with_tls, before)
    check_tls_stays(Config(), None)
    check_tls_stays(Config(), "/etc/chain.pem")

    with pytest.raises(
        ConfigError, match=f'^server.tls_certificate = "{certificate.chain}": is mi'
    ):
        check_tls_stays(Config(), before)


def test_a_secret_of_the_environment_is_kept_as_a_file() -> None:
    config = load(None, {"BROADCASTERD_AUTH__SECRET": SECRET.decode()})
    keys = check(config)
    kept = unpack(pack(config, keys.secrets))

    assert kept.auth.secret is None
    assert keys_of(keys) == keys_of(check(kept))
