"""What a Redis server sends: answers go to coredis, and what channels say goes on at once."""

from __future__ import annotations

import pytest
from coredis.exceptions import InvalidResponse, NoScriptError, ResponseError
from coredis.parser import NotEnoughData

from broadcasterd.engine.redis.reader import Reader
from broadcasterd.engine.redis.wire import MOVED

SAID = b">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$4\r\n\r\n\0x\r\n"
MOVED_AWAY = b">3\r\n$12\r\nsunsubscribe\r\n$1\r\nc\r\n:0\r\n"
SUBSCRIBED = b">3\r\n$10\r\nssubscribe\r\n$1\r\nc\r\n:1\r\n"
ANSWERS = b"*3\r\n$1\r\na\r\n:2\r\n_\r\n%1\r\n+b\r\n#f\r\n"


class Heard:
    """What a reader told of, and what it returned."""

    def __init__(self) -> None:
        self.said: list[tuple[bytes, bytes]] = []
        self.reads = 0
        self.answers: list[object] = []
        self.reader = Reader(self._tell, self._told)

    def _tell(self, channel: bytes, data: bytes) -> None:
        self.said.append((channel, data))

    def _told(self) -> None:
        self.reads += 1

    def read(self, data: bytes) -> None:
        """Read as coredis does."""
        self.reader.feed(data)
        while not isinstance(
            answer := self.reader.parse(decode=False, encoding="utf-8"), NotEnoughData
        ):
            self.answers.append(answer[1])


def test_what_channels_say_is_told_and_the_rest_returned_in_order() -> None:
    heard = Heard()

    heard.read(SUBSCRIBED + SAID + ANSWERS + SAID + MOVED_AWAY)

    assert heard.said == [(b"c", b"\r\n\0x"), (b"c", b"\r\n\0x"), (b"c", MOVED)]
    assert heard.answers == [[b"a", 2, None], {b"b": False}]
    assert heard.reads == 1


def test_it_is_the_same_however_it_is_cut() -> None:
    heard, data = Heard(), SAID + ANSWERS + SAID

    for index in range(len(data)):
        heard.read(data[index : index + 1])

    assert heard.said == 2 * [(b"c", b"\r\n\0x")]
    assert heard.answers == [[b"a", 2, None], {b"b": False}]
    assert heard.reads == len(data)


def test_an_error_is_of_the_kind_that_coredis_gives_it() -> None:
    heard = Heard()

    heard.read(b"-NOSCRIPT No matching script.\r\n*1\r\n-ERR no\r\n")

    unknown, several = heard.answers
    assert isinstance(unknown, NoScriptError)
    assert isinstance(several, list)
    assert isinstance(several[0], ResponseError)


def test_what_is_no_answer_is_an_error() -> None:
    with pytest.raises(InvalidResponse):
        Heard().read(b"hello\r\n")
