"""The hook for private keys and tokens: what it knows, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import loaded

A16, A36 = "A1b2C3d4E5f6G7h8", "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"

SECRETS = {
    "a private key": f"-----BEGIN {'OPENSSH'} PRIVATE KEY-----",
    "a private key of age": f"AGE-SECRET-KEY-1{A36.upper()}{A36.upper()}"[:74],
    "a private JSON Web Key": f'{{"kty": "oct", "k": "{A36}"}}',
    "a JSON Web Token": f"Authorization: Bearer eyJ{A16}.eyJ{A16}.{A36}",
    "a key of AWS": f"id = {'AKIA'}{A16.upper()}",
    "a token of GitHub": f"https://ghp_{A36}@example.org",
    "a token of GitLab": f"glpat-{A36}",
    "a key of Google": f"?key=AIza{A36}",
    "a token of npm": f"//example.org/:_auth=npm_{A36}",
    "a token of PyPI": f"pypi-AgEI{A36}{A36}",
    "a token of Slack": f"xoxb-123456789012-{A16}",
    "a web hook of Slack": f"https://{'hooks'}.slack.com/services/T{A16}/B{A16}/{A36}",
    "a key of Stripe": f"sk_live_{A36}",
    "a key of an HTTP API": f"sk-proj-{A36}",
    "a secret with its name": f'client_secret = "{A36}"',
}


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """Load the script."""
    with loaded("hooks/find_secrets.py") as module:
        yield module


def test_there_is_an_example_of_every_kind(script: ModuleType) -> None:
    assert [*SECRETS] == [*script.KINDS]


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_with_its_line_and_its_kind(script: ModuleType, kind: str) -> None:
    text = f"first\n{SECRETS[kind]}\nthird\n"

    assert [(2, kind)] == list(script.secrets_in(text))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN CERTIFICATE-----",
        "--hash=sha256:3c5677e12444c15717b902a5798264fa7909e41153cdf9ef7ad571b704a63dd9",
        f'"integrity": "sha512-{A36}{A36}=="',
        f"commit {A36.lower()}",
        "token = Authorization.parse(request.headers).token_of_the_request",
        'secret_file = "/etc/broadcasterd/secret"',
        "eyJhbGciOi…",
    ],
)
def test_what_is_none_is_left_alone(script: ModuleType, text: str) -> None:
    assert [] == list(script.secrets_in(text))


def test_a_line_that_says_so_is_passed_over(script: ModuleType) -> None:
    text = f"{SECRETS['a token of npm']} # not a secret: made up"

    assert [] == list(script.secrets_in(text))


def test_the_secret_itself_is_not_printed(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings"
    file.write_text(SECRETS["a token of npm"])

    assert 1 == script.main([str(file)])
    said = capsys.readouterr().out
    assert (True, False) == (f"{file}:1: a token of npm" in said, A36 in said)


def test_files_without_secrets_are_fine(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")

    assert 0 == script.main([str(tmp_path / "bytes")])
