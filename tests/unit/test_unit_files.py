"""The unit files as texts: facts about them that systemd cannot know."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from broadcasterd.config import Config
from broadcasterd.handover.format import SEGMENT_BYTES
from broadcasterd.handover.restart import SPARE_DESCRIPTORS
from broadcasterd.host.credentials import SETTINGS
from broadcasterd.memory.breaker import MIB, Thresholds
from deployment.instance import CREDENTIALS, ETC

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = (UNITS / "broadcasterd.service").read_text()


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
    [limit] = re.findall(r"^LimitNOFILE=(\d+)$", SERVICE, re.MULTILINE)

    assert int(limit) > Config().sessions.max_subscribers


def test_there_is_room_in_the_store_for_as_much_as_memory_may_hold() -> None:
    [room] = re.findall(r"^FileDescriptorStoreMax=(\d+)$", SERVICE, re.MULTILINE)
    [told] = re.findall(r"^Environment=FDSTORE=(\d+)$", SERVICE, re.MULTILINE)
    segments = Config().memory.critical_mb * MIB / SEGMENT_BYTES

    assert room == told
    assert int(room) > segments + SPARE_DESCRIPTORS


def test_the_unit_hands_over_what_daemon_and_deployment_know_and_nothing_has_to_be_there() -> None:
    loaded = dict(re.findall(r"^LoadCredential=([^:]+):(.*)$", SERVICE, re.MULTILINE))

    assert list(SETTINGS) == list(loaded)
    assert {name: f"{ETC / file}" for name, file in CREDENTIALS.items()} == loaded
    assert [*loaded] == re.findall(r"^SetCredential=([^:]+):\\n$", SERVICE, re.MULTILINE)
