"""Tokens: the keys that sign them, and what a signed one grants (RFC 7515, 7517, 7519; RFC 8725).

Each key is pinned to the algorithms that its type and the configuration allow, and a token is
verified only with keys that fit what its header names: a public key can never be taken for a
secret. The rest of a header (``jwk``, ``jku``, ``x5u``) is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, HMACAlgorithm

from broadcasterd.access.grants import Grant
from broadcasterd.config import Auth, ConfigError

MAX_TOKEN_CHARS = 8 * 1024
"""Half of the head that carries it; our own have some 300."""

MAX_KEYS = 64
"""A token that names no key is tried with each that fits."""

MIN_RSA_BITS = 2048
"""RFC 7518 §3.3."""

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

# A value of auth.secret_file is not repeated: it may be the secret itself, put there by mistake.
_SECRET_FILE = "auth.secret_file"  # noqa: S105 (a name)


class TokenFault(StrEnum):
    """Why a token is refused, in words that its sender may see (RFC 6750 §3: ASCII, no quotes)."""

    MALFORMED = "this is not a JSON Web Token"
    ALGORITHM = "the token is signed with an algorithm that is not accepted"
    UNKNOWN_KEY = "no key is known that could have signed the token"
    SIGNATURE = "the signature of the token is wrong"
    EXPIRED = "the token has expired"
    NOT_YET_VALID = "the token is not valid yet"
    AUDIENCE = "the token is for another audience"
    ISSUER = "the token is from another issuer"
    REVOKED = "the subject of the token was revoked after the token was issued"
    CLAIMS = "a claim of the token does not have the form that it must have"


class InvalidToken(Exception):  # noqa: N818 (RFC 6750's word for it)
    """A token that grants nothing."""

    def __init__(self, fault: TokenFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


_FAULTS: Mapping[type[Exception], TokenFault] = {
    jwt.InvalidSignatureError: TokenFault.SIGNATURE,
    jwt.ExpiredSignatureError: TokenFault.EXPIRED,
    jwt.ImmatureSignatureError: TokenFault.NOT_YET_VALID,
    jwt.InvalidAudienceError: TokenFault.AUDIENCE,
    jwt.InvalidIssuerError: TokenFault.ISSUER,
}
_MISSING = {"aud": TokenFault.AUDIENCE, "iss": TokenFault.ISSUER}


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the algorithms that it may verify. It never shows itself."""

    kid: str | None
    algorithms: frozenset[str]
    material: AllowedPublicKeys | bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys in force, and the claims that a token needs besides. To be replaced as a whole."""

    keys: tuple[Key, ...]
    audience: str | None
    issuer: str | None
    leeway: float

    @classmethod
    def load(cls, auth: Auth, credentials: Path | None) -> KeyRing:
        """Read the keys; with ``mode = "none"`` there are none.

        Args:
            auth: the ``[auth]`` settings.
            credentials: the directory of systemd's credentials (systemd.exec(5)), if there is
                one. ``secret`` and ``jwks.json`` in it win over the files that are configured.

        Raises:
            ConfigError: a file cannot be read, a key cannot be used, or there is none.

        """
        keys: list[Key] = []
        if auth.mode == "jwt":
            if (secret := _read_secret(auth, credentials)) is not None:
                keys.append(secret)
            keys += _read_jwks(auth, credentials)
            if not keys:
                raise ConfigError(
                    f"{_SECRET_FILE}: expected the file of a secret, or auth.jwks_file with public"
                    ' keys, because auth.mode = "jwt" lets nobody in without a token'
                )
        return cls(tuple(keys), auth.audience, auth.issuer, auth.leeway)

    def verify(self, token: str) -> Grant:
        """Return the grant of a token.

        A token is refused from ``leeway`` seconds after its ``exp`` on: the leeway is for clocks
        that differ. The grant of a token that comes before ``exp`` ends at ``exp`` on the dot.

        Raises:
            InvalidToken: it grants nothing; the error says why.

        """
        if len(token) > MAX_TOKEN_CHARS:
            raise InvalidToken(TokenFault.MALFORMED)
        claims = self._claims(token)
        try:
            grant = Grant.from_claims(claims)
        except ValueError as error:
            raise InvalidToken(TokenFault.CLAIMS) from error
        if grant.expires_at is not None and grant.expires_at <= time.time():
            return replace(grant, expires_at=grant.expires_at + self.leeway)
        return grant

    def _claims(self, token: str) -> Mapping[str, object]:
        algorithm, candidates = self._candidates(token)
        fault = TokenFault.UNKNOWN_KEY
        for key in candidates:
            try:
                claims: Mapping[str, object] = jwt.decode(
                    token,
                    key.material,
                    algorithms=[algorithm],
                    audience=self.audience,
                    issuer=self.issuer,
                    leeway=self.leeway,
                )
            except jwt.InvalidSignatureError:
                fault = TokenFault.SIGNATURE
            except jwt.MissingRequiredClaimError as error:
                raise InvalidToken(_MISSING.get(error.claim, TokenFault.CLAIMS)) from error
            except (jwt.PyJWTError, ValueError, RecursionError) as error:
                # The signature is right, so no other key is worth a try.
                raise InvalidToken(_FAULTS.get(type(error), TokenFault.CLAIMS)) from error
            else:
                return claims
        raise InvalidToken(fault)

    def _candidates(self, token: str) -> tuple[str, list[Key]]:
        """Return the algorithm that a token names, and the keys that may have signed it so."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise InvalidToken(TokenFault.MALFORMED) from error
        algorithm, kid = str(header.get("alg")), header.get("kid")
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if not fitting:
            raise InvalidToken(TokenFault.ALGORITHM)
        return algorithm, [key for key in fitting if kid is None or key.kid in {None, kid}]


def signing_secret(auth: Auth, credentials: Path | None) -> tuple[str, bytes]:
    """Return the algorithm and the secret with which this configuration can sign tokens itself.

    Raises:
        ConfigError: it can only verify them, or its keys cannot be used.

    """
    key = _read_secret(auth, credentials)
    if key is None or not isinstance(key.material, bytes):
        raise ConfigError(
            f"{_SECRET_FILE}: not set; expected the file of the signing secret. Tokens for the"
            " public keys of auth.jwks_file are signed by whoever has the private ones"
        )
    return min(key.algorithms), key.material


def credentials_directory(environ: Mapping[str, str]) -> Path | None:
    """Return where systemd puts the service's credentials (systemd.exec(5)), if it does."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) if directory else None


# --- reading keys ----------------------------------------------------------------------------


def secret_source(auth: Auth, credentials: Path | None) -> tuple[str, Path] | None:
    """Return the name of the secret's file in messages, and the file; or ``None``.

    Raises:
        ConfigError: a credential cannot be read.

    """
    if credentials is not None and (credentials / "secret").exists():
        name, path = "$CREDENTIALS_DIRECTORY/secret", credentials / "secret"
        if _read(name, path).strip():  # the unit has an empty secret where there is none
            return name, path
    return None if auth.secret_file is None else (_SECRET_FILE, auth.secret_file)


def jwks_source(auth: Auth, credentials: Path | None) -> tuple[str, Path] | None:
    """Return the same for the file of public keys."""
    if credentials is not None and (credentials / "jwks.json").exists():
        return "$CREDENTIALS_DIRECTORY/jwks.json", credentials / "jwks.json"
    return (
        None if auth.jwks_file is None else (f'auth.jwks_file = "{auth.jwks_file}"', auth.jwks_file)
    )


def _read_secret(auth: Auth, credentials: Path | None) -> Key | None:
    source = secret_source(auth, credentials)
    if source is None:
        return None
    # Editors end a file with a line break, which is no part of the secret.
    name, secret = source[0], _read(*source).rstrip(b"\r\n")
    algorithms = _pinned(name, auth, frozenset(_MIN_SECRET_BYTES), len(secret))
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError as error:
        raise ConfigError(
            f"{name}: holds half of a key pair, or a certificate; expected random bytes"
            " (public keys belong into auth.jwks_file)"
        ) from error
    return Key(None, algorithms, secret)


def _read_jwks(auth: Auth, credentials: Path | None) -> list[Key]:
    source = jwks_source(auth, credentials)
    if source is None:
        return []
    name, path = source
    try:
        jwks = msgspec.json.decode(_read(name, path), type=_JwkSet).keys
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
    return Key(kid, _pinned(name, auth, fitting, size), material)


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
