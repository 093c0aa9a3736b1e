"""Reads what a server sends, in the place of coredis' own parser: with hiredis, which is C.

The parser of coredis takes ten times as long; and it puts what a server tells by itself into a
queue, from where it would be fetched with a switch of tasks each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hiredis
from coredis.constants.resp import DataType
from coredis.exceptions import InvalidResponse
from coredis.parser import NotEnoughData, Parser

from broadcasterd.engine.redis.wire import MOVED

Tell = Callable[[bytes, bytes], None]

NOT_ENOUGH_DATA = NotEnoughData()


class Reader:
    """Answers go to coredis, and what channels say goes where it belongs, at once.

    Args:
        tell: is told what a channel said.
        told: called once all was told that one read of the socket brought.

    """

    def __init__(self, tell: Tell, told: Callable[[], None]) -> None:
        self._tell = tell
        self._told = told
        self._replies = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=Parser().parse_error,
            notEnoughData=NOT_ENOUGH_DATA,
        )

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self._replies.feed(data)

    def parse(self, **_: object) -> Any:  # noqa: ANN401 (what RESP has)
        """Return the next answer, as coredis has it: with its kind, of which one counts."""
        next_reply = self._replies.gets
        while type(reply := next_reply()) is hiredis.PushNotification:
            kind = reply[0]
            if kind == b"smessage":
                self._tell(reply[1], reply[2])
            elif kind == b"sunsubscribe":
                self._tell(reply[1], MOVED)
        if reply is NOT_ENOUGH_DATA:
            self._told()
            return reply
        return DataType.ARRAY, reply  # of any kind but a push

    def on_disconnect(self) -> None:
        """Have nothing to let go of: there is a reader for each connection."""
