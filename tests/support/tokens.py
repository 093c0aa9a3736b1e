"""Tokens as the back end of an application makes them, signed with a secret of the test's own."""

from __future__ import annotations

import json
import math
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import AllowedPrivateKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from broadcasterd.access.tokens import InvalidToken, KeyRing, TokenFault
from broadcasterd.config import Auth

Load = Callable[..., KeyRing]
"""Loads a key ring: of the secret, or of JWKs where there are any."""

SECRET = "a-secret-of-the-tests-and-of-no-use-elsewhere-0123456789-abcdefg"
"""64 bytes: long enough for each of the HS algorithms."""

# Better keys take longer to make, and nobody here needs them.
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EDWARDS_KEY = ed25519.Ed25519PrivateKey.generate()


def jwt_mode(directory: Path, **keys: object) -> dict[str, object]:
    """Write the secret, and return ``[auth]`` settings that ask for tokens, to the second."""
    path = directory / "secret"
    path.write_text(f"{SECRET}\n")
    return {"mode": "jwt", "secret_file": str(path), "leeway": 0, **keys}


def claims(
    *,
    subscribe: tuple[str, ...] = (),
    publish: tuple[str, ...] = (),
    admin: bool = False,
    ttl: float | None = 3600,
    **others: object,
) -> dict[str, object]:
    """Return the claims of a token that expires in ``ttl`` seconds, or up to one more."""
    granted: dict[str, object] = {"subscribe": subscribe, "publish": publish, "admin": admin}
    expires = {} if ttl is None else {"exp": math.ceil(time.time() + ttl)}
    return {"broadcaster": granted, **expires, **others}


def sign(
    body: Mapping[str, object],
    key: AllowedPrivateKeys | str = SECRET,
    algorithm: str = "HS256",
    **header: object,
) -> str:
    """Sign a token; ``header`` are fields such as ``kid``."""
    return jwt.encode(dict(body), key, algorithm, headers=header)


def bearer(token: str) -> dict[str, str]:
    """Return the header field that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def public_jwk(key: AllowedPrivateKeys, **members: object) -> dict[str, object]:
    """Return the public half of a key as a JWK."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {**jwk, **members}


def write_jwks(path: Path, *jwks: Mapping[str, object]) -> Path:
    """Write a JWK Set, and return its path."""
    path.write_text(json.dumps({"keys": jwks}))
    return path


def oct_jwk(secret: str, **members: object) -> dict[str, object]:
    """Return a secret as a JWK."""
    return {"kty": "oct", "k": urlsafe_b64encode(secret.encode()).decode().rstrip("="), **members}


def loader(directory: Path) -> Load:
    """Return a function that loads a key ring of files in a directory."""

    def load(*jwks: dict[str, object], secret: str | None = None, **auth: object) -> KeyRing:
        if jwks:
            auth["jwks_file"] = write_jwks(directory / "jwks.json", *jwks)
        if secret is not None or not jwks:
            path = auth["secret_file"] = directory / "secret"
            path.write_text(secret or SECRET)
        return KeyRing.load(Auth(**auth))  # type: ignore[arg-type] # as the test means it

    return load


def refused(ring: KeyRing, token: str) -> TokenFault:
    """Return why a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        ring.verify(token)
    return caught.value.fault
