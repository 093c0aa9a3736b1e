"""Sessions that are not there: what is remembered of them, how much, and for how long."""

from __future__ import annotations

import pytest

from broadcasterd.broadcast.absent import AbsentSessions
from broadcasterd.broadcast.clock import Clock
from broadcasterd.config import Config, Sessions, Settings


class Wrist:
    """A watch that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0


@pytest.fixture
def watch() -> Wrist:
    return Wrist()


@pytest.fixture
def absent(watch: Wrist) -> AbsentSessions:
    """Remember three of each, for 60 s."""
    limits = Sessions(max_sessions=3, session_ttl=60)
    return AbsentSessions(Settings(Config(sessions=limits)), Clock(lambda: watch.now))


def test_a_session_that_was_closed_is_remembered_until_it_is_opened(absent: AbsentSessions) -> None:
    absent.note_ended("a", 1000.0)

    assert absent.was_ended("a")
    assert not absent.was_ended("b")
    absent.leave("a")
    assert not absent.was_ended("a")


def test_one_that_is_closed_again_is_the_newest(absent: AbsentSessions) -> None:
    for name, at in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        absent.note_ended(name, at)

    assert absent.ended() == (("b", 2.0), ("a", 3.0))


def test_an_incarnation_is_promised_once_and_kept(absent: AbsentSessions) -> None:
    promised = absent.promise("a")

    assert promised == absent.promise("a")
    assert promised != absent.promise("b")
    assert promised == absent.leave("a")
    assert promised != absent.leave("a"), "the next one is another session"


def test_the_oldest_are_forgotten_where_there_are_too_many(absent: AbsentSessions) -> None:
    names = "abcde"
    promised = {name: absent.promise(name) for name in names}
    for name in names:
        absent.note_ended(name, 1000.0)

    assert absent.forget_surplus() == ["a", "b"]
    assert [name for name, _ in absent.ended()] == ["c", "d", "e"]
    kept = [name for name in names if absent.leave(name) == promised[name]]
    assert kept == ["c", "d", "e"]


def test_all_is_forgotten_in_time(absent: AbsentSessions, watch: Wrist) -> None:
    absent.note_ended("a", watch.now)
    promised = absent.promise("p")
    watch.now += 30
    absent.note_ended("b", watch.now)
    watch.now += 29.5
    assert list(absent.forget_old()) == []
    assert absent.promise("p") == promised
    watch.now += 0.5

    assert list(absent.forget_old()) == ["a"]
    assert absent.ended() == (("b", 1030.0),)
    assert absent.promise("p") != promised
