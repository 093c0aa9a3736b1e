"""Credentials of systemd take the place of the settings that name files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broadcasterd.config import Config, ConfigError, from_mapping
from broadcasterd.host.credentials import (
    SETTINGS,
    credentials_directory,
    were_renewed,
    with_credentials,
)

MADE_AT = "from broadcasterd.host.credentials import made_at; print(made_at())"
CONFIG = from_mapping({"auth": {"secret_file": "/s", "jwks_file": "/j"}})


def test_where_they_are() -> None:
    assert credentials_directory({"CREDENTIALS_DIRECTORY": "/run/x"}) == Path("/run/x")
    assert credentials_directory({"CREDENTIALS_DIRECTORY": ""}) is None
    assert credentials_directory({}) is None


def test_without_any_the_settings_count(tmp_path: Path) -> None:
    assert CONFIG == with_credentials(CONFIG, None)
    assert CONFIG == with_credentials(CONFIG, tmp_path)


def test_each_takes_the_place_of_its_setting(tmp_path: Path) -> None:
    for name in SETTINGS:
        (tmp_path / name).write_text("x")
    config = with_credentials(CONFIG, tmp_path)

    for name, (section, key) in SETTINGS.items():
        assert tmp_path / name == getattr(getattr(config, section), key)


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_an_empty_one_stands_for_none(content: str, tmp_path: Path) -> None:
    for name in SETTINGS:
        (tmp_path / name).write_text(content)

    assert CONFIG == with_credentials(CONFIG, tmp_path)


def test_a_process_knows_when_it_was_made() -> None:
    now = time.time()
    made = float(subprocess.check_output([sys.executable, "-c", MADE_AT]))

    assert now - 0.5 < made < time.time()


@pytest.mark.parametrize(("age", "renewed"), [(0.0, True), (-0.5, True), (60.0, False)])
def test_what_was_written_before_a_process_was_made_was_not_renewed_for_it(
    age: float, *, renewed: bool, tmp_path: Path
) -> None:
    """Systemd leaves those as they were whose file is missing."""
    now = 1_764_064_800.0
    for name, written in (("secret", now - age), ("jwks.json", now - 3600)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (written, written))

    assert renewed is were_renewed(tmp_path, started_at=now)


def test_half_of_a_pair_is_named(tmp_path: Path) -> None:
    (tmp_path / "tls_key.pem").write_text("x")
    with pytest.raises(ConfigError) as caught:
        with_credentials(Config(), tmp_path)

    assert str(caught.value) == (
        f'server.tls_key = "{tmp_path}/tls_key.pem": expected server.tls_certificate beside it'
    )


def test_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").mkdir()
    with pytest.raises(ConfigError) as caught:
        with_credentials(CONFIG, tmp_path)

    assert str(caught.value) == (
        f'auth.jwks_file = "{tmp_path}/jwks.json": cannot be read: Is a directory'
    )
