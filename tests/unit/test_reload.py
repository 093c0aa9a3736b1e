"""Reloading: settings that change at once, that have to wait, and that are refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from broadcasterd.config import Config, ConfigError, from_mapping
from broadcasterd.reload import NEED_A_RESTART, Reloader, settle

TLS = {"tls_certificate": "/c.pem", "tls_key": "/k.pem"}


def config(**sections: Mapping[str, object]) -> Config:
    return from_mapping(sections)


# --- what can be in force --------------------------------------------------------------------


def test_what_is_the_same_is_no_change() -> None:
    settled = settle(config(), config())

    assert (config(), [], []) == (settled.config, settled.changed, settled.needs_restart)


def test_what_can_change_does() -> None:
    new = config(sessions={"max_sessions": 7}, log={"level": "debug"}, memory={"breaker": False})
    settled = settle(config(), new)

    assert new == settled.config
    assert ["sessions.max_sessions", "memory.breaker", "log.level"] == settled.changed
    assert [] == settled.needs_restart


def test_what_cannot_keeps_its_value_and_waits() -> None:
    old = config(server={"port": 1})
    new = config(server={"port": 2, "max_body_bytes": 3}, log={"format": "json", "level": "error"})
    settled = settle(old, new)

    expected = config(server={"port": 1, "max_body_bytes": 3}, log={"level": "error"})

    assert expected == settled.config
    assert ["server.max_body_bytes", "log.level"] == settled.changed
    assert ["server.port", "log.format"] == settled.needs_restart
    assert ["server.port", "log.format"] == settle(settled.config, new).needs_restart, "still"


def test_another_certificate_is_a_change() -> None:
    settled = settle(config(server=TLS), config(server=TLS | {"tls_key": "/other.pem"}))

    assert ["server.tls_key"] == settled.changed


@pytest.mark.parametrize(("old", "new"), [({}, TLS), (TLS, {})], ids=["on", "off"])
def test_tls_itself_has_to_wait(old: dict[str, str], new: dict[str, str]) -> None:
    settled = settle(config(server=old), config(server=new))

    assert config(server=old) == settled.config
    assert ["server.tls_certificate", "server.tls_key"] == settled.needs_restart


@pytest.mark.parametrize("name", sorted(NEED_A_RESTART))
def test_what_is_said_to_need_a_restart_is_a_key(name: str) -> None:
    section, key = name.split(".")

    assert hasattr(getattr(Config(), section), key)


# --- reloading -------------------------------------------------------------------------------


class Parts:
    """A file, and the parts of a daemon that are told of it."""

    def __init__(self) -> None:
        self.file: Config | ConfigError = config()
        self.refusal: ConfigError | None = None
        self.told: list[Config] = []
        self.reloader = Reloader(
            config(), load=self._load, apply=self._apply, keys=lambda: {"keys": ["secret abc"]}
        )

    def _load(self) -> Config:
        if isinstance(self.file, ConfigError):
            raise self.file
        return self.file

    async def _apply(self, new: Config) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.told.append(new)


async def test_the_parts_are_told_and_the_record_says_what_changed() -> None:
    parts = Parts()
    parts.file = config(sessions={"max_sessions": 7})
    with capture_logs() as records:
        assert "" == await parts.reloader.reload()

    [record] = records

    assert ([parts.file], parts.file) == (parts.told, parts.reloader.config)
    assert ("configuration reloaded", "info") == (record["event"], record["log_level"])
    assert ["sessions.max_sessions"] == record["changed"]
    assert record["needs_restart"] is None
    assert ["secret abc"] == record["keys"]


async def test_what_has_to_wait_is_a_warning() -> None:
    parts = Parts()
    parts.file = config(server={"port": 7})
    with capture_logs() as records:
        await parts.reloader.reload()

    [record] = records

    assert ("warning", ["server.port"]) == (record["log_level"], record["needs_restart"])
    assert config() == parts.reloader.config


async def test_a_file_that_cannot_be_used_changes_nothing() -> None:
    parts = Parts()
    parts.file = ConfigError("one\nand another")
    with capture_logs() as records:
        assert "one; and another" == await parts.reloader.reload()

    [record] = records

    assert ("reload refused", "error", "one; and another") == (
        record["event"],
        record["log_level"],
        record["why"],
    )
    assert ([], config()) == (parts.told, parts.reloader.config)


async def test_a_part_may_refuse_it_all() -> None:
    parts = Parts()
    parts.file = config(sessions={"max_sessions": 7})
    parts.refusal = ConfigError("no such certificate")

    assert "no such certificate" == await parts.reloader.reload()
    assert config() == parts.reloader.config

    parts.refusal = None

    assert "" == await parts.reloader.reload()
    assert parts.file == parts.reloader.config
