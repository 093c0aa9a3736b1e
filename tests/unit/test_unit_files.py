"""The unit files as texts: what systemd cannot know about them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from broadcasterd.config import Config
from broadcasterd.core.breaker import MIB, Thresholds

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = (UNITS / "broadcasterd.service").read_text()


def test_the_template_is_the_service_with_names_of_its_own() -> None:
    expected = SERVICE
    for of_the_service, of_an_instance in [
        ("Server-Sent Events\n", "Server-Sent Events (%i)\n"),
        ("broadcasterd.socket", "broadcasterd@%i.socket"),
        ("/etc/broadcasterd/broadcasterd.toml", "/etc/broadcasterd/%i.toml"),
        ("/etc/broadcasterd/secret", "/etc/broadcasterd/%i.secret"),
        ("User=broadcasterd\n", "User=broadcasterd-%i\n"),
        ("Directory=broadcasterd\n", "Directory=broadcasterd-%i\n"),
    ]:
        assert of_the_service in expected
        expected = expected.replace(of_the_service, of_an_instance)

    assert expected == (UNITS / "broadcasterd@.service").read_text()


@pytest.mark.parametrize("setting", ["MemoryHigh", "MemoryMax"])
def test_the_limits_of_memory_leave_the_thresholds_as_they_are(setting: str) -> None:
    [megabytes] = re.findall(rf"^{setting}=(\d+)M$", SERVICE, re.MULTILINE)
    memory = Config().memory
    derive = partial(
        Thresholds.derive,
        warning_mb=memory.warning_mb,
        critical_mb=memory.critical_mb,
        recover_below=memory.recover_below,
    )

    assert derive() == derive(limit=int(megabytes) * MIB)


def test_there_are_descriptors_for_all_subscribers() -> None:
    limits = [
        re.findall(rf"^{name}=(\d+)$", SERVICE, re.MULTILINE)
        for name in ("LimitNOFILE", "FileDescriptorStoreMax")
    ]

    assert all(int(limit) > Config().sessions.max_subscribers for [limit] in limits)
