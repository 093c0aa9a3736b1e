"""The keys of tokens: read from their files, and what may be said of them (RFC 7517, 7518).

Each key is pinned to the algorithms that its type and the configuration allow. No error and no
record shows a key: a fingerprint tells which one it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import AllowedPublicKeys, HMACAlgorithm
from typing_extensions import override

from broadcasterd.access.rotation import Secrets
from broadcasterd.config import SECRET_VARIABLE, Auth, ConfigError

MAX_KEYS = 64
"""A token that names no key is tried with each that fits."""

MIN_RSA_BITS = 2048
"""RFC 7518 §3.3."""

FINGERPRINT_DIGITS = 12
"""Enough to tell an operator's keys apart."""

NO_KEY = (
    "auth.secret_file: expected the file of a secret, or auth.jwks_file with public keys, because"
    ' auth.mode = "jwt" lets nobody in without a token'
)

# RFC 7518 §3.2: a secret is at least as long as the hash, in bytes.
_MIN_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE = {
    "P-256": "ES256",
    "P-384": "ES384",
    "P-521": "ES512",
    "Ed25519": "EdDSA",
    "Ed448": "EdDSA",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the algorithms that it may verify. It never shows itself.

    Attributes:
        kid: the name by which a token may ask for it.
        algorithms: those that it may verify.
        material: the key; bytes are a secret, which can sign as well.
        role: what it is, in words for an operator.
        good_until: the Unix time from which on it is none of ours.

    """

    kid: str | None
    algorithms: frozenset[str]
    material: AllowedPublicKeys | bytes = field(repr=False)
    role: str = "secret"
    good_until: float = inf

    @override
    def __str__(self) -> str:
        """Return its role, its fingerprint, and its end if it has one."""
        said = f"{self.role} {fingerprint(self.material)}"
        if self.good_until == inf:
            return said
        return f"{said} until {datetime.fromtimestamp(self.good_until, UTC):%Y-%m-%dT%H:%M:%SZ}"

    @property
    def secret(self) -> bytes | None:
        """The key, if it is a secret."""
        return self.material if isinstance(self.material, bytes) else None


def fingerprint(material: AllowedPublicKeys | bytes) -> str:
    """Return the beginning of the SHA-256 of a secret, or of a public key in DER (RFC 5280)."""
    if not isinstance(material, bytes):
        material = material.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(material).hexdigest()[:FINGERPRINT_DIGITS]


def read_secret(auth: Auth) -> Key | None:
    """Return the secret, if the settings have one, or name its file.

    Raises:
        ConfigError: it cannot be read, or cannot be used.

    """
    if auth.secret is not None:
        name, secret = SECRET_VARIABLE, auth.secret.content
    elif auth.secret_file is not None:
        name = _shown_secret_file(auth.secret_file)
        secret = _read(name, auth.secret_file)
    else:
        return None
    secret = secret.rstrip(b"\r\n")  # editors end a file so, which is no part of the secret
    algorithms = _pinned(name, auth, frozenset(_MIN_SECRET_BYTES), len(secret))
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ConfigError(
            f"{name}: holds half of a key pair, or a certificate; expected random bytes"
            " (public keys belong into auth.jwks_file)"
        ) from error
    return Key(None, algorithms, secret)


def signing_key(auth: Auth, kid: str | None) -> tuple[str, bytes]:
    """Return the algorithm and the secret with which this configuration can sign tokens itself.

    Args:
        auth: the ``[auth]`` settings.
        kid: names a secret of the JWK Set; without it, it is the one of ``auth.secret_file``.

    Raises:
        ConfigError: there is none, or keys cannot be used.

    """
    if kid is not None:
        named = {
            key.kid: (min(key.algorithms), key.secret)
            for key in read_jwks(auth)
            if key.secret is not None
        }
        if kid in named:
            return named[kid]
        raise ConfigError(
            f"--kid {kid}: expected the kid of a secret (kty oct) in auth.jwks_file"
            f" ({', '.join(filter(None, named)) or 'there is none'})"
        )
    if (key := read_secret(auth)) is not None and key.secret is not None:
        return min(key.algorithms), key.secret
    raise ConfigError(
        "auth.secret_file: not set; expected the file of the signing secret. A secret (kty oct) of"
        " auth.jwks_file signs with --kid; tokens for its public keys are signed by whoever has the"
        " private ones"
    )


def previous_keys(secrets: Secrets, auth: Auth) -> Iterator[Key]:
    """Yield the secrets that are still good, where an accepted algorithm is left for them."""
    for previous in secrets.previous:
        good_for = frozenset(
            algorithm
            for algorithm, size in _MIN_SECRET_BYTES.items()
            if algorithm in auth.algorithms and size <= len(previous.secret)
        )
        until = previous.replaced_at + auth.previous_secret_ttl
        if good_for:
            yield Key(None, good_for, previous.secret, "previous secret", until)


def read_jwks(auth: Auth) -> list[Key]:
    """Return the keys of the JWK Set, if the settings name one.

    Raises:
        ConfigError: it cannot be read, or a key of it cannot be used.

    """
    if auth.jwks_file is None:
        return []
    name = f'auth.jwks_file = "{auth.jwks_file}"'
    try:
        jwks = msgspec.json.decode(_read(name, auth.jwks_file), type=_JwkSet).keys
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name}: expected a JWK Set (RFC 7517): {error}") from error
    # Keys for encryption may stand beside those for signatures.
    keys = [
        _key(f"{name}: key {jwk.get('kid', index)!r}", jwk, auth)
        for index, jwk in enumerate(jwks)
        if jwk.get("use", "sig") == "sig"
    ]
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ConfigError(f"{name}: has {len(keys)} keys for signatures, expected 1 to {MAX_KEYS}")
    kids = [key.kid for key in keys if key.kid is not None]
    if twice := sorted({kid for kid in kids if kids.count(kid) > 1}):
        raise ConfigError(f"{name}: expected one key of each kid, has several of {twice[0]!r}")
    return keys


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[dict[str, object]]


def _key(name: str, jwk: dict[str, object], auth: Auth) -> Key:
    """Make a key of a JWK. Errors are told in our words: the library's repeat the key."""
    kind, kid = jwk.get("kty"), jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ConfigError(f"{name}: kid: expected a text")
    if kind != "oct" and "d" in jwk:
        raise ConfigError(f"{name}: holds a private key, expected the public half alone")
    if kind == "oct":
        fitting = frozenset(_MIN_SECRET_BYTES)
    elif kind == "RSA":
        fitting = _RSA
    else:
        fitting = frozenset({_BY_CURVE.get(str(jwk.get("crv")), "")} - {""})
    if "alg" in jwk:
        fitting &= {str(jwk["alg"])}
    try:
        material = jwt.PyJWK(jwk, min(fitting)).key if fitting else b""
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{name}: expected a JWK of type {kind!r} (RFC 7518 §6)") from error
    if isinstance(material, RSAPublicKey) and material.key_size < MIN_RSA_BITS:
        raise ConfigError(f"{name}: has {material.key_size} bits, expected at least {MIN_RSA_BITS}")
    size = len(material) if isinstance(material, bytes) else None
    role = "key" if kid is None else f"key {kid!r}"
    return Key(kid, _pinned(name, auth, fitting, size), material, role)


def _pinned(name: str, auth: Auth, fitting: frozenset[str], size: int | None) -> frozenset[str]:
    """Return the accepted algorithms that a key is for; ``size`` is a secret's, in bytes."""
    algorithms = fitting.intersection(auth.algorithms)
    if not algorithms:
        accepted, suits = ", ".join(auth.algorithms), ", ".join(sorted(fitting)) or "no signature"
        raise ConfigError(
            f"{name}: fits none of auth.algorithms = {accepted}; expected one that suits it"
            f" among them ({suits})"
        )
    if size is not None:
        longest = max(algorithms)
        if size < _MIN_SECRET_BYTES[longest]:
            raise ConfigError(
                f"{name}: holds {size} bytes, expected at least {_MIN_SECRET_BYTES[longest]}"
                f" for {longest} (RFC 7518 §3.2)"
            )
    return algorithms


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error


def _shown_secret_file(path: Path) -> str:
    """Return the setting with its value, unless that may be the secret itself, put there instead.

    A path begins with a directory that exists, or exists itself.
    """
    first = Path(*path.parts[: 2 if path.is_absolute() else 1])
    try:
        is_path = (first != path and first.is_dir()) or path.exists()
    except OSError:  # longer than any name of a file
        is_path = False
    return f'auth.secret_file = "{path}"' if is_path else "auth.secret_file"
