"""Tokens: which keys can be read, and which tokens they verify."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broadcasterd.access.grants import Action, Grant
from broadcasterd.access.tokens import (
    MAX_KEYS,
    MAX_TOKEN_CHARS,
    InvalidToken,
    KeyRing,
    TokenFault,
    credentials_directory,
    signing_secret,
)
from broadcasterd.config import Auth, ConfigError
from tests.support.tokens import (
    EC_KEY,
    EDWARDS_KEY,
    RSA_KEY,
    SECRET,
    claims,
    public_jwk,
    sign,
    write_jwks,
)

ALL_HS = ("HS256", "HS384", "HS512")
ALL = (*ALL_HS, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
P384_KEY = ec.generate_private_key(ec.SECP384R1())
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

Load = Callable[..., KeyRing]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads a key ring: of the secret, or of JWKs where there are any."""

    def load(*jwks: dict[str, object], secret: str | None = None, **auth: object) -> KeyRing:
        if jwks:
            auth["jwks_file"] = write_jwks(tmp_path / "jwks.json", *jwks)
        if secret is not None or not jwks:
            path = auth["secret_file"] = tmp_path / "secret"
            path.write_text(secret or SECRET)
        return KeyRing.load(Auth(**auth), None)  # type: ignore[arg-type] # as the test means it

    return load


def refused(ring: KeyRing, token: str) -> TokenFault:
    """Return why a token is refused."""
    with pytest.raises(InvalidToken) as caught:
        ring.verify(token)
    return caught.value.fault


def by_hand(header: object, body: object, key: bytes = SECRET.encode()) -> str:
    """Make a token that no library would make, with a signature of HS256."""
    parts = [header, body]
    texts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    signed = b".".join(base64.urlsafe_b64encode(text).rstrip(b"=") for text in texts)
    signature = hmac.new(key, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


# --- verifying -------------------------------------------------------------------------------


def test_a_token_grants_what_it_claims(load: Load) -> None:
    exp = int(time.time()) + 60
    body = claims(subscribe=("a*",), publish=("b",), sub="somebody", exp=exp)

    assert load().verify(sign(body)) == Grant("somebody", ("a*",), ("b",), expires_at=exp)


@pytest.mark.parametrize("algorithm", ALL_HS)
def test_each_kind_of_secret_signature_is_verified(load: Load, algorithm: str) -> None:
    token = sign(claims(admin=True), algorithm=algorithm)

    assert load(algorithms=(algorithm,)).verify(token).allows(Action.ADMIN)
    assert refused(load(algorithms=("HS256",)), sign(claims(), algorithm="HS512")) is (
        TokenFault.ALGORITHM
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        *((RSA_KEY, f"{family}{bits}") for family in ("RS", "PS") for bits in (256, 384, 512)),
        (EC_KEY, "ES256"),
        (P384_KEY, "ES384"),
        (EDWARDS_KEY, "EdDSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_kind_of_key_pair_is_verified(
    load: Load, key: rsa.RSAPrivateKey, algorithm: str
) -> None:
    ring = load(public_jwk(key, kid="k"), algorithms=(algorithm,))
    token = sign(claims(admin=True), key, algorithm, kid="k")

    assert ring.verify(token).allows(Action.ADMIN)
    assert refused(ring, token[:-8] + "AAAAAAAA") is TokenFault.SIGNATURE


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c", "..", "é.é.é", "\ud800", "x" * (MAX_TOKEN_CHARS + 1), " ", "a.b.c.d"],
)
def test_what_is_no_token_is_refused(load: Load, token: str) -> None:
    assert refused(load(), token) is TokenFault.MALFORMED


@pytest.mark.parametrize(
    "header",
    [
        [],
        7,
        b"[" * 5000,
        b"\xff",
        {"alg": "HS256", "kid": 7},
        {"alg": "HS256", "crit": ["x"]},
        {"alg": "HS256", "b64": False},
    ],
)
def test_a_header_of_another_form_is_refused(load: Load, header: object) -> None:
    assert refused(load(), by_hand(header, claims())) is TokenFault.MALFORMED


@pytest.mark.parametrize("algorithm", ["none", "NONE", "nOnE", "", None, ["HS256"], {}, 7])
def test_an_unsigned_token_proves_nothing(load: Load, algorithm: object) -> None:
    signed = by_hand({"alg": algorithm}, claims())
    unsigned = signed[: signed.rindex(".") + 1]
    ring = load(public_jwk(RSA_KEY), secret=SECRET, algorithms=("HS256", "RS256"))

    assert {refused(ring, token) for token in (signed, unsigned)} == {TokenFault.ALGORITHM}


def test_a_public_key_is_no_secret(load: Load) -> None:
    """The classic: sign with HS256, and with the public key, which everybody has, as secret."""
    public = RSA_KEY.public_key()
    encodings = [
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    encodings.append(json.dumps(public_jwk(RSA_KEY)).encode())
    for ring, fault in [
        (load(public_jwk(RSA_KEY), algorithms=("RS256",)), TokenFault.ALGORITHM),
        (
            load(public_jwk(RSA_KEY), secret=SECRET, algorithms=("RS256", "HS256")),
            TokenFault.SIGNATURE,
        ),
    ]:
        for encoded in encodings:
            for key in (encoded, encoded.strip()):
                token = by_hand({"alg": "HS256", "typ": "JWT"}, claims(admin=True), key)

                assert refused(ring, token) is fault


def test_a_token_does_not_bring_its_own_key(load: Load) -> None:
    ring = load(public_jwk(RSA_KEY), algorithms=("RS256",))
    token = sign(claims(), OTHER_RSA_KEY, "RS256", jwk=public_jwk(OTHER_RSA_KEY), jku="http://x/")

    assert refused(ring, token) is TokenFault.SIGNATURE


def test_another_secret_is_refused(load: Load) -> None:
    assert refused(load(), sign(claims(), SECRET[::-1])) is TokenFault.SIGNATURE


def test_what_was_changed_is_refused(load: Load) -> None:
    header, _, signature = sign(claims(subscribe=("a",))).split(".")
    _, more, _ = sign(claims(subscribe=("*",))).split(".")

    assert refused(load(), f"{header}.{more}.{signature}") is TokenFault.SIGNATURE


# --- several keys ----------------------------------------------------------------------------


@pytest.fixture
def three_keys(load: Load) -> KeyRing:
    return load(
        public_jwk(RSA_KEY, kid="old"),
        public_jwk(OTHER_RSA_KEY, kid="new"),
        public_jwk(EC_KEY),
        secret=SECRET,
        algorithms=("RS256", "ES256", "HS256"),
    )


def test_the_key_that_a_token_names_verifies_it(three_keys: KeyRing) -> None:
    for key, kid in ((RSA_KEY, "old"), (OTHER_RSA_KEY, "new")):
        assert three_keys.verify(sign(claims(sub=kid), key, "RS256", kid=kid)).subject == kid


def test_no_other_key_verifies_it(three_keys: KeyRing) -> None:
    assert refused(three_keys, sign(claims(), RSA_KEY, "RS256", kid="new")) is TokenFault.SIGNATURE


@pytest.mark.parametrize("kid", ["other", "OLD", "old "])
def test_a_token_of_a_key_that_is_unknown_is_refused(three_keys: KeyRing, kid: str) -> None:
    fault = refused(three_keys, sign(claims(), RSA_KEY, "RS256", kid=kid))

    assert fault is TokenFault.UNKNOWN_KEY


def test_a_key_without_a_name_may_be_the_one_that_a_token_names(three_keys: KeyRing) -> None:
    assert three_keys.verify(sign(claims(sub="me"), kid="its own name for it")).subject == "me"


def test_a_key_is_for_its_own_algorithms(load: Load) -> None:
    ring = load(
        public_jwk(RSA_KEY, kid="r"), public_jwk(EC_KEY, kid="e"), algorithms=("RS256", "ES256")
    )

    assert refused(ring, sign(claims(), EC_KEY, "ES256", kid="r")) is TokenFault.UNKNOWN_KEY


def test_a_token_that_names_no_key_is_verified_by_any_that_fits(three_keys: KeyRing) -> None:
    admin = claims(admin=True)
    signed = [sign(admin, key, "RS256") for key in (RSA_KEY, OTHER_RSA_KEY)]
    signed += [sign(admin, EC_KEY, "ES256"), sign(admin)]

    assert all(three_keys.verify(token).admin for token in signed)


def test_secrets_can_be_several_too(load: Load) -> None:
    secrets = {kid: kid.encode() * 8 for kid in ("2025", "2026")}
    jwks: list[dict[str, object]] = [
        {"kty": "oct", "kid": kid, "k": base64.urlsafe_b64encode(secret).decode()}
        for kid, secret in secrets.items()
    ]
    ring = load(*jwks)

    for kid, secret in secrets.items():
        assert ring.verify(sign(claims(sub=kid), secret.decode(), kid=kid)).subject == kid


# --- claims ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "body", "fault"),
    [
        ({}, {"exp": -11}, TokenFault.EXPIRED),
        ({}, {"nbf": 20}, TokenFault.NOT_YET_VALID),
        ({}, {"iat": 20}, TokenFault.NOT_YET_VALID),
        ({"audience": "us"}, {}, TokenFault.AUDIENCE),
        ({"audience": "us"}, {"aud": "them"}, TokenFault.AUDIENCE),
        ({"audience": "us"}, {"aud": ["them", "others"]}, TokenFault.AUDIENCE),
        ({}, {"aud": "them"}, TokenFault.AUDIENCE),
        ({"issuer": "us"}, {}, TokenFault.ISSUER),
        ({"issuer": "us"}, {"iss": "them"}, TokenFault.ISSUER),
        ({}, {"sub": 7}, TokenFault.CLAIMS),
        ({}, {"sub": ""}, TokenFault.CLAIMS),
        ({}, {"broadcaster": "*"}, TokenFault.CLAIMS),
    ],
)
def test_a_claim_that_does_not_hold_is_named(
    load: Load, settings: dict[str, object], body: dict[str, object], fault: TokenFault
) -> None:
    now = time.time()
    times = {name: now + body[name] for name in ("exp", "nbf", "iat") if name in body}  # type: ignore[operator] # numbers
    token = by_hand({"alg": "HS256"}, claims() | body | times)

    assert refused(load(leeway=10, **settings), token) is fault


@pytest.mark.parametrize("exp", ["soon", "9999999999", True, None, [], float("nan"), float("inf")])
def test_an_expiry_that_is_no_time_does_not_make_a_token_last(load: Load, exp: object) -> None:
    token = by_hand({"alg": "HS256"}, claims() | {"exp": exp})

    assert refused(load(), token) in {TokenFault.CLAIMS, TokenFault.EXPIRED}


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({"audience": "us"}, {"aud": "us"}),
        ({"audience": "us"}, {"aud": ["them", "us"]}),
        ({"issuer": "us"}, {"iss": "us"}),
        ({}, {"iss": "anybody"}),
    ],
)
def test_a_claim_that_holds_is_accepted(
    load: Load, settings: dict[str, object], body: dict[str, object]
) -> None:
    assert load(**settings).verify(sign(claims(admin=True) | body)).admin


def test_a_token_may_last_for_ever(load: Load) -> None:
    assert load().verify(sign(claims(ttl=None))).expires_at is None


def test_the_leeway_is_for_those_who_come_late(load: Load) -> None:
    ring, now = load(leeway=60), time.time()
    early = ring.verify(sign(claims(ttl=10))).expires_at
    late = ring.verify(sign(claims(ttl=-10))).expires_at

    assert early == pytest.approx(now + 10, abs=5)
    assert late == pytest.approx(now + 50, abs=5)
    assert refused(ring, sign(claims(ttl=-61))) is TokenFault.EXPIRED


def test_what_is_shown_of_a_fault_fits_into_a_header_field() -> None:
    assert all(fault.isascii() and fault.isprintable() for fault in TokenFault)
    assert not any(set(fault) & set('"\\') for fault in TokenFault)


# --- reading keys ----------------------------------------------------------------------------


def problem(auth: Auth, credentials: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        KeyRing.load(auth, credentials)
    return str(caught.value)


def test_without_any_key_it_says_what_to_set() -> None:
    told = problem(Auth())

    assert told.startswith("auth.secret_file: expected")
    assert "auth.jwks_file" in told


def test_without_tokens_no_key_is_looked_for() -> None:
    assert KeyRing.load(Auth(mode="none", secret_file=Path("/nonexistent")), None).keys == ()


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

    assert found.startswith("auth.secret_file: ")
    assert told in found


def test_a_secret_in_the_place_of_its_file_is_not_repeated() -> None:
    assert problem(Auth(secret_file=Path(SECRET))) == (
        "auth.secret_file: cannot be read: No such file or directory"
    )


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
        load(public_jwk(RSA_KEY, kid="k"), public_jwk(EC_KEY, kid="k"), algorithms=ALL)


def test_there_is_a_limit_to_keys(load: Load) -> None:
    jwks = [public_jwk(EC_KEY, kid=str(number)) for number in range(MAX_KEYS + 1)]

    assert len(load(*jwks[1:], algorithms=("ES256",)).keys) == MAX_KEYS
    with pytest.raises(ConfigError, match=f"expected 1 to {MAX_KEYS}"):
        load(*jwks, algorithms=("ES256",))


def test_credentials_of_systemd_win(tmp_path: Path) -> None:
    (tmp_path / "configured").write_text("x" * 64)
    auth = Auth(secret_file=tmp_path / "configured", algorithms=("HS256", "RS256"))
    credentials = tmp_path / "credentials"
    credentials.mkdir()

    assert refused(KeyRing.load(auth, credentials), sign(claims())) is TokenFault.SIGNATURE

    (credentials / "secret").write_text(SECRET)
    write_jwks(credentials / "jwks.json", public_jwk(RSA_KEY))
    ring = KeyRing.load(auth, credentials)

    assert ring.verify(sign(claims(admin=True))).admin
    assert ring.verify(sign(claims(admin=True), RSA_KEY, "RS256")).admin


@pytest.mark.parametrize(("name", "text"), [("secret", "short"), ("jwks.json", "{")])
def test_a_credential_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert problem(Auth(), tmp_path).startswith(f"$CREDENTIALS_DIRECTORY/{name}: ")


def test_where_the_credentials_are() -> None:
    assert credentials_directory({"CREDENTIALS_DIRECTORY": "/run/x"}) == Path("/run/x")
    assert credentials_directory({"CREDENTIALS_DIRECTORY": ""}) is None
    assert credentials_directory({}) is None


def test_a_key_ring_does_not_show_its_keys(load: Load) -> None:
    assert SECRET not in repr(load())


@pytest.mark.parametrize(("algorithms", "chosen"), [(ALL_HS[::-1], "HS256"), (("HS512",), "HS512")])
def test_what_signs_is_verified_too(
    tmp_path: Path, algorithms: tuple[str, ...], chosen: str
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    auth = Auth(secret_file=tmp_path / "secret", algorithms=algorithms)  # type: ignore[arg-type] # texts
    algorithm, secret = signing_secret(auth, None)

    assert algorithm == chosen
    assert KeyRing.load(auth, None).verify(jwt.encode(claims(admin=True), secret, algorithm)).admin


def test_public_keys_sign_nothing(tmp_path: Path) -> None:
    jwks = write_jwks(tmp_path / "jwks.json", public_jwk(RSA_KEY))
    with pytest.raises(ConfigError, match=r"auth\.secret_file: not set; .* private ones"):
        signing_secret(Auth(jwks_file=jwks, algorithms=("RS256",)), None)
