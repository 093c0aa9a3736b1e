"""A certificate or a key that cannot be used is told by the setting that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from broadcasterd.config import ConfigError, from_mapping
from broadcasterd.server.certificate import check_certificate, name_of_certificate
from tests.support.certificate import Certificate
from tests.support.tokens import EC_KEY

Spoil = Callable[[Certificate], object]


def check(certificate: Certificate) -> None:
    """Check it as a start does."""
    files = {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    check_certificate(from_mapping({"server": files}).server)


def private(encryption: serialization.KeySerializationEncryption) -> bytes:
    """Return a key that is not the certificate's."""
    return EC_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_one_that_goes_with_its_key_is_good(tmp_path: Path) -> None:
    check(Certificate.make(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda c: c.chain.unlink(), r'tls_certificate = ".*": cannot be read: No such file'),
        (lambda c: c.key.unlink(), r'tls_key = ".*": cannot be read: No such file'),
        (lambda c: c.key.unlink() or c.key.mkdir(), r"tls_key .* cannot be read: Is a directory"),
        (lambda c: c.chain.write_text("x"), r"tls_certificate = .*: expected certificates in PEM"),
        (lambda c: c.chain.write_text(""), r"tls_certificate = .*: expected certificates in"),
        (lambda c: c.key.write_text("x"), r"tls_key = .*: expected a private key in PEM"),
        (
            lambda c: c.key.write_bytes(private(serialization.NoEncryption())),
            r"tls_key = .*: is not the key of server.tls_certificate",
        ),
        (
            lambda c: c.key.write_bytes(private(serialization.BestAvailableEncryption(b"word"))),
            r"tls_key = .*: is encrypted; expected a key without a password",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_one_at_fault_is_named(spoil: Spoil, told: str, tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    spoil(certificate)

    with pytest.raises(ConfigError, match=f"^server.{told}"):
        check(certificate)


def test_one_that_only_openssl_can_read_is_good_all_the_same(tmp_path: Path) -> None:
    certificate = Certificate.make(tmp_path)
    text = certificate.chain.read_text().replace("CERTIFICATE", "TRUSTED CERTIFICATE")
    certificate.chain.write_text(text)
    check(certificate)
    files = {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    name = name_of_certificate(from_mapping({"server": files}).server)

    assert "of a form that is not known here" == name


def test_without_tls_there_is_nothing_to_check() -> None:
    check_certificate(from_mapping({}).server)
