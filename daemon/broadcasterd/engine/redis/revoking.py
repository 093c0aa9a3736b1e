"""The subjects that were revoked, at whichever node: a sorted set in Redis, with a channel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import structlog
import trio

from broadcasterd.access.revocations import MAX_REVOKED
from broadcasterd.engine.port import Revoked, Taker
from broadcasterd.engine.redis.scripts import REVOKE, REVOKED
from broadcasterd.engine.redis.shard import Shard, Value
from broadcasterd.engine.redis.wire import pack_text, slot_of, unpack_text

log = structlog.stdlib.get_logger(__name__)

PAGE = 1000
"""Subjects that are asked for, or told, at a time: each takes Redis some microseconds."""


class Revoking:
    """Tells Redis of the subjects that are revoked here, and a taker of all others.

    Args:
        prefix: begins every key.

    Attributes:
        channel: its name, which is that of the key.
        slot: where both are in a Cluster.
        taker: takes what others revoke, once there is one.

    """

    def __init__(self, prefix: str) -> None:
        name = f"{prefix}:revoked"  # no session's: those have braces
        self.channel = name.encode()
        self.slot = slot_of(name)
        self.taker: Taker | None = None
        self._owed: dict[str, float] = {}

    @property
    def is_settled(self) -> bool:
        """Whether Redis has all that was revoked here."""
        return not self._owed

    def owe(self, revoked: Revoked) -> None:
        """Have Redis told, by :meth:`settle`."""
        if self._owed.get(revoked.subject, revoked.at) <= revoked.at:
            self._owed[revoked.subject] = revoked.at

    async def settle(self, shard: Shard) -> None:
        """Tell Redis of what is owed; return once it has that.

        Raises:
            EngineDown: it does not, or nobody knows: it is still owed.

        """
        while told := dict(islice(self._owed.items(), PAGE)):
            arguments: list[Value] = [MAX_REVOKED]
            for subject, at in told.items():
                arguments += (pack_text(subject), repr(at))
            await shard.call_kept(REVOKE, (self.channel,), *arguments)
            for subject, at in told.items():
                if self._owed.get(subject) == at:  # and not revoked once more
                    del self._owed[subject]

    async def catch_up(self, shard: Shard) -> None:
        """Follow the channel, and take all that there is.

        Raises:
            EngineDown: the server is lost.

        """
        await shard.subscribe(self.channel)
        pages: list[Sequence[bytes]] = []
        while not pages or pages[-1]:
            first = PAGE * len(pages)
            pages.append(await shard.call(REVOKED, (self.channel,), first, PAGE))
        for page in reversed(pages):  # the one that was revoked first comes first
            for place in range(len(page) - 2, -1, -2):
                self._take(page[place], page[place + 1])
            await trio.lowlevel.checkpoint()

    def hear(self, data: bytes) -> None:
        """Take what the channel says."""
        at, _, packed = data.partition(b" ")
        self._take(packed, at)

    def _take(self, packed: bytes, at: bytes) -> None:
        try:
            revoked = Revoked(unpack_text(packed), float(at))
        except ValueError as error:
            log.error("Redis says what is none of ours", why=str(error))  # noqa: TRY400
        else:
            if self.taker is not None:
                self.taker.take_note(revoked)
