"""The simulation of a reconnect storm: what it says holds, and it would say so if it did not."""

from random import Random

import msgspec
import pytest

from broadcasterd.config import Config, Server, Sessions
from tests.performance.simulate import (
    WAYS,
    Outcome,
    Retry,
    Storm,
    all_alike,
    broken,
    jitter,
    simulate,
    storms,
)

NODES, CLIENTS = 10, 1000
ROOMY = Config()


@pytest.mark.parametrize("storm", storms(NODES, CLIENTS), ids=lambda storm: storm.name)
@pytest.mark.parametrize(("way", "cut"), WAYS)
def test_all_clients_come_back(storm: Storm, way: str, cut: Retry) -> None:
    outcome = simulate(storm, ROOMY, cut=cut, seed=1)

    assert len(outcome.waits) == storm.cut * CLIENTS, way
    assert not broken(outcome, ROOMY)
    assert outcome.wait(0) >= ROOMY.sessions.retry_ms / 1000


def test_a_full_node_turns_clients_away_and_they_find_another() -> None:
    tight = Config(sessions=Sessions(max_subscribers=1112))
    outcome = simulate(Storm("", 10, 1000, 1, 1), tight, cut=all_alike, seed=1)

    assert outcome.refused
    assert outcome.most_streams == 1112
    assert not broken(outcome, tight)


def test_a_dropped_attempt_is_made_again_and_a_jitter_spares_it() -> None:
    config = Config(server=Server(backlog=512))
    storm = Storm("", 2, 2000, 0, 2)
    alike, spread = (simulate(storm, config, cut=cut, seed=1) for cut in (all_alike, jitter))

    assert alike.dropped > 10 * spread.dropped
    assert not alike.away


def test_clients_that_find_no_room_anywhere_are_said_to_be_away() -> None:
    tight = Config(sessions=Sessions(max_subscribers=1000))
    outcome = simulate(Storm("", 2, 1000, 1, 1), tight, cut=all_alike, seed=1)

    assert broken(outcome, tight) == "1,000 clients are not back"


def test_memory_beyond_the_share_of_clients_is_said() -> None:
    little = msgspec.structs.replace(ROOMY.memory, warning_mb=10, critical_mb=20)
    config = msgspec.structs.replace(ROOMY, memory=little)

    assert broken(Outcome(most_streams=2000, most_waiting=2000), config)
    assert not broken(Outcome(most_streams=100, most_waiting=100), config)


def test_a_seed_decides_everything() -> None:
    storm = storms(NODES, CLIENTS)[1]
    first, again, other = (
        simulate(storm, ROOMY, cut=jitter, seed=seed).waits for seed in (1, 1, 2)
    )

    assert first == again != other


def test_a_jitter_is_from_the_reconnection_time_to_twice_it() -> None:
    told = {jitter(100, Random(seed)) for seed in range(1000)}  # noqa: S311 (nothing secret)

    assert min(told) == 100
    assert max(told) == 200
