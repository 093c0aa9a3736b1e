"""How much load the benchmark puts on."""

from dataclasses import dataclass

EVENT_BYTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Steady:
    """Events at a rate that leaves a server time, else it joins events and looks cheaper."""

    subscribers: int
    events: int
    rate: float  # events/s; 0: as fast as they are answered


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much of each."""

    rounds: int
    post_s: float  # a whole number
    posts_alone: int  # one after the other
    sessions: int  # of one subscriber, while posts go to all in turn
    ndjson_lines: int  # in a body
    subscribes: int
    few: tuple[Steady, ...]
    crowds: tuple[Steady, ...]
    one_each: int  # sessions of one subscriber
    storm: int  # clients that are cut
    live: Steady  # deliveries to others meanwhile
    health: Steady


FULL = Size(
    rounds=3,
    post_s=2,
    posts_alone=1000,
    sessions=1000,
    ndjson_lines=1000,
    subscribes=1000,
    few=(
        Steady(subscribers=100, events=200, rate=100),
        Steady(subscribers=1000, events=40, rate=15),
    ),
    crowds=(
        Steady(subscribers=5000, events=12, rate=3),
        Steady(subscribers=15_000, events=5, rate=1),
    ),
    one_each=10_000,
    storm=10_000,
    live=Steady(subscribers=100, events=200, rate=50),
    health=Steady(subscribers=5000, events=80, rate=20),
)
QUICK = Size(
    rounds=1,
    post_s=1,
    posts_alone=300,
    sessions=100,
    ndjson_lines=200,
    subscribes=200,
    few=(
        Steady(subscribers=100, events=40, rate=100),
        Steady(subscribers=200, events=10, rate=20),
    ),
    crowds=(Steady(subscribers=1000, events=5, rate=10),),
    one_each=500,
    storm=500,
    live=Steady(subscribers=100, events=40, rate=50),
    health=Steady(subscribers=500, events=15, rate=20),
)
