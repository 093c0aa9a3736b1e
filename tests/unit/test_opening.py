"""Which engine the settings ask for, and what one needs that is not there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from broadcasterd.config import ConfigError, Settings, from_mapping
from broadcasterd.engine.opening import open_engine
from broadcasterd.figures.counts import Counts


def settings(**engine: object) -> Settings:
    return Settings(from_mapping({"engine": engine}))


@pytest.mark.parametrize(
    "engine", [{"kind": "memory"}, {"kind": "redis", "url": "redis://localhost"}]
)
def test_the_engine_is_the_one_that_is_named(engine: dict[str, object]) -> None:
    opened = open_engine(settings(**engine), None, time.time, Counts())

    assert (opened.health.kind, opened.is_shared) == (engine["kind"], engine["kind"] == "redis")


@pytest.mark.parametrize("library", ["coredis", "hiredis"])
def test_without_its_library_a_start_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    for name in [each for each in sys.modules if each.startswith("broadcasterd.engine.redis")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [library, *(each for each in sys.modules if each.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install 'broadcasterd\[redis\]'"):
        open_engine(settings(kind="redis", url="redis://localhost"), None, time.time, Counts())


def test_redis_has_to_have_a_place() -> None:
    with pytest.raises(ConfigError, match=r"expected engine\.url"):
        settings(kind="redis")


def test_a_password_is_read_from_its_file_and_not_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with pytest.raises(ConfigError) as missing:
        open_engine(
            settings(kind="redis", url="redis://localhost", password_file=str(file)),
            None,
            time.time,
            Counts(),
        )

    assert str(missing.value).startswith("engine.password_file: cannot be read")
    assert str(file) not in str(missing.value)
