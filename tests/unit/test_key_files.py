"""The keys of tokens: which can be read, what is said of them, and which sign."""

from __future__ import annotations

import hashlib
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from broadcasterd.access.key_files import MAX_KEYS, Key, signing_key
from broadcasterd.access.tokens import KeyRing, TokenFault
from broadcasterd.config import Auth, ConfigError, Secret
from tests.support.tokens import (
    EC_KEY,
    EDWARDS_KEY,
    OTHER_RSA_KEY,
    RSA_KEY,
    SECRET,
    Load,
    claims,
    loader,
    oct_jwk,
    public_jwk,
    refused,
    sign,
    write_jwks,
)

ALL_HS = ("HS256", "HS384", "HS512")
ALL = (*ALL_HS, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads a key ring."""
    return loader(tmp_path)


def problem(auth: Auth) -> str:
    """Return what is wrong with the keys of these settings."""
    with pytest.raises(ConfigError) as caught:
        KeyRing.load(auth)
    return str(caught.value)


def test_without_any_key_it_says_what_to_set() -> None:
    told = problem(Auth())

    assert told.startswith("auth.secret_file: expected")
    assert "auth.jwks_file" in told


def test_without_tokens_no_key_is_looked_for() -> None:
    assert KeyRing.load(Auth(mode="none", secret_file=Path("/nonexistent"))).keys == ()


@pytest.mark.parametrize(
    ("secret", "algorithms", "told"),
    [
        ("", ("HS256",), "holds 0 bytes, expected at least 32 for HS256"),
        ("x" * 31 + "\n", ("HS256",), "holds 31 bytes, expected at least 32 for HS256"),
        ("x" * 47, ("HS256", "HS384"), "holds 47 bytes, expected at least 48 for HS384"),
        ("x" * 63, ("HS512",), "holds 63 bytes, expected at least 64 for HS512"),
        ("x" * 64, ("RS256",), "fits none of auth.algorithms = RS256"),
        ("-----BEGIN PUBLIC KEY-----\nxxxxxxxx\n-----END PUBLIC KEY-----", ("HS256",), "key pair"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named(
    tmp_path: Path, secret: str, algorithms: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(secret)

    found = problem(Auth(secret_file=path, algorithms=algorithms))  # type: ignore[arg-type] # texts

    assert found.startswith(f'auth.secret_file = "{path}": ')
    assert told in found


@pytest.mark.parametrize("secret", [SECRET, f"/{SECRET}", f"{SECRET[:9]}/{SECRET}", "x" * 300])
def test_a_secret_in_the_place_of_its_file_is_not_repeated(secret: str) -> None:
    assert problem(Auth(secret_file=Path(secret))).startswith("auth.secret_file: cannot be read: ")


def test_the_secret_of_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x" * 64)
    auth = Auth(secret=Secret(SECRET), secret_file=tmp_path / "secret")

    assert KeyRing.load(auth).verify(sign(claims(admin=True))).admin
    assert signing_key(auth, None) == ("HS256", SECRET.encode())


def test_a_secret_of_the_environment_that_cannot_be_used_is_named_but_not_repeated() -> None:
    told = problem(Auth(secret=Secret("s3cret")))

    assert "BROADCASTERD_AUTH__SECRET: holds 6 bytes, expected at least 32" in told
    assert "s3cret" not in told


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    assert problem(Auth(secret_file=tmp_path / "secrte")) == (
        f'auth.secret_file = "{tmp_path}/secrte": cannot be read: No such file or directory'
    )


@pytest.mark.parametrize("path", ["/etc/none/secret", "keys/none/secret"])
def test_it_is_a_file_s_name_if_there_is_the_directory_that_it_begins_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("keys").mkdir()

    assert problem(Auth(secret_file=Path(path))).startswith(f'auth.secret_file = "{path}": ')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a JWK Set"),
        ("[]", "expected a JWK Set"),
        ("{}", "expected a JWK Set"),
        ('{"keys": [7]}', "expected a JWK Set"),
        ('{"keys": []}', "has 0 keys"),
        ('{"keys": [{"kty": "RSA", "use": "enc"}]}', "has 0 keys"),
        ('{"keys": [{}]}', "key 0: fits none of auth.algorithms"),
        ('{"keys": [{}]}', "expected one that suits it among them (no signature)"),
        ('{"keys": [{"kty": "RSA", "kid": 7}]}', "kid: expected a text"),
        ('{"keys": [{"kty": "RSA", "kid": "k"}]}', "key 'k': expected a JWK of type 'RSA'"),
        ('{"keys": [{"kty": "RSA", "n": 7, "e": []}]}', "expected a JWK of type 'RSA'"),
        ('{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}', "expected"),
        ('{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}', "of type 'EC'"),
        ('{"keys": [{"kty": "EC", "crv": "Ed25519", "x": "AA"}]}', "of type 'EC'"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "!"}]}', "of type 'OKP'"),
        ('{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}', "holds 5 bytes, expected at least"),
        ('{"keys": [{"kty": "oct"}]}', "of type 'oct'"),
        ('{"keys": [{"kty": "EC", "crv": "secp256k1"}]}', "fits none of auth.algorithms"),
    ],
)
def test_a_jwk_set_that_cannot_be_used_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(text)

    found = problem(Auth(jwks_file=path, algorithms=ALL))  # type: ignore[arg-type] # texts

    assert found.startswith(f'auth.jwks_file = "{path}": ')
    assert told in found


def test_a_private_key_has_no_place_here(load: Load) -> None:
    jwk = public_jwk(EC_KEY, d="s3cret")
    with pytest.raises(ConfigError, match="holds a private key") as caught:
        load(jwk, algorithms=("ES256",))

    assert "s3cret" not in str(caught.value)


def test_what_is_wrong_with_a_secret_key_is_told_without_it(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"kty": "oct", "k": "s3cret s3cret"})

    assert "s3cret" not in str(caught.value)


def test_a_short_rsa_key_is_refused(load: Load) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (the point)
    with pytest.raises(ConfigError, match="has 1024 bits, expected at least 2048"):
        load(public_jwk(short), algorithms=("RS256",))


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (public_jwk(RSA_KEY), ("HS256",)),
        (public_jwk(RSA_KEY), ("ES256", "EdDSA")),
        (public_jwk(RSA_KEY, alg="RS512"), ("RS256",)),
        (public_jwk(RSA_KEY, alg="ES256"), ("RS256", "ES256")),
        (public_jwk(EC_KEY), ("ES384",)),
        (public_jwk(EDWARDS_KEY), ("RS256",)),
    ],
)
def test_a_key_that_fits_no_accepted_algorithm_is_refused(
    load: Load, jwk: dict[str, object], algorithms: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"fits none of auth\.algorithms"):
        load(jwk, algorithms=algorithms)


def test_a_key_that_names_its_algorithm_is_for_no_other(load: Load) -> None:
    ring = load(public_jwk(RSA_KEY, alg="RS256"), algorithms=("RS256", "PS256"))

    assert ring.verify(sign(claims(admin=True), RSA_KEY, "RS256")).admin
    assert refused(ring, sign(claims(), RSA_KEY, "PS256")) is TokenFault.ALGORITHM


def test_keys_for_encryption_are_passed_over(load: Load) -> None:
    encryption = public_jwk(OTHER_RSA_KEY, use="enc", alg="RSA-OAEP")

    assert len(load(encryption, public_jwk(RSA_KEY, use="sig"), algorithms=("RS256",)).keys) == 1


def test_each_key_has_a_name_of_its_own(load: Load) -> None:
    with pytest.raises(ConfigError, match="has several of 'k'"):
        load(
            *(public_jwk(key, kid=kid) for kid in "lk" for key in (RSA_KEY, EC_KEY)), algorithms=ALL
        )


def test_there_is_a_limit_to_keys(load: Load) -> None:
    jwks = [public_jwk(EC_KEY, kid=str(number)) for number in range(MAX_KEYS + 1)]

    assert len(load(*jwks[1:], algorithms=("ES256",)).keys) == MAX_KEYS
    with pytest.raises(ConfigError, match=f"expected 1 to {MAX_KEYS}"):
        load(*jwks, algorithms=("ES256",))


def test_a_key_ring_does_not_show_its_keys(load: Load) -> None:
    assert SECRET not in repr(load())


# --- what may be said of them ----------------------------------------------------------------


def test_a_key_is_told_by_the_beginning_of_its_digest(load: Load) -> None:
    """As `sha256sum` has it of a secret, and `openssl` of a public key."""
    ring = load(public_jwk(EC_KEY, kid="e"), secret=SECRET, algorithms=("HS256", "ES256"))
    spki = EC_KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    assert [
        f"secret {hashlib.sha256(SECRET.encode()).hexdigest()[:12]}",
        f"key 'e' {hashlib.sha256(spki).hexdigest()[:12]}",
    ] == ring.names()


def test_one_that_is_good_for_a_time_says_until_when() -> None:
    key = Key(None, frozenset({"HS256"}), b"x", "previous secret", 1764064800.0)

    assert str(key).endswith(" until 2025-11-25T10:00:00Z")


# --- signing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithms", "chosen"), [(ALL_HS[::-1], "HS256"), (("HS512",), "HS512")])
def test_what_signs_is_verified_too(
    tmp_path: Path, algorithms: tuple[str, ...], chosen: str
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    auth = Auth(secret_file=tmp_path / "secret", algorithms=algorithms)  # type: ignore[arg-type] # texts
    algorithm, secret = signing_key(auth, None)

    assert algorithm == chosen
    assert KeyRing.load(auth).verify(jwt.encode(claims(admin=True), secret, algorithm)).admin


def test_public_keys_sign_nothing(tmp_path: Path) -> None:
    jwks = write_jwks(tmp_path / "jwks.json", public_jwk(RSA_KEY))
    with pytest.raises(ConfigError, match=r"auth\.secret_file: not set; .* private ones"):
        signing_key(Auth(jwks_file=jwks, algorithms=("RS256",)), None)


def test_a_secret_of_a_jwk_set_signs_by_its_name(tmp_path: Path) -> None:
    jwks = write_jwks(
        tmp_path / "jwks.json", oct_jwk(SECRET, kid="2026", alg="HS512"), public_jwk(RSA_KEY)
    )
    auth = Auth(jwks_file=jwks, algorithms=("HS256", "HS512", "RS256"))
    algorithm, secret = signing_key(auth, "2026")
    token = jwt.encode(claims(admin=True), secret, algorithm, headers={"kid": "2026"})

    assert "HS512" == algorithm
    assert KeyRing.load(auth).verify(token).admin


def test_a_name_that_no_secret_has_is_told_with_those_there_are(tmp_path: Path) -> None:
    jwks = write_jwks(
        tmp_path / "jwks.json", oct_jwk(SECRET, kid="2026"), public_jwk(RSA_KEY, kid="public")
    )
    auth = Auth(jwks_file=jwks, algorithms=("HS256", "RS256"))
    for kid in ("2025", "public"):
        with pytest.raises(ConfigError, match=rf"^--kid {kid}: expected .* \(2026\)$"):
            signing_key(auth, kid)
