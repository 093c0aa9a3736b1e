"""The soak: a random load on a real daemon, from a seed, with all invariants checked all along.

`soak.py [--minutes M] [--seed N]` prints figures every 10 s and a summary; with `--attack` it is
attacked instead, with innocents in between (soak_attack.py). The exit status is 1 where an
invariant did not hold; the line that names it names the seed. The same seed makes the same
decisions, though not at the same instants: a failure may take more than one run to come back.

    soak_publishers.py   publish all kinds of bodies, and know what they were told
    soak_followers.py    listen, lag, hang up and resume, and know what they are owed
    soak_response.py     an event stream as raw bytes bring it
    soak_disturbers.py   close sessions, and flood the daemon until its breaker opens
    soak_ledger.py       which event has which id, and which may be missing
    soak_checks.py       what has to hold
    soak_world.py        what they share
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

import trio

# Run as a file, so that it needs no more than a path.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.performance.soak_attack import soak_under_attack
from tests.performance.soak_checks import (
    Footprint,
    Watch,
    check_in_quiet,
    check_log,
    wait_for_rest,
)
from tests.performance.soak_disturbers import close_sessions, flood
from tests.performance.soak_followers import Follower
from tests.performance.soak_publishers import Publisher
from tests.performance.soak_world import Figures, Violation, World
from tests.support.daemon import Daemon
from tests.support.flood import MIB, client_of, pressed

PUBLISHERS = 16
FOLLOWERS = 60
QUIET_EVERY_S = 12.0
REPORT_S = 10.0
SETTLE_S = 1.0

SESSIONS = {
    "session_ttl": 3.0,
    "event_ttl": 6.0,
    "cleanup_interval": 0.5,
    "heartbeat_interval": 2.0,
    "retry_ms": 200,
    "max_history_events": 300,
    "max_history_bytes": 256 * 1024,
    "max_lag_events": 150,
    "max_subscribers": FOLLOWERS - 10,
    "max_subscribers_per_session": 20,
}

Report = Callable[[str], None]


def soak(directory: Path, *, seconds: float, seed: int, report: Report) -> Figures:
    """Run the soak, and return what happened.

    Args:
        directory: for what the daemon writes.
        seconds: how long the load goes on; the end takes some more.
        seed: of all decisions.
        report: gets a line of figures now and then.

    Raises:
        Violation: an invariant does not hold; in groups, as Trio raises it.

    """
    sections: dict[str, dict[str, Any]] = {
        "memory": {"sample_interval": 0.25, **pressed(_idle_mb(directory / "idle"))},
        "sessions": {**SESSIONS, "slow_consumer": ("end", "skip")[seed % 2]},
        "log": {"format": "json"},
    }
    daemon = _start(directory / "daemon", sections)
    world = World(daemon, seed, sections)
    try:
        trio.run(_run, world, seconds, report)
    except BaseException:
        daemon.kill()
        raise
    if (status := daemon.stop()) != 0:
        raise Violation(f"exit status {status}: {daemon.log()[-4000:]}")
    opened = check_log(world)
    report(f"ended well: the breaker opened {opened} times; {world.figures.line()}")
    return world.figures


async def _run(world: World, seconds: float, report: Report) -> None:
    base = await _warm_up(world)
    watch = Watch(world)
    async with trio.open_nursery() as watching:
        watching.start_soon(watch.run)
        watching.start_soon(_report, world, watch, report)
        await _load(world, seconds)
        watching.cancel_scope.cancel()
    await wait_for_rest(world, base)
    watch.check_memory()
    report(f"at rest: rss {world.daemon.rss() / MIB:.1f} MB, peak {watch.peak_mb:.1f} MB, {base}")


async def _load(world: World, seconds: float) -> None:
    end = trio.current_time() + seconds
    followers = [Follower(world, f"follower {number}") for number in range(FOLLOWERS)]
    async with trio.open_nursery() as load:
        for number in range(PUBLISHERS):
            load.start_soon(Publisher(world, f"publisher {number}").run)
        for follower in followers:
            load.start_soon(follower.run)
        load.start_soon(close_sessions, world)
        load.start_soon(flood, world)
        while trio.current_time() < end:
            await trio.sleep(min(QUIET_EVERY_S, end - trio.current_time()))
            await check_in_quiet(world, followers)
        load.cancel_scope.cancel()


async def _warm_up(world: World) -> Footprint:
    """Use everything once, so that what it costs for good is there; return what that is."""
    async with client_of(world.daemon) as client:
        await client.publish("warm-up", "x")
        await client.session("warm-up")
        await client.ask("DELETE", "/v1/sessions/warm-up")
        await client.until(lambda health: health["sessions"] == 0, within=REPORT_S)
    await trio.sleep(SETTLE_S)  # until the connection is gone
    return Footprint.of(world.daemon)


async def _report(world: World, watch: Watch, report: Report) -> None:
    began = trio.current_time()
    while True:
        await trio.sleep(REPORT_S)
        elapsed = trio.current_time() - began
        report(f"{elapsed:4.0f} s: {watch.line()}; {world.figures.line()}")


def _idle_mb(directory: Path) -> float:
    daemon = _start(directory, {})
    try:
        return daemon.rss() / MIB
    finally:
        daemon.stop()


def _attack(directory: Path, *, seconds: float, seed: int, report: Report) -> None:
    idle_mb = _idle_mb(directory / "idle")
    soak_under_attack(directory, seconds=seconds, seed=seed, idle_mb=idle_mb, report=report)


def _start(directory: Path, sections: dict[str, dict[str, Any]]) -> Daemon:
    directory.mkdir()
    return Daemon.start(directory, **sections)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the soak as asked on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="A random load, with its invariants checked.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--attack", action="store_true", help="attack it instead")
    parser.add_argument("--seed", type=int, help="of all decisions; random unless told")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else SystemRandom().randrange(10**6)
    _print(f"seed {seed}, {arguments.minutes:g} minutes")
    with tempfile.TemporaryDirectory() as directory:
        try:
            run = _attack if arguments.attack else soak
            run(Path(directory), seconds=60 * arguments.minutes, seed=seed, report=_print)
        except Exception as error:  # noqa: BLE001 (whatever it is, the seed goes with it)
            for reason in _leaves(error):
                if not isinstance(reason, Violation):
                    traceback.print_exception(reason)
                _print(f"VIOLATION (seed {seed}): {type(reason).__name__}: {reason}")
            return 1
    return 0


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())
