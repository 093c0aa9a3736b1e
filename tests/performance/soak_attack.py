"""The soak under attack: all kinds of attacks in a random mix, on daemons full of innocents.

Round after round, one to three kinds are directed at one of two daemons at once: one is plain, the
other speaks TLS. Each round has the end of tests/attack: see tests/support/innocents.py.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from random import Random

import trio

from tests.performance.processes import HealthPoller
from tests.support.attacks import ATTACKS, Attack
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon
from tests.support.flood import Memory
from tests.support.innocents import unharmed
from tests.support.target import Target, sections
from tests.support.tools import raise_open_files

OPEN_FILES = 15_000
AT_ONCE = 3
ROOM_MB = 20.0
"""More memory than where one attack is alone: up to three come at once, and what they have sent may
still be published, at its rate, in the next round."""
WITHIN_S = 2.0
"""The attacks of a round begin within so many seconds."""

TLS_SHARE = 0.2
BURST_SHARE = 0.5
BURSTS = (501, 800)

Report = Callable[[str], None]


def soak_under_attack(
    directory: Path, *, seconds: float, seed: int, idle_mb: float, report: Report
) -> int:
    """Attack for so long; return the number of rounds.

    Args:
        directory: for what the daemons write.
        seconds: how long it goes on; the last round takes some more.
        seed: of all decisions.
        idle_mb: memory of a daemon that does nothing.
        report: gets a line for each round.

    Raises:
        AssertionError: somebody innocent paid; in groups, as Trio raises it.

    """
    raise_open_files(OPEN_FILES)
    certificate = Certificate.make(directory)
    daemons: list[Daemon] = []
    try:
        for number, secure in enumerate((None, certificate)):
            (own := directory / str(number)).mkdir()
            daemons.append(Daemon.start(own, **sections(own, idle_mb + ROOM_MB, secure)))
        plain, tls = Target(daemons[0]), Target(daemons[1], certificate)
        rounds = trio.run(_run, plain, tls, seconds, seed, report)
        for daemon in daemons:
            daemon.stop_cleanly()
        report(f"ended well: {rounds} rounds")
        return rounds
    finally:
        for daemon in daemons:
            daemon.kill()


async def _run(plain: Target, tls: Target, seconds: float, seed: int, report: Report) -> int:
    dice = random.Random(seed)  # noqa: S311 (nothing secret)
    end = trio.current_time() + seconds
    rounds = 0
    async with plain.client, tls.client:
        while trio.current_time() < end:
            rounds += 1
            target = tls if dice.random() < TLS_SHARE else plain
            kinds = [kind for kind in ATTACKS if kind.over_tls is (target is tls)]
            chosen = dice.sample(kinds, min(len(kinds), dice.randint(1, AT_ONCE)))
            burst = dice.choice(BURSTS) if dice.random() < BURST_SHARE else 0
            names = " + ".join(
                [kind.name for kind in chosen] + [f"a burst of {burst}"] * (burst > 0)
            )
            report(f"round {rounds}: {names}")
            report(f"    {await _round(target, rounds, chosen, burst, dice)}")
    return rounds


async def _round(
    target: Target, number: int, chosen: Sequence[Attack], burst: int, dice: Random
) -> str:
    """Attack once, and check the end; return the figures."""
    memory = Memory(target.daemon)
    async with AsyncExitStack() as polling, unharmed(target, number) as innocents:
        poller = _health_of(target, polling)
        async with trio.open_nursery() as attacking:
            for kind in chosen:
                attacking.start_soon(_begin_soon, partial(kind.run, target), dice)
            if burst:
                attacking.start_soon(innocents.burst, burst)
        health = await target.health()
        peak_mb, attacked_at = memory.peak_mb, trio.current_time()
        told = _latency(poller)
        await innocents.memory_is_back()
        took = trio.current_time() - attacked_at
    return (
        f"{told}loop lag {health['loop']['max_lag_ms']:.0f} ms at the most in a minute; "
        f"memory {innocents.before_mb:.1f} MB before, {peak_mb:.1f} at its peak, "
        f"{target.rss_mb:.1f} now; closed after {took:.1f} s"
    )


async def _begin_soon(run: Callable[[Random], Awaitable[None]], dice: Random) -> None:
    own = Random(dice.getrandbits(64))  # noqa: S311 (nothing secret)
    await trio.sleep(own.uniform(0, WITHIN_S))
    await run(own)


def _health_of(target: Target, polling: AsyncExitStack) -> HealthPoller | None:
    """Begin to poll a daemon that a plain client can ask."""
    if target.certificate is not None:
        return None
    return polling.enter_context(HealthPoller(target.daemon.port, path="/health/live"))


def _latency(poller: HealthPoller | None) -> str:
    if poller is None:
        return ""
    told = poller.finish()["new"]
    return f"/health/live p99 {told['p99_ms']:.0f} ms of {told['polls']:.0f}; "
