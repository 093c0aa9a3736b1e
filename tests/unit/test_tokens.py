"""Tokens: which are good, and what they grant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broadcasterd.access.grants import Action, Grant
from broadcasterd.access.rotation import Previous, Secrets
from broadcasterd.access.tokens import MAX_TOKEN_CHARS, KeyRing, TokenFault
from broadcasterd.config import Auth
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
)

ALL_HS = ("HS256", "HS384", "HS512")
P384_KEY = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that loads a key ring."""
    return loader(tmp_path)


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
    secrets = {kid: kid * 8 for kid in ("2025", "2026")}
    ring = load(*(oct_jwk(secret, kid=kid) for kid, secret in secrets.items()))

    for kid, secret in secrets.items():
        assert ring.verify(sign(claims(sub=kid), secret, kid=kid)).subject == kid
    assert refused(ring, sign(claims(), secrets["2025"], kid="2026")) is TokenFault.SIGNATURE


# --- secrets of before -----------------------------------------------------------------------


Rotated = Callable[..., KeyRing]


@pytest.fixture
def rotated(tmp_path: Path) -> Rotated:
    """Return a function that loads keys after another secret took the place of SECRET."""

    def load(*, ago: float = 0.0, previous: str = SECRET, **auth: object) -> KeyRing:
        path = tmp_path / "secret"
        path.write_text(SECRET[::-1])
        before = Secrets(None, (Previous(previous.encode(), time.time() - ago),))
        settings = Auth(secret_file=path, **auth)  # type: ignore[arg-type] # as the test means it
        return KeyRing.load(settings, before)

    return load


def test_the_secret_of_before_is_good_for_a_while(rotated: Rotated) -> None:
    ring = rotated(previous_secret_ttl=60.0)

    assert ring.verify(sign(claims(sub="old"))).subject == "old"
    assert ring.verify(sign(claims(sub="new"), SECRET[::-1])).subject == "new"
    assert ring.good_until == pytest.approx(time.time() + 60, abs=10)
    assert refused(ring.at(ring.good_until), sign(claims())) is TokenFault.SIGNATURE
    assert inf == ring.at(ring.good_until).good_until


@pytest.mark.parametrize(("ago", "ttl"), [(0.0, 0.0), (61.0, 60.0)])
def test_and_then_no_more(rotated: Rotated, ago: float, ttl: float) -> None:
    ring = rotated(ago=ago, previous_secret_ttl=ttl)

    assert refused(ring, sign(claims())) is TokenFault.SIGNATURE
    assert () == ring.secrets.previous


@pytest.mark.parametrize("size", [32, 63])
def test_the_secret_of_before_verifies_what_it_is_long_enough_for(
    rotated: Rotated, size: int
) -> None:
    ring = rotated(previous=SECRET[:size], algorithms=("HS256", "HS512"))

    assert ring.verify(sign(claims(admin=True), SECRET[:size])).admin
    assert ["HS256"] == [*ring.keys[-1].algorithms]


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


def test_who_comes_on_the_dot_comes_late(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    ring, exp = load(leeway=60), int(time.time()) + 10
    token = sign(claims(exp=exp))
    monkeypatch.setattr(time, "time", lambda: exp)

    assert ring.verify(token).expires_at == exp + 60


def test_a_token_has_so_many_characters_at_most(load: Load) -> None:
    size = MAX_TOKEN_CHARS * 3 // 4  # of what is encoded as so many
    longest = max(
        (sign(claims(admin=True, filling="x" * n)) for n in range(size - 300, size)),
        key=lambda token: (len(token) <= MAX_TOKEN_CHARS, len(token)),
    )

    assert MAX_TOKEN_CHARS == len(longest)
    assert load().verify(longest).admin


def test_what_is_shown_of_a_fault_fits_into_a_header_field() -> None:
    assert all(fault.isascii() and fault.isprintable() for fault in TokenFault)
    assert not any(set(fault) & set('"\\') for fault in TokenFault)
