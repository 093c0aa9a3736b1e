"""The contract of a shared engine, with a real Redis: what it decides, gives and forgets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing
from typing_extensions import override

from broadcasterd.config import ConfigError, Settings, from_mapping
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import Arrived, Ended, EngineDown, KeptEvent, KeptSession, Revoked
from broadcasterd.engine.redis.engine import RedisEngine
from broadcasterd.engine.redis.places import place_of
from broadcasterd.engine.redis.shard import NOT_REACHED
from broadcasterd.engine.redis.wire import slot_of
from broadcasterd.figures.counts import Counts
from tests.support.broadcast import make_hub, start_hub
from tests.support.certificate import Certificate
from tests.support.engines import Loaded, events_of
from tests.support.inprocess import until
from tests.support.redis import Redis, free_port, redis, sentinels
from tests.support.talk import eventually

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Start one Redis for all tests of this file; each has sessions of its own."""
    with redis() as server:
        yield server


@pytest.fixture
def name() -> str:
    """Return the name of a session that no other test uses."""
    return f"e{next(_numbers)}"


@dataclass
class Reader:
    """Takes what an engine gives, as a session does."""

    name: str
    subject: str | None = None
    incarnation: str = ""
    last: int = 0
    events: list[KeptEvent] = field(default_factory=list)
    anew: list[KeptSession] = field(default_factory=list)
    is_over: bool = False

    @property
    def has(self) -> tuple[str, int]:
        """What it has."""
        return self.incarnation, self.last

    @property
    def seqs(self) -> list[int]:
        """The numbers of what it was given."""
        return [kept.seq for kept in self.events]

    def take(self, arrived: Arrived) -> None:
        """Take what follows."""
        if arrived.anew is not None:
            self.anew.append(arrived.anew)
            self.incarnation, self.last = arrived.anew.incarnation, arrived.anew.last
        self.events += arrived.events
        if arrived.events:
            self.last = arrived.events[-1].seq

    def over(self) -> None:
        """Take notice of the end."""
        self.is_over = True


@asynccontextmanager
async def engine_at(
    server: Redis, sessions: Mapping[str, object] | None = None, taker: Loaded | None = None
) -> AsyncIterator[RedisEngine]:
    """Run an engine while inside."""
    settings = {"engine": {"kind": "redis", "url": server.url}, "sessions": sessions or {}}
    engine = RedisEngine(Settings(from_mapping(settings)), Counts())
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load(taker or Loaded())
        yield engine
        nursery.cancel_scope.cancel()


async def test_numbers_follow_each_other_whoever_publishes(server: Redis, name: str) -> None:
    async with engine_at(server) as a, engine_at(server) as b:
        placed = [await each.publish(name, events_of("x", "y")) for each in (a, b, a)]

    assert [[*each.seqs] for each in placed] == [[1, 2], [3, 4], [5, 6]]
    assert len({each.incarnation for each in placed}) == 1


async def test_a_reader_is_given_what_there_is_and_then_what_comes(
    server: Redis, name: str
) -> None:
    events = [EncodedEvent(b"a"), EncodedEvent(b"b", 2.5), EncodedEvent(b"c\0\xff", None, "key")]
    async with engine_at(server) as a, engine_at(server) as b:
        await a.publish(name, events, "somebody")
        reader = Reader(name)
        await b.follow(reader)
        assert [kept.event for kept in reader.events] == events
        [session] = reader.anew
        assert (session.subject, session.floor, session.last) == ("somebody", 0, 3)

        await a.publish(name, [*events_of("d"), *events[1:2]])
        await until(lambda: len(reader.events) == 5)
        assert [kept.event for kept in reader.events[3:]] == [*events_of("d"), events[1]]
        assert reader.seqs == [1, 2, 3, 4, 5]
        assert reader.events[0].at <= reader.events[4].at

        b.unfollow(reader)
        await a.publish(name, events_of("e"))
        await b.follow(reader)
        assert reader.seqs == [1, 2, 3, 4, 5, 6]


async def test_what_fails_in_one_session_is_no_concern_of_others_in_the_same_group(
    server: Redis, name: str
) -> None:
    names = [f"{name}-{place}" for place in "abc"]
    seqs: dict[str, list[int]] = {}
    refused: list[str] = []

    async with engine_at(server) as engine:

        async def publish(to: str, block: str) -> None:
            try:
                seqs.setdefault(to, []).extend((await engine.publish(to, events_of(block))).seqs)
            except EngineDown as problem:
                refused.append(str(problem))

        await publish(names[1], "w")
        server.ask("SET", f"broadcasterd:{{{names[1]}}}:events", "no stream")
        async with trio.open_nursery() as nursery:
            for to in [*names, names[0]]:
                nursery.start_soon(publish, to, "x")
        await publish(names[2], "y")

    assert {each: sorted(numbers) for each, numbers in seqs.items()} == {
        names[0]: [1, 2],
        names[1]: [1],
        names[2]: [1, 2],
    }
    assert len(refused) == 1
    assert "wrong kind of value" in refused[0]


async def test_a_redis_that_is_full_refuses_sessions_that_are_new_and_those_behind_them(
    server: Redis, name: str
) -> None:
    refused: list[str] = []

    async with engine_at(server) as engine:

        async def be_refused(to: str) -> None:
            with pytest.raises(EngineDown):
                await engine.publish(to, events_of("x"))
            refused.append(to)

        await engine.publish(name, events_of("x"))
        server.ask("CONFIG", "SET", "maxmemory", "1")
        try:
            async with trio.open_nursery() as nursery:
                for to in (f"{name}-new", name):
                    nursery.start_soon(be_refused, to)
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")
        placed = [await engine.publish(to, events_of("y")) for to in (name, f"{name}-new")]

    assert len(refused) == 2
    assert [[*each.seqs] for each in placed] == [[2], [1]]


async def test_what_comes_together_is_given_together(server: Redis, name: str) -> None:
    class Counting(Reader):
        given = 0

        @override
        def take(self, arrived: Arrived) -> None:
            self.given += 1
            super().take(arrived)

    async with engine_at(server) as a, engine_at(server) as b, trio.open_nursery() as nursery:
        reader = Counting(name)
        await b.follow(reader)
        before = reader.given
        for _ in range(100):
            nursery.start_soon(a.publish, name, events_of("x"))
        await until(lambda: len(reader.events) == 100)

    assert reader.seqs == [*range(1, 101)]
    assert reader.given - before < 50


async def test_a_log_that_fails_ends_its_session_alone(
    server: Redis, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_at(server) as engine, trio.open_nursery() as nursery:
        hub = await start_hub(nursery, make_hub(engine=engine))
        sound, broken = hub.open(f"{name}-sound"), hub.open(f"{name}-broken")
        for session in (sound, broken):
            await session.ready()

        def fail(*_: object, **__: object) -> None:
            raise ArithmeticError

        monkeypatch.setattr(broken.log, "put", fail)
        for session in (broken, sound):
            nursery.start_soon(engine.publish, session.name, events_of("x"))
        await until(lambda: broken.name not in hub.sessions and sound.log.last == 1)

        assert hub.counts.failed_sessions == 1
        assert not engine.health.why
        again = hub.open(broken.name)
        await again.ready()
        assert again.log.last == 1
        nursery.cancel_scope.cancel()


async def test_a_key_is_a_duplicate_while_its_event_is_retained(server: Redis, name: str) -> None:
    def keyed(key: str, ttl: float | None = None) -> EncodedEvent:
        return EncodedEvent(b"x", ttl, key)

    async with engine_at(server, {"max_history_events": 4}) as engine:
        first = await engine.publish(name, [keyed("a"), keyed("b", 0.05), keyed("a")])
        assert ([*first.seqs], first.duplicates) == ([1, 2, 1], frozenset({2}))
        again = await engine.publish(name, [*events_of("y"), keyed("a")])
        assert ([*again.seqs], again.duplicates) == ([3, 1], frozenset({1}))
        await trio.sleep(0.06)
        late = await engine.publish(name, [keyed("b")])
        assert ([*late.seqs], late.duplicates) == ([4], frozenset())
        await engine.publish(name, events_of("1", "2", "3", "4"))
        fresh = await engine.publish(name, [keyed("a"), keyed("b")])
        assert not fresh.duplicates
    assert server.ask("HLEN", f"broadcasterd:{{{name}}}:keys") == "2"


async def test_redis_has_an_eighth_more_than_the_bounds_at_most(server: Redis, name: str) -> None:
    limits = {"max_history_events": 80, "max_history_bytes": 2000}
    key = f"broadcasterd:{{{name}}}:events"
    async with engine_at(server, limits) as engine:
        for _ in range(300):
            await engine.publish(name, events_of("x"))
        assert 80 <= int(server.ask("XLEN", key)) <= 90
        await engine.publish(name, events_of("x" * 1500))
        await engine.publish(name, events_of("y" * 1500))
        assert int(server.ask("XLEN", key)) == 1
        reader = Reader(name)
        await engine.follow(reader)
    [session] = reader.anew
    assert (session.floor, session.last, reader.seqs) == (301, 302, [302])


async def test_what_is_not_used_expires_in_redis(server: Redis, name: str) -> None:
    key = f"broadcasterd:{{{name}}}"
    async with engine_at(server, {"event_ttl": 100, "session_ttl": 1000}) as engine:
        await engine.publish(name, [EncodedEvent(b"x", None, "key")])
        left = {each: int(server.ask("PTTL", key + each)) for each in ("", ":events", ":keys")}

    assert 1_000_000 < left[""] <= 1_012_500
    assert 100_000 < left[":events"] <= 112_500
    assert 100_000 < left[":keys"] <= 112_500


async def test_numbers_go_on_where_all_events_were_too_old(server: Redis, name: str) -> None:
    async with engine_at(server, {"event_ttl": 0.05}) as engine:
        before = await engine.publish(name, events_of("x", "y"))
        await until(lambda: server.ask("EXISTS", f"broadcasterd:{{{name}}}:events") == "0")
        reader = Reader(name)
        await engine.follow(reader)
        after = await engine.publish(name, events_of("z"))

    assert (reader.anew[0].floor, reader.anew[0].last) == (2, 2)
    assert reader.anew[0].floor_at is not None
    assert (after.incarnation, [*after.seqs]) == (before.incarnation, [3])


@pytest.mark.slow
async def test_a_session_that_is_listened_to_does_not_expire(server: Redis, name: str) -> None:
    async with engine_at(server, {"session_ttl": 1.0}) as engine:
        reader = Reader(name)
        await engine.follow(reader)
        engine.attend(reader, 1)
        await trio.sleep(1.5)
        assert server.ask("EXISTS", f"broadcasterd:{{{name}}}") == "1"
        engine.attend(reader, 0)
        await until(lambda: server.ask("EXISTS", f"broadcasterd:{{{name}}}") == "0")


async def test_a_session_is_ended_for_all_and_may_begin_anew(server: Redis, name: str) -> None:
    async with engine_at(server) as a, engine_at(server) as b:
        before = await a.publish(name, events_of("x"))
        reader, late = Reader(name), Reader(name)
        await b.follow(reader)
        assert await a.end(name)
        await until(lambda: reader.is_over)
        await b.follow(late)
        assert late.is_over
        assert await b.end(name)
        assert not await b.end(f"{name}-unknown")
        after = await b.publish(name, events_of("y"))

    assert before.incarnation != after.incarnation
    assert [*after.seqs] == [1]


async def test_streams_are_counted_over_all_nodes(server: Redis, name: str) -> None:
    async with engine_at(server) as a:
        async with engine_at(server) as b:
            here, there = Reader(name), Reader(name)
            await a.follow(here)
            await b.follow(there)
            a.attend(here, 2)
            b.attend(there, 3)

            async def elsewhere() -> list[int]:
                return [(await each.publish(name, events_of("x"))).elsewhere for each in (a, b)]

            async def is_told() -> bool:
                return await elsewhere() == [3, 2]

            await eventually(is_told)
        # A node that stops takes its own away.
        assert (await a.publish(name, events_of("x"))).elsewhere == 0


LOSE = """
local entries = redis.call('XRANGE', KEYS[2], '-', ARGV[1])
redis.call('DEL', KEYS[2])
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[2], entry[1], unpack(entry[2]))
end
redis.call('HSET', KEYS[1], 'n', ARGV[1])
"""


def lose(server: Redis, name: str, *, last: int) -> None:
    """Have Redis be as before its newest events, as a replica may be that takes over."""
    key = f"broadcasterd:{{{name}}}"
    server.ask("EVAL", LOSE, "2", key, f"{key}:events", str(last))


@pytest.mark.parametrize("published_since", [0, 3])
async def test_no_id_is_given_twice_after_a_failover_that_lost_events(
    server: Redis, name: str, published_since: int
) -> None:
    async with engine_at(server) as a:
        before = await a.publish(name, events_of("a", "b", "c"))
        reader = Reader(name)
        await a.follow(reader)
        lose(server, name, last=1)
        async with engine_at(server) as b:
            other = Reader(name)
            await b.follow(other)
            for number in range(published_since):
                await b.publish(name, events_of(f"new {number}"))
            a.catch_up(reader)
            await until(lambda: len(reader.anew) == 2)
            await until(lambda: len(other.anew) == 2)
            after = await b.publish(name, events_of("z"))
            await until(lambda: other.last == after.seqs[0] == reader.last)

    assert reader.incarnation == other.incarnation == after.incarnation != before.incarnation
    assert after.seqs[0] > 3
    assert [kept.event.block for kept in other.events][-1:] == [b"z"]


async def test_scripts_that_redis_forgot_are_taught_again(server: Redis, name: str) -> None:
    async with engine_at(server) as engine:
        await engine.publish(name, events_of("x"))
        server.ask("SCRIPT", "FLUSH")
        placed = await engine.publish(name, events_of("y"))
        server.ask("SCRIPT", "FLUSH")
        engine.note(Revoked(name, 1000.0))
        await engine.settled()
        server.ask("SCRIPT", "FLUSH")
        reader = Reader(name)
        await engine.follow(reader)

    assert [*placed.seqs] == [2]
    assert reader.seqs == [1, 2]


async def test_others_are_told_who_was_revoked_at_once_and_at_their_start(
    server: Redis, name: str
) -> None:
    subject, first, then = f"half a pair: \ud83d {name}", Loaded(), Loaded()
    async with engine_at(server) as a, engine_at(server, taker=first):
        for at in (1000.125, 1001.5, 1000.25):
            a.note(Revoked(subject, at), Ended(name, at))
            await a.settled()
        await until(lambda: first.revoked.get(subject) == 1001.5)
        async with engine_at(server, taker=then):
            pass

    assert then.revoked[subject] == 1001.5
    assert not then.ended


async def test_a_revocation_that_redis_has_no_room_for_is_owed_to_it(name: str) -> None:
    others = Loaded()
    with redis("--maxmemory-policy", "noeviction") as server:
        async with engine_at(server) as engine, engine_at(server, taker=others):
            server.ask("CONFIG", "SET", "maxmemory", "1")
            engine.note(Revoked(name, 1000.0))
            with pytest.raises(EngineDown, match=r"OOM"):
                await engine.settled()
            why = engine.health.why
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await until(lambda: others.revoked)

    assert not why
    assert others.revoked == {name: 1000.0}


async def test_a_redis_that_is_full_refuses_and_goes_on(name: str) -> None:
    with redis("--maxmemory-policy", "noeviction") as server:
        async with engine_at(server) as engine:
            await engine.publish(name, events_of("x"))
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(EngineDown, match=r"OOM"):
                await engine.publish(name, events_of("y"))
            server.ask("CONFIG", "SET", "maxmemory", "0")
            placed = await engine.publish(name, events_of("z"))

    assert [*placed.seqs] == [2]


RULES = (
    *("~broadcasterd:*", "&broadcasterd:*", "-@all", "+@read", "+@write", "+@scripting"),
    *("+@pubsub", "+@connection", "+role", "+time", "+wait", "-@dangerous", "+role"),
)
"""What docs/redis.md asks for."""


async def test_a_user_with_a_password_is_enough(tmp_path: Path, name: str) -> None:
    secret = "not-for-a-log"
    file = tmp_path / "password"
    file.write_text(f"{secret}\n")
    with redis() as server:
        server.ask("ACL", "SETUSER", "events", "on", f">{secret}", *RULES)
        engine = {
            "kind": "redis",
            "url": f"unix://events@{server.path}",
            "password_file": str(file),
        }
        settings = Settings(from_mapping({"engine": engine}))
        running = RedisEngine(settings, Counts())
        async with trio.open_nursery() as nursery:
            await nursery.start(running.run)
            await running.load(Loaded())
            placed = await running.publish(name, events_of("x"))
            reader = Reader(name)
            await running.follow(reader)
            running.note(Revoked(name, 1000.0))
            await running.settled()
            nursery.cancel_scope.cancel()

    assert [*placed.seqs] == [1]
    assert reader.seqs == [1]


async def outcome_of(name: str, **engine: object) -> Sequence[int] | str:
    """Publish an event; return the numbers that were given, or what is wrong."""
    settings = Settings(from_mapping({"engine": {"kind": "redis", "timeout": 5.0, **engine}}))
    running = RedisEngine(settings, Counts())
    outcome: Sequence[int] | str = ()
    async with trio.open_nursery() as nursery:
        await nursery.start(running.run)
        await until(lambda: running.health.why != NOT_REACHED)
        try:
            outcome = [*(await running.publish(name, events_of("x"))).seqs]
        except EngineDown:
            outcome = running.health.why
        nursery.cancel_scope.cancel()
    return outcome


@pytest.mark.parametrize("asks", ["no", "yes"], ids=["of clients, nothing", "of clients as well"])
async def test_over_tls_each_side_has_to_be_vouched_for(
    asks: str, certificate: Certificate, name: str
) -> None:
    port = free_port()
    options = (
        *("--tls-port", str(port), "--tls-auth-clients", asks),
        *("--tls-cert-file", str(certificate.chain), "--tls-key-file", str(certificate.key)),
        *("--tls-ca-cert-file", str(certificate.chain)),
    )
    chain, key = str(certificate.chain), str(certificate.key)
    with redis(*options):
        outcomes = [
            await outcome_of(name, url=f"rediss://127.0.0.1:{port}", **files)
            for files in (
                {"tls_ca": chain, "tls_certificate": chain, "tls_key": key},
                {"tls_ca": chain},
                {},
            )
        ]

    without = [2] if asks == "no" else "Redis cannot be reached"
    assert [[1], without, "Redis cannot be reached"] == outcomes


async def test_sentinels_have_a_password_of_their_own(tmp_path: Path, name: str) -> None:
    file = tmp_path / "password"
    file.write_text("not-for-a-log\n")
    with sentinels("not-for-a-log") as (_, _, url):
        outcomes = [
            await outcome_of(name, url=url, **files)
            for files in ({"sentinel_password_file": str(file)}, {})
        ]

    assert [[1], "the Sentinels do not take the password"] == outcomes


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tls_ca": "no"}, r'engine\.tls_ca = "no": cannot be used'),
        ({"tls_certificate": "no", "tls_key": "no"}, r'engine\.tls_certificate = "no": it, or'),
        ({"sentinel_password_file": "no"}, r"engine\.sentinel_password_file: cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files: dict[str, str], message: str) -> None:
    engine = {"kind": "redis", "url": "rediss://127.0.0.1", **files}
    with pytest.raises(ConfigError, match=message):
        place_of(Settings(from_mapping({"engine": engine})).engine)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://", "http://host", "redis://a,b", "redis://host/x", "sentinel://a,b"),
        *("cluster://a/1", "redis://user:password@host", "unix://", "host:6379"),
    ],
)
def test_a_place_of_no_known_form_is_refused_and_not_repeated(url: str) -> None:
    settings = Settings(from_mapping({"engine": {"kind": "redis", "url": url}}))
    with pytest.raises(ConfigError, match=r"engine\.url: expected") as refused:
        place_of(settings.engine)

    assert "user" not in str(refused.value)


def test_a_slot_is_that_of_the_specification() -> None:
    assert slot_of("123456789") == 0x31C3
