"""Tokens: which are good, and what a good one grants (RFC 7515, 7519; RFC 8725).

A token is verified only with keys that fit what its header names: a public key can never be taken
for a secret. The rest of a header (``jwk``, ``jku``, ``x5u``) is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

import jwt

from broadcasterd.access.grants import Grant
from broadcasterd.access.key_files import (
    NO_KEY,
    Key,
    previous_keys,
    read_jwks,
    read_secret,
)
from broadcasterd.access.rotation import NO_SECRETS, Secrets
from broadcasterd.config import Auth, ConfigError

MAX_TOKEN_CHARS = 8 * 1024
"""Half of the head that carries it; our own have some 300."""


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
class KeyRing:
    """The keys in force, and the claims that a token needs besides. To be replaced as a whole.

    Attributes:
        keys: verify tokens.
        audience, issuer, leeway: as ``[auth]`` has them.
        secrets: the one in force and those before it, to be followed by the next.

    """

    keys: tuple[Key, ...]
    audience: str | None
    issuer: str | None
    leeway: float
    secrets: Secrets = NO_SECRETS

    @classmethod
    def load(cls, auth: Auth, before: Secrets = NO_SECRETS) -> KeyRing:
        """Read the keys; with ``mode = "none"`` there are none.

        Args:
            auth: the ``[auth]`` settings.
            before: the secrets that were in force until now: some may still be good.

        Raises:
            ConfigError: a file cannot be read, a key cannot be used, or there is none.

        """
        if auth.mode == "none":
            return cls((), auth.audience, auth.issuer, auth.leeway, before)
        secret = read_secret(auth)
        keys = ([] if secret is None else [secret]) + read_jwks(auth)
        if not keys:
            raise ConfigError(NO_KEY)
        current = None if secret is None else secret.secret
        secrets = before.followed_by(current, ttl=auth.previous_secret_ttl, now=time.time())
        keys += previous_keys(secrets, auth)
        return cls(tuple(keys), auth.audience, auth.issuer, auth.leeway, secrets)

    @property
    def good_until(self) -> float:
        """The Unix time at which the next of the keys is no longer good; mostly never."""
        return min((key.good_until for key in self.keys), default=inf)

    def at(self, now: float) -> KeyRing:
        """Return the keys that are good at a Unix time."""
        return replace(self, keys=tuple(key for key in self.keys if now < key.good_until))

    def names(self) -> list[str]:
        """Return what the log says of each key, which is not the key."""
        return [str(key) for key in self.keys]

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
