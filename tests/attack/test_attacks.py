"""Every kind of attack has the same end: nobody innocent paid for it, and memory is back."""

from __future__ import annotations

from random import Random

import pytest
import trio

from tests.attack.conftest import Attacked
from tests.support.attacks import ATTACKS, Attack
from tests.support.certificate import Certificate
from tests.support.flood import Memory
from tests.support.innocents import unharmed

pytestmark = pytest.mark.slow

ATTACK_S = 60.0
SEED = 11
FELT_MB = 5.0
"""What an attack on memory takes at the least, whatever the daemon does about it."""

BURSTS = (501, 800)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.name))
async def test_nobody_innocent_pays_for(
    attack: Attack, attacked: Attacked, certificate: Certificate
) -> None:
    async with (
        attacked(certificate if attack.over_tls else None) as target,
        unharmed(target) as innocents,
    ):
        memory = Memory(target.daemon)
        with trio.fail_after(ATTACK_S):
            await attack.run(target, Random(SEED))  # noqa: S311 (not a secret)
        peak_mb = memory.peak_mb

    if attack.presses:
        assert peak_mb > innocents.before_mb + FELT_MB


async def test_a_burst_reaches_everybody_whole(
    attacked: Attacked, certificate: Certificate
) -> None:
    async with attacked(certificate) as target, unharmed(target) as innocents:
        for count in BURSTS:
            await innocents.burst(count)
