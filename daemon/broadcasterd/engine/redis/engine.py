"""The engine that several daemons share: sessions and events are in Redis."""

from __future__ import annotations

import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import structlog
import trio

from broadcasterd.config import Sessions, Settings
from broadcasterd.core.event import EncodedEvent
from broadcasterd.engine.port import (
    RETRY_AFTER_S,
    EngineDown,
    Follower,
    Health,
    Note,
    Placed,
    Revoked,
    Taker,
)
from broadcasterd.engine.redis.following import Following
from broadcasterd.engine.redis.places import Location, NotFound, Place, Primary, place_of
from broadcasterd.engine.redis.revoking import Revoking
from broadcasterd.engine.redis.scripts import ATTEND, END, FOLLOW
from broadcasterd.engine.redis.shard import NOT_REACHED, Shard, Value
from broadcasterd.engine.redis.wire import (
    ENDED,
    MOVED,
    REPLACED,
    SLOTS,
    Keys,
    encode,
    read_said,
    slot_of,
)
from broadcasterd.figures.counts import Counts

log = structlog.stdlib.get_logger(__name__)

CATCH_UP_SESSIONS = 32
"""Sessions that are asked for at a time: each answer may have a whole history."""

ATTEND_S = 20.0
"""How often the others are told of streams that are still open."""

ATTENDED_S = 60.0
"""For how long that holds: so long a node that was killed is counted."""

ATTEND_PAUSE_S = 0.02
"""Between two rounds of that: many streams may come at once."""

ATTEND_SESSIONS = 256

LOOK_S = 30.0
"""How often a Cluster is asked who has which slots, if nobody noticed that it changed."""

MIN_LOOK_S = 0.2

LAST_WORDS_S = 1.0
"""What a stop waits until the others know that no streams are open here any more."""


class RedisEngine:
    """Keeps sessions and events in Redis, for all daemons that are given the same place.

    Args:
        settings: those in force; the engine's own are read once.
        counts: what the daemon counts.

    Raises:
        ConfigError: the place has no known form, or a file of the settings cannot be used.

    """

    keeps = True
    is_shared = True

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self.generation = 0
        self._settings = settings
        self._counts = counts
        self._place: Place
        self._place, self._dialer = place_of(settings.engine)
        self._prefix = settings.engine.prefix
        self._health = Health("redis", NOT_REACHED)
        self._node = secrets.token_hex(8)
        self._shards: dict[Location | None, Shard] = {}
        self._by_slot: list[Shard | None] = []
        self._followed: dict[bytes, Following] = {}  # by channel
        self._heard: dict[bytes, Following] = {}  # of which something was heard just now
        self._changed: dict[bytes, Following] = {}  # their streams are to be told
        self._bell = trio.Event()
        self._lost = trio.Event()
        self._whole = trio.Event()  # set once all shards were there
        self._revoking = Revoking(self._prefix)
        self._owing = trio.Event()
        self._is_loaded = trio.Event()  # set once it is known who was revoked
        self._nursery: trio.Nursery

    @property
    def health(self) -> Health:
        """Its state now: the first thing that is wrong, if anything is."""
        whys = [shard.why or shard.remark for shard in self._shards.values()] or [NOT_REACHED]
        self._health.why = next(filter(None, whys), "")
        return self._health

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connected, until cancelled; then tell the others that no streams are open here."""
        async with trio.open_nursery() as nursery:
            serving = trio.CancelScope(shield=True)  # until the last words are said
            await nursery.start(self._serve, serving)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(LAST_WORDS_S, shield=True):
                    await self._attend_to([*self._followed.values()], is_last=True)
                serving.cancel()

    async def _serve(self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                self._nursery.start_soon(self._attend)
                self._nursery.start_soon(self._attend_again)
                self._nursery.start_soon(self._settle_again)
                await self._keep_layout()

    async def load(self, taker: Taker) -> None:
        """Give who was revoked, also from now on; a session is read when it is asked for.

        It waits for the servers, but not for ever: then it is served all the same, degraded.
        """
        self._revoking.taker = taker
        self._learn_soon()
        with trio.move_on_after(2 * self._settings.engine.timeout) as waiting:
            await self._whole.wait()
            await self._is_loaded.wait()
        if waiting.cancelled_caught:
            log.error("the engine is down at the start", engine="redis", why=self.health.why)

    # Where the servers are

    async def _keep_layout(self) -> None:
        if not self._place.is_cluster:
            shard = self._shard(self._locate_one)
            self._shards[None] = shard
            await shard.run()
            return
        scopes: dict[Location, trio.CancelScope] = {}
        while True:
            self._lost = trio.Event()
            try:
                primaries = await self._place.find()
            except NotFound as error:
                log.warning("the Cluster does not say who has which slots", why=str(error))
            else:
                self._lay_out(primaries, scopes)
            await trio.sleep(MIN_LOOK_S)
            with trio.move_on_after(LOOK_S):
                await self._lost.wait()

    def _lay_out(
        self, primaries: Sequence[Primary], scopes: dict[Location, trio.CancelScope]
    ) -> None:
        locations = {primary.location for primary in primaries}
        for gone in scopes.keys() - locations:
            scopes.pop(gone).cancel()
            self._shards.pop(gone, None)
        by_slot: list[Shard | None] = [None] * SLOTS
        for primary in primaries:
            location = primary.location
            if location not in scopes:
                scopes[location] = trio.CancelScope()
                self._shards[location] = self._shard(_always(location))
                self._nursery.start_soon(_run, self._shards[location], scopes[location])
            for slots in primary.slots:
                by_slot[slots.start : slots.stop] = [self._shards[location]] * len(slots)
        before, self._by_slot = self._by_slot, by_slot
        if before:
            for following in [*self._followed.values()]:
                slot = _slot(following)
                if before[slot] is not by_slot[slot]:
                    self._catch_up_soon(following)
            if before[self._revoking.slot] is not by_slot[self._revoking.slot]:
                self._learn_soon()

    def _shard(self, locate: Callable[[], Any]) -> Shard:
        return Shard(
            locate,
            self._dialer,
            is_one_of_many=self._place.is_cluster,
            replicas=self._settings.engine.replicas,
            bounds=lambda: _bounds(self._settings.sessions),
            tell=self._hear,
            told=self._pass_on,
            catch_up=self._catch_up_all,
            lost=self._look_again,
            counts=self._counts,
        )

    def _look_again(self) -> None:
        self._lost.set()

    async def _locate_one(self) -> Location:
        return (await self._place.find())[0].location

    def _shard_of(self, name: str) -> Shard:
        """Return the server that has a session.

        Raises:
            EngineDown: nobody knows it.

        """
        return self._shard_at(slot_of(name))

    def _shard_at(self, slot: int) -> Shard:
        shard = self._shards.get(None)
        if shard is None and self._by_slot:
            shard = self._by_slot[slot]
        if shard is None:
            raise EngineDown(NOT_REACHED)
        return shard

    # Publishing

    async def append(
        self,
        name: str,
        incarnation: str,  # noqa: ARG002 (the port's)
        first: int,  # noqa: ARG002 (the port's)
        at: float,  # noqa: ARG002 (the port's)
        events: Sequence[EncodedEvent],
    ) -> Placed:
        """Publish events; the servers decide the rest."""
        return await self.publish(name, events)

    async def publish(
        self, name: str, events: Sequence[EncodedEvent], subject: str | None = None
    ) -> Placed:
        """Publish events; see :class:`~broadcasterd.engine.port.SharedEngine`."""
        keys = Keys.of(self._prefix, name)
        arguments: list[Value] = [_new_incarnation(), subject or "", len(events)]
        size = 0
        for event in events:
            packed = encode(event)
            size += len(packed)
            arguments += (packed, "" if event.ttl is None else event.ttl, event.key or "")
        shard = self._shard_of(name)
        answer = await shard.publish((keys.session, keys.stream, keys.keys), arguments, size)
        self._counts.committed_events += len(events)
        return self._placed(answer, keys, len(events))

    def _placed(self, answer: Sequence[Any], keys: Keys, count: int) -> Placed:
        named, last, everywhere, *known = answer
        following = self._followed.get(keys.session)
        if following is not None:
            following.everywhere = int(everywhere)
        elsewhere = max(0, int(everywhere) - (following.told if following else 0))
        incarnation = named.decode()
        if not known:
            return Placed(incarnation, range(last - count + 1, last + 1), frozenset(), elsewhere)
        duplicates = dict(zip(known[::2], known[1::2], strict=True))
        number = last - (count - len(duplicates))
        seqs = []
        for index in range(count):
            if index in duplicates:
                seqs.append(duplicates[index])
            else:
                number += 1
                seqs.append(number)
        return Placed(incarnation, seqs, frozenset(duplicates), elsewhere)

    def note(self, *notes: Note) -> None:
        """Have the others know who was revoked; of all else, the servers decide what is kept."""
        for note in notes:
            if isinstance(note, Revoked):
                self._revoking.owe(note)
                self._owing.set()

    async def settled(self) -> None:
        """Have Redis know who was revoked."""
        if self._revoking.is_settled:
            await trio.lowlevel.checkpoint()
        else:
            await self._revoking.settle(self._shard_at(self._revoking.slot))

    async def end(self, name: str) -> bool:
        """End a session on all nodes."""
        keys = Keys.of(self._prefix, name)
        ttl = _ms(self._settings.sessions.session_ttl)
        all_keys = keys.session, keys.stream, keys.keys, keys.nodes
        shard = self._shard_of(name)
        return bool(await shard.call(END, all_keys, ttl, keys.session))

    # Following

    async def follow(self, follower: Follower) -> None:
        """Follow a session."""
        keys = Keys.of(self._prefix, follower.name)
        following = self._followed.get(keys.session)
        if following is None or following.follower is not follower:
            following = self._followed[keys.session] = Following(follower, keys)
        shard = self._shard_of(follower.name)
        try:
            await self._catch_up(shard, following)
        except EngineDown:
            if not shard.is_failed:
                self._catch_up_soon(following)
            raise

    def catch_up(self, follower: Follower) -> None:
        """Go on from what a follower has."""
        if (following := self._following(follower)) is not None:
            following.go_back()
            self._catch_up_soon(following)

    def unfollow(self, follower: Follower) -> None:
        """Let go of a follower."""
        following = self._following(follower)
        if following is None:
            return
        self.attend(follower, 0)
        channel = following.keys.session
        del self._followed[channel]
        with suppress(EngineDown):  # it tells nothing
            self._shard_of(follower.name).unsubscribe(channel)

    def _following(self, follower: Follower) -> Following | None:
        following = self._followed.get(Keys.of(self._prefix, follower.name).session)
        return following if following and following.follower is follower else None

    async def _catch_up(self, shard: Shard, following: Following) -> None:
        """Ask for what a follower does not have, until nothing is missing.

        Raises:
            EngineDown: the server is lost.

        """
        keys, follower = following.keys, following.follower
        await shard.subscribe(keys.session)
        is_whole = False
        while not is_whole and self._followed.get(keys.session) is following:
            following.begin()
            answer = await shard.call(
                FOLLOW,
                (keys.session, keys.stream, keys.keys),
                _new_incarnation(),
                _ms(self._settings.sessions.session_ttl),
                keys.session,
                follower.subject or "",
                following.incarnation,
                following.last,
                following.at,
            )
            if self._followed.get(keys.session) is not following:
                return
            if answer == 0:
                self._over(following)
                return
            is_whole = following.take_rest(answer)

    async def _catch_up_all(self, shard: Shard) -> None:
        """Catch up with all that a server has, which was lost for a while."""
        if self._is_at(self._revoking.slot, shard):
            await self._learn(shard)
        mine = [each for each in self._followed.values() if self._is_at(_slot(each), shard)]
        problems: list[EngineDown] = []

        async def catch_up(following: Following) -> None:
            try:
                await self._catch_up(shard, following)
            except EngineDown as problem:
                if shard.is_failed:
                    problems.append(problem)
                else:
                    self._catch_up_soon(following)

        for start in range(0, len(mine), CATCH_UP_SESSIONS):
            async with trio.open_nursery() as nursery:
                for following in mine[start : start + CATCH_UP_SESSIONS]:
                    nursery.start_soon(catch_up, following)
            if problems:
                raise problems[0]
        for following in mine:
            following.told = 0
            self._attend_soon(following)
        if all(not each.why or each is shard for each in self._shards.values()):
            self._whole.set()

    def _is_at(self, slot: int, shard: Shard) -> bool:
        try:
            return self._shard_at(slot) is shard
        except EngineDown:
            return False

    def _catch_up_soon(self, following: Following) -> None:
        async def catch_up(shard: Shard) -> None:
            if self._followed.get(following.keys.session) is following:
                await self._catch_up(shard, following)

        following.begin()
        self._nursery.start_soon(self._once_there, _slot(following), catch_up)

    async def _once_there(self, slot: int, catch_up: Callable[[Shard], Awaitable[None]]) -> None:
        """Catch up with what is in a slot; if its server is lost, that is done once it is back."""
        while True:
            with suppress(EngineDown):
                shard = self._shard_at(slot)
                if not shard.is_failed:
                    await catch_up(shard)
                return
            await trio.sleep(MIN_LOOK_S)

    def _hear(self, channel: bytes, data: bytes) -> None:
        """Take what a channel says."""
        following = self._followed.get(channel)
        if following is None:
            if channel == self._revoking.channel:
                self._hear_revoked(data)
            return
        if data == ENDED:
            self._over(following)
        elif data == MOVED:
            self._look_again()
            self._catch_up_soon(following)
        elif data.startswith(REPLACED):
            if following.is_replaced(data.removeprefix(REPLACED).strip().decode()):
                self._catch_up_soon(following)
        else:
            try:
                follows = following.take(read_said(data), len(data))
            except ValueError as error:
                log.error("a channel says what is none of ours", why=str(error))  # noqa: TRY400
            else:
                self._heard[channel] = following
                if not follows:
                    self._catch_up_soon(following)

    def _pass_on(self) -> None:
        """Have followers take what was heard of their sessions, all of one session at once."""
        heard, self._heard = self._heard, {}
        for following in heard.values():
            following.pass_on()

    def _over(self, following: Following) -> None:
        following.pass_on()
        self.unfollow(following.follower)
        following.follower.over()

    # Who was revoked

    async def _learn(self, shard: Shard) -> None:
        """Have all that Redis knows taken, and Redis told of all that it may have lost since.

        Raises:
            EngineDown: the server is lost.

        """
        if self._revoking.taker is None:
            return  # it is loaded soon
        await self._revoking.catch_up(shard)
        if self._is_loaded.is_set():
            self.generation += 1
        self._is_loaded.set()

    def _learn_soon(self) -> None:
        self._nursery.start_soon(self._once_there, self._revoking.slot, self._learn)

    def _hear_revoked(self, data: bytes) -> None:
        if data == MOVED:
            self._look_again()
            self._learn_soon()
        else:
            self._revoking.hear(data)

    async def _settle_again(self) -> None:
        """Tell Redis of what nobody waits for, or waited for in vain."""
        while True:
            await self._owing.wait()
            self._owing = trio.Event()
            while not self._revoking.is_settled:
                await trio.sleep(RETRY_AFTER_S)
                with suppress(EngineDown):
                    await self.settled()

    # Streams on all nodes

    def attend(self, follower: Follower, streams: int) -> None:
        """Tell the others, soon."""
        following = self._following(follower)
        if following is not None:
            following.streams = streams
            self._attend_soon(following)

    def elsewhere(self, name: str) -> int:
        """Return the streams on the other nodes."""
        following = self._followed.get(Keys.of(self._prefix, name).session)
        return max(0, following.everywhere - following.told) if following else 0

    def _attend_soon(self, following: Following) -> None:
        if following.streams or following.told:
            self._changed[following.keys.session] = following
            self._bell.set()

    async def _attend(self) -> None:
        """Tell the others of what changes."""
        while True:
            await self._bell.wait()
            self._bell = trio.Event()
            changed, self._changed = self._changed, {}
            await self._attend_to([*changed.values()])
            await trio.sleep(ATTEND_PAUSE_S)

    async def _attend_again(self) -> None:
        """Tell them again, before it does not hold any more."""
        while True:
            await trio.sleep(min(ATTEND_S, self._settings.sessions.session_ttl / 3))
            for following in self._followed.values():
                self._attend_soon(following)

    async def _attend_to(self, some: Sequence[Following], *, is_last: bool = False) -> None:
        async def attend(following: Following) -> None:
            keys, streams = following.keys, 0 if is_last else following.streams
            ttl = _ms(self._settings.sessions.session_ttl)
            try:
                following.everywhere = await self._shard_of(following.follower.name).call(
                    ATTEND, (keys.session, keys.nodes), self._node, streams, _ms(ATTENDED_S), ttl
                )
                following.told = streams
            except EngineDown:
                pass  # it is told when the server is back

        for start in range(0, len(some), ATTEND_SESSIONS):
            async with trio.open_nursery() as nursery:
                for following in some[start : start + ATTEND_SESSIONS]:
                    if following.streams or following.told:
                        nursery.start_soon(attend, following)


async def _run(shard: Shard, scope: trio.CancelScope) -> None:
    with scope:
        await shard.run()


def _always(location: Location) -> Callable[[], Any]:
    async def locate() -> Location:
        await trio.lowlevel.checkpoint()
        return location

    return locate


def _slot(following: Following) -> int:
    return slot_of(following.follower.name)


def _new_incarnation() -> str:
    return f"{random.getrandbits(32):08x}"


@lru_cache(maxsize=1)  # they change with a reload alone
def _bounds(limits: Sessions) -> tuple[int, int, int, int]:
    """Return what bounds a history, and its times in milliseconds."""
    times = _ms(limits.event_ttl), _ms(limits.session_ttl)
    return limits.max_history_events, limits.max_history_bytes, *times


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
