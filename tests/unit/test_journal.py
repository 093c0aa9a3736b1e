"""Records on their way to journald: the fields, and a journald that takes none."""

from __future__ import annotations

import logging
import queue
import socket
import struct
import sys
from collections.abc import Iterator
from logging.handlers import QueueHandler
from pathlib import Path

import pytest
import structlog

from broadcasterd.config import ConfigError, Log
from broadcasterd.observe import journal
from broadcasterd.observe.journal import JournalHandler, fields
from broadcasterd.observe.log import logging_as
from broadcasterd.observe.messages import MESSAGE_IDS


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave no trace in what is configured for the whole process."""
    loggers = [logging.getLogger(name) for name in ("", "broadcasterd")]
    before, levels = structlog.get_config(), [logger.level for logger in loggers]
    yield
    structlog.configure(**before)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def record(levelno: int = logging.INFO, **event: object) -> logging.LogRecord:
    """Return a record as structlog hands it to the standard library."""
    return logging.makeLogRecord(
        {"name": "a.module", "levelno": levelno, "msg": {"event": "it happened", **event}}
    )


# --- fields ----------------------------------------------------------------------------------


def test_what_people_search_by_has_its_name() -> None:
    found = dict(
        fields(
            record(
                session="orders",
                stream="7f3c",
                last_id="a-1",
                peer="192.0.2.7",
                after="open",
                before="warning",
                reason="memory",
                rss_mb=12.5,
            )
        )
    )

    assert {
        "SESSION_ID": "orders",
        "SUBSCRIBER_ID": "7f3c",
        "EVENT_ID": "a-1",
        "REMOTE_ADDR": "192.0.2.7",
        "BREAKER_STATE": "open",
        "BREAKER_STATE_BEFORE": "warning",
        "REASON": "memory",
        "RSS_MB": "12.5",
        "SYSLOG_IDENTIFIER": "broadcasterd",
        "LOGGER": "a.module",
    }.items() <= found.items()


def test_the_message_has_all_of_it_in_a_line() -> None:
    found = dict(fields(record(session="s", urls=["a", "b"], nothing=None, level="info")))

    assert "it happened session=s urls=a, b" == found["MESSAGE"]
    assert "a, b" == found["URLS"]
    assert not {"NOTHING", "LEVEL", "EVENT"} & set(found)


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logging.INFO + 1, "6"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
    ],
)
def test_the_priority_is_that_of_syslog(level: int, priority: str) -> None:
    assert priority == dict(fields(record(level)))["PRIORITY"]


def test_a_known_kind_has_its_id_and_another_none() -> None:
    known = dict(fields(record(event="stream ended")))

    assert MESSAGE_IDS["stream ended"] == known["MESSAGE_ID"]
    assert "MESSAGE_ID" not in dict(fields(record()))


def test_a_traceback_follows_the_message() -> None:
    message = dict(fields(record(exc_info=ValueError("what was wrong"))))["MESSAGE"]

    assert ["it happened", "ValueError: what was wrong"] == message.splitlines()


def test_a_record_of_another_library_is_one_like_ours() -> None:
    foreign = logging.makeLogRecord(
        {"name": "foreign", "levelno": logging.WARNING, "msg": "%s of %d", "args": ("one", 2)}
    )
    found = dict(fields(foreign))

    assert ("one of 2", "4", "foreign") == (found["MESSAGE"], found["PRIORITY"], found["LOGGER"])


# --- sending ---------------------------------------------------------------------------------


class Journald:
    """A socket that takes what a real one would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)

    def next(self) -> dict[str, str]:
        """Wait for a record (systemd's "Native Journal Protocol")."""
        data, found = self._socket.recv(65536), {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:  # a value with line breaks has its length before it
                (size,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + size], data[8 + size + 1 :]
            found[name.decode()] = value.decode()
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
    """Return a journald, which the daemon would find."""
    journald = Journald(tmp_path / "journal")
    monkeypatch.setattr(journal, "SOCKET", journald.path)
    yield journald
    journald.close()


def test_a_record_arrives_as_it_is(journald: Journald) -> None:
    with logging_as(Log(format="journal")):
        structlog.stdlib.get_logger("broadcasterd.m").warning(
            "two\nlines", session="s", odd="lone \udc80"
        )
        found = journald.next()

    assert ("two\nlines session=s odd=lone \\udc80", "s") == (found["MESSAGE"], found["SESSION_ID"])
    assert ("4", __file__) == (found["PRIORITY"], found["CODE_FILE"])
    assert "test_a_record_arrives_as_it_is" == found["CODE_FUNC"]


def test_a_record_of_a_megabyte_is_no_error(journald: Journald) -> None:
    """It goes as a file descriptor, with no bytes beside it."""
    handler = JournalHandler(journald.path)
    handler.emit(record(text="x" * 1_000_000))
    handler.emit(record(text="the next"))

    assert {} == journald.next()
    assert "the next" == journald.next()["TEXT"]
    handler.close()


def test_what_it_does_not_take_is_dropped_and_told(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEND_TIMEOUT_S", 0.01)
    with logging_as(Log(format="journal")):
        log = structlog.stdlib.get_logger("broadcasterd.m")
        [records] = [h.queue for h in logging.getLogger().handlers if isinstance(h, QueueHandler)]
        assert isinstance(records, queue.Queue)
        for _ in range(40):  # more than the kernel queues for it
            log.info("record")
        records.join()
        first_to_wait = journald.next()  # there is room again: for the note, and no more
        log.info("dropped as well")
        records.join()
        taken = 1
        while (found := journald.next())["MESSAGE"] == first_to_wait["MESSAGE"]:
            taken += 1
        log.info("afterwards")

        assert "log records were dropped" in found["MESSAGE"]
        assert ("3", "journald took none") == (found["PRIORITY"], found["WHY"])
        assert 40 - taken == int(found["COUNT"]) > 0
        assert "1" == journald.next()["COUNT"]
        assert "afterwards" == journald.next()["MESSAGE"]


def test_the_end_of_the_daemon_does_not_wait_for_it(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadcasterd.observe.log.FLUSH_S", 0.0)
    with logging_as(Log(format="journal")):
        for _ in range(1000):  # each would wait a second
            structlog.stdlib.get_logger("broadcasterd.m").info("record")


# --- whether to ------------------------------------------------------------------------------


def test_who_asks_for_a_journal_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"log.format = \"journal\": there is no journald"):
        logging_as(Log(format="journal")).__enter__()


@pytest.mark.parametrize(("inode_off", "to_the_journal"), [(0, True), (1, False)])
def test_under_systemd_the_journal_is_found_by_itself(
    *,
    inode_off: int,
    to_the_journal: bool,
    journald: Journald,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JOURNAL_STREAM names what systemd connected standard error to (systemd.exec(5))."""
    with (tmp_path / "stderr").open("w") as stderr:
        found = (tmp_path / "stderr").stat()
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + inode_off}")
        with logging_as(Log(format="auto")):
            structlog.stdlib.get_logger("broadcasterd.m").info("hello")

    assert (0 == (tmp_path / "stderr").stat().st_size) is to_the_journal
    if to_the_journal:
        assert "hello" == journald.next()["MESSAGE"]
