"""One server that takes writes, and our two connections to it, for as long as there are any.

What is published goes over one, in groups: whatever all sessions bring in one turn of the loop. It
takes one call of the script; in a Cluster one for each session.
Everything else goes over the other, with what the server tells by itself.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import Any

import structlog
import trio
from coredis.connection import BaseConnection
from coredis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterError,
    RedisError,
    ResponseError,
)
from coredis.exceptions import ConnectionError as NoConnection

from broadcasterd.engine.port import EngineDown
from broadcasterd.engine.redis.places import Dialer, Location, NotFound, let_go
from broadcasterd.engine.redis.reader import Reader, Tell
from broadcasterd.engine.redis.scripts import PUBLISH, SCRIPTS, TELL, Script
from broadcasterd.figures.counts import Counts

log = structlog.stdlib.get_logger(__name__)

NOT_REACHED = "Redis was not reached yet"

MIN_BACKOFF_S, MAX_BACKOFF_S = 0.05, 2.0
"""Between two tries to connect; each time somewhere from half of it on, so that not all nodes come
at once."""

GROUP_PUBLICATIONS = 128
"""Publications that are sent together: of more, none costs less."""

GROUP_BYTES = 1024 * 1024

GROUPS_UNDER_WAY = 3
"""Groups that were sent and not answered: the next one grows meanwhile."""

Value = bytes | str | int | float

# It would record each failed try with its traceback; we say once what is wrong.
logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)


WORDS: Sequence[tuple[type[BaseException], str]] = (
    (AuthenticationError, "Redis does not take the credentials"),
    (AuthorizationError, "Redis does not allow it"),
    (ReadOnlyError, "Redis takes no writes: it is a replica"),
    (BusyLoadingError, "Redis is loading its data"),
    (RedisClusterError, "the Redis Cluster is changing"),
    (TimeoutError, "Redis does not answer"),
    (NoConnection, "Redis cannot be reached"),
    (OSError, "Redis cannot be reached"),
    (RedisError, "Redis refuses"),
)
"""What is wrong, by the first kind of an error that fits. They are told to publishers."""

MAX_WORDS = 160


def words_for(error: BaseException) -> str:
    """Return what is wrong, in a few words for people."""
    words = next((words for kind, words in WORDS if isinstance(error, kind)), "")
    is_told = not words or isinstance(error, AuthorizationError) or words == "Redis refuses"
    detail = str(error)[:MAX_WORDS] if is_told else ""
    return ": ".join(filter(None, (words, detail)))


class _Command:
    """A command of a pipeline, as coredis takes it."""

    __slots__ = ("decode", "name", "serialized_arguments")

    def __init__(self, name: bytes, *arguments: Value) -> None:
        self.name = name
        self.serialized_arguments = arguments
        self.decode = False


class _Publication:
    """What one publisher brings, on its way to the server and back."""

    __slots__ = ("answer", "arguments", "keys", "problem", "settled", "size", "was_unknown")

    def __init__(self, keys: Sequence[bytes], arguments: Sequence[Value], size: int) -> None:
        self.keys = keys
        self.arguments = arguments
        self.size = size
        self.settled = trio.Event()
        self.answer: Any = None
        self.problem: EngineDown | None = None
        self.was_unknown = False  # the script, to the server

    def settle(self, outcome: object) -> None:
        """Tell the publisher, unless it was told."""
        if not self.settled.is_set():
            if isinstance(outcome, EngineDown):
                self.problem = outcome
            else:
                self.answer = outcome
            self.settled.set()


class Shard:
    """A server, found anew whenever it is lost.

    Args:
        locate: finds it; raises NotFound.
        dialer: makes connections.
        is_one_of_many: whether it is a server of a Cluster.
        replicas: how many replicas are to have what is published before it is answered.
        bounds: returns those of histories, as the script that publishes takes them.
        tell: is told what a channel said.
        told: called once all was told that came together.
        catch_up: called once there are connections, before anything is published.
        lost: called when it is lost, or does not have a slot any more.
        counts: what the daemon counts.

    Attributes:
        why: what is wrong; empty while there are connections.
        remark: what is wrong beside, and refuses what is published.

    """

    def __init__(
        self,
        locate: Callable[[], Awaitable[Location]],
        dialer: Dialer,
        *,
        is_one_of_many: bool,
        replicas: int,
        bounds: Callable[[], Sequence[Value]],
        tell: Tell,
        told: Callable[[], None],
        catch_up: Callable[[Shard], Awaitable[None]],
        lost: Callable[[], None],
        counts: Counts,
    ) -> None:
        self.why = NOT_REACHED
        self.remark = ""
        self._locate = locate
        self._dialer = dialer
        self._is_one_of_many = is_one_of_many
        self._replicas = replicas
        self._bounds = bounds
        self._tell = tell
        self._told = told
        self._catch_up = catch_up
        self._lost = lost
        self._counts = counts
        self._waiting: deque[_Publication] = deque()
        self._bell = trio.Event()
        self._under_way = 0
        self._answered = trio.Event()
        self._commands: BaseConnection | None = None
        self._feed: BaseConnection | None = None
        self._failed = trio.Event()

    async def run(self) -> None:
        """Keep connected, until cancelled."""
        backoff = MIN_BACKOFF_S
        while True:
            try:
                location = await self._locate()
            except NotFound as error:
                self._went_down(error)
            else:
                if await self._serve(location):
                    backoff = MIN_BACKOFF_S
            await trio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
            backoff = min(2 * backoff, MAX_BACKOFF_S)

    async def _serve(self, location: Location) -> bool:
        """Connect, and serve until the server is lost; return whether it was there at all."""
        problem: BaseException | None = None
        self._failed = trio.Event()
        was_up = False
        try:
            async with trio.open_nursery() as nursery:
                try:
                    self._commands = await self._connect(nursery, location)
                    self._feed = await self._connect(nursery, location)
                    await self._catch_up(self)
                    self._came_up()
                    was_up = True
                    nursery.start_soon(self._write, nursery)
                    nursery.start_soon(self._ping, self._feed)
                    await self._failed.wait()
                    problem = NoConnection()
                except (RedisError, OSError, EngineDown) as error:
                    problem = error
                nursery.cancel_scope.cancel()
        finally:
            self._commands = self._feed = None
            if problem is not None and trio.current_effective_deadline() > -inf:
                self._went_down(problem)
        return was_up

    async def _connect(self, nursery: trio.Nursery, location: Location) -> BaseConnection:
        connection = self._dialer.connection(location)
        connection._parser = Reader(self._tell, self._told)  # type: ignore[assignment] # noqa: SLF001

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            await connection.run(task_status=task_status)
            self._failed.set()

        try:
            await nursery.start(run)
        except BaseException:
            let_go(connection)
            raise
        role = await connection.create_request(b"ROLE")
        if not isinstance(role, list) or role[0] != b"master":
            raise ReadOnlyError
        await self._teach(connection)
        return connection

    async def _teach(self, connection: BaseConnection) -> None:
        for script in SCRIPTS:
            await connection.create_request(b"SCRIPT LOAD", script.text)

    async def _ping(self, connection: BaseConnection) -> None:
        """Notice a server that does not answer any more, though nobody asks it for anything."""
        while True:
            await trio.sleep(self._dialer.timeout)
            try:
                await connection.create_request(b"PING", disconnect_on_cancellation=True)
            except (RedisError, OSError):
                self._failed.set()

    def _came_up(self) -> None:
        if self.why == NOT_REACHED:
            log.info("the engine is reached", engine="redis")
        elif self.why:
            log.warning("the engine is up again", engine="redis", after=self.why)
        self.why = ""

    def _went_down(self, error: BaseException) -> None:
        why = words_for(error)
        if why != self.why:
            log.error("the engine is down", engine="redis", why=why)
        self.why = why
        while self._waiting:
            self._waiting.popleft().settle(EngineDown(why))
        self._lost()

    # Commands

    @property
    def is_failed(self) -> bool:
        """Whether it is lost: it is caught up with once it is found again."""
        return self._feed is None or self._failed.is_set()

    async def subscribe(self, channel: bytes) -> None:
        """Have the server tell what is said on a channel.

        Raises:
            EngineDown: it is lost, or the channel is at another server.

        """
        if self._feed is None:
            raise EngineDown(self.why)
        try:
            if self._is_one_of_many:
                # A subscription that fails is answered, one that succeeds is not: so we ask first.
                await self._feed.create_request(b"EXISTS", channel)
            self._feed.send_command(b"SSUBSCRIBE", channel)
        except RedisClusterError as error:
            self._lost()
            raise EngineDown(words_for(error)) from error
        except (RedisError, OSError) as error:
            self._failed.set()
            raise EngineDown(words_for(error)) from error

    def unsubscribe(self, channel: bytes) -> None:
        """Have it tell no more; without a connection it does not anyway."""
        if self._feed is not None and self._feed.usable:
            self._feed.send_command(b"SUNSUBSCRIBE", channel)

    async def call(self, script: Script, keys: Sequence[bytes], *arguments: Value) -> Any:  # noqa: ANN401 (what RESP has)
        """Return a script's answer.

        Raises:
            EngineDown: the server is lost, or refuses.

        """
        if self._feed is None:
            await trio.lowlevel.checkpoint()
            raise EngineDown(self.why)
        what = len(keys), *keys, *arguments
        try:
            try:
                return await self._feed.create_request(b"EVALSHA", script.digest, *what)
            except NoScriptError:
                return await self._feed.create_request(b"EVAL", script.text, *what)
        except (RedisError, OSError) as error:
            # An error may be the answer to a subscription, which has none else: then all that
            # follow belong to others.
            self._failed.set()
            raise EngineDown(words_for(error)) from error

    async def call_kept(self, script: Script, keys: Sequence[bytes], *arguments: Value) -> Any:  # noqa: ANN401 (as above)
        """Return a script's answer, once enough replicas have what it wrote.

        Raises:
            EngineDown: they do not, the server is lost, or refuses.

        """
        if self.why or self._commands is None:
            await trio.lowlevel.checkpoint()
            raise EngineDown(self.why)
        command = _Command(b"EVALSHA", script.digest, len(keys), *keys, *arguments)
        try:
            [outcome] = await self._ask([command])
            if isinstance(outcome, NoScriptError):
                await self._teach(self._commands)
                [outcome] = await self._ask([command])
        except (RedisError, OSError) as error:
            self._failed.set()
            raise EngineDown(words_for(error)) from error
        if isinstance(outcome, BaseException):
            raise self._refusal(outcome)
        return outcome

    async def publish(self, keys: Sequence[bytes], arguments: Sequence[Value], size: int) -> Any:  # noqa: ANN401 (as above)
        """Return the answer of the script that publishes, to one publication.

        Args:
            keys: the script's, for one session.
            arguments: those for one publication.
            size: the bytes of its events.

        Raises:
            EngineDown: nothing was published; or nobody knows, where the server is lost meanwhile.

        """
        if self.why:
            await trio.lowlevel.checkpoint()
            raise EngineDown(self.why)
        publication = _Publication(keys, arguments, size)
        self._waiting.append(publication)
        self._bell.set()
        await publication.settled.wait()
        if publication.problem is not None:
            raise publication.problem
        return publication.answer

    async def _write(self, nursery: trio.Nursery) -> None:
        """Send what waits, in groups."""
        while True:
            await self._bell.wait()
            while self._under_way >= GROUPS_UNDER_WAY:
                self._answered = trio.Event()
                await self._answered.wait()
            self._bell = trio.Event()
            group: list[_Publication] = []
            size = 0
            while self._waiting and len(group) < GROUP_PUBLICATIONS and size < GROUP_BYTES:
                group.append(self._waiting.popleft())
                size += group[-1].size
            if self._waiting:
                self._bell.set()
            if group:
                self._under_way += 1
                nursery.start_soon(self._send_group, group)

    async def _send_group(self, group: Sequence[_Publication]) -> None:
        began = perf_counter()
        try:
            outcomes = await self._outcomes(group)
            self._counts.commits.record(perf_counter() - began)
            for publication, outcome in outcomes.items():
                self._settle(publication, outcome)
            if any(each.was_unknown for each in filter(_is_owed, group)):
                assert self._commands is not None  # noqa: S101 (while this runs)
                await self._teach(self._commands)
                self._waiting.extendleft(filter(_is_owed, reversed(group)))
                group = ()
                self._bell.set()
        except (RedisError, OSError):
            self._failed.set()
        finally:
            for publication in filter(_is_owed, group):
                publication.settle(EngineDown(self.why or "Redis does not answer"))
            self._under_way -= 1
            self._answered.set()

    async def _outcomes(self, group: Sequence[_Publication]) -> Mapping[_Publication, Any]:
        """Return an answer or an error for each publication."""
        outcomes: dict[_Publication, Any] = {}
        calls = self._calls(group)
        answers = await self._ask([self._publishing(call) for call in calls])
        for call, answer in zip(calls, answers, strict=True):
            of_each = answer if isinstance(answer, list) else [answer] * len(call)
            outcomes.update(zip(call, of_each, strict=True))
        if self._replicas:
            # Only then nodes are told, for a failover may take back what no replica has.
            to_tell = [each for each, outcome in outcomes.items() if isinstance(outcome, list)]
            told = await self._ask([_telling(each.keys, outcomes[each]) for each in to_tell])
            for each, outcome in zip(to_tell, told, strict=True):
                if isinstance(outcome, NoScriptError):  # we learn it again with another connection
                    outcomes[each] = NoConnection()
                elif isinstance(outcome, BaseException):
                    outcomes[each] = outcome
        return outcomes

    def _calls(self, group: Sequence[_Publication]) -> Sequence[Sequence[_Publication]]:
        """Return what goes with one call each: all; in a Cluster, what is of one slot for sure."""
        if not self._is_one_of_many:
            return [group]
        by_session: dict[bytes, list[_Publication]] = {}
        for publication in group:
            by_session.setdefault(publication.keys[0], []).append(publication)
        return [*by_session.values()]

    def _publishing(self, call: Sequence[_Publication]) -> _Command:
        """Return the call of the script that publishes."""
        keys = [key for publication in call for key in publication.keys]
        arguments = [each for publication in call for each in publication.arguments]
        bounds = *self._bounds(), int(self._replicas > 0)
        return _Command(b"EVALSHA", PUBLISH.digest, len(keys), *keys, *bounds, *arguments)

    async def _ask(self, commands: Sequence[_Command]) -> Sequence[Any]:
        """Return an answer or an error for each command, once enough replicas have it."""
        assert self._commands is not None  # noqa: S101 (while this runs)
        if not commands:
            return []
        if not self._replicas:
            return await self._commands.create_request_batch(commands)  # type: ignore[arg-type]
        wait = _Command(b"WAIT", self._replicas, int(self._dialer.timeout * 500))
        *outcomes, replicas = await self._commands.create_request_batch([*commands, wait])  # type: ignore[list-item]
        if isinstance(replicas, int) and replicas >= self._replicas:
            self.remark = ""
            return outcomes
        self.remark = f"too few replicas of Redis (engine.replicas = {self._replicas})"
        return [ResponseError(self.remark) for _ in outcomes]

    def _settle(self, publication: _Publication, outcome: object) -> None:
        match outcome:
            case NoScriptError() if not publication.was_unknown:
                publication.was_unknown = True
            case BaseException():
                publication.settle(self._refusal(outcome))
            case _:
                publication.settle(outcome)

    def _refusal(self, error: BaseException) -> EngineDown:
        """Return what is wrong with one command; where that is the server, look for it anew."""
        if isinstance(error, RedisClusterError):
            self._lost()
        elif isinstance(error, ReadOnlyError) or not isinstance(error, ResponseError):
            self._failed.set()
        return EngineDown(words_for(error))


def _telling(keys: Sequence[bytes], placed: Sequence[Any]) -> _Command:
    """Return the call of the script that tells of what was published."""
    session, stream, _ = keys
    incarnation, last = placed[:2]
    return _Command(b"EVALSHA", TELL.digest, 2, session, stream, incarnation, last, session)


def _is_owed(publication: _Publication) -> bool:
    return not publication.settled.is_set()
