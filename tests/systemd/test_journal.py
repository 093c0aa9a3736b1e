"""The journal: the fields that operators search by, and that journald never holds the daemon up."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.container import until
from tests.support.documents import listings_of
from tests.support.proxies import PAGE as PROXIES
from tests.support.service import Service

DOCUMENT = Path(__file__).parents[2] / "docs/logs.md"
COMMANDS = "".join(listings_of(DOCUMENT, "sh")).splitlines()

# These may have nothing to tell, and that is good news.
MAY_BE_SILENT = {
    MESSAGE_IDS["log records were dropped"],
    MESSAGE_IDS["a task held up the loop"],
    "BREAKER_STATE=open",
    "SUBJECT=alice",  # without tokens, nobody has a subject
}

STALL_S = 4.0


def ended(service: Service, stream_id: str) -> dict[str, str]:
    """Wait for the record of a stream's end."""
    until(lambda: service.journal(f"SUBSCRIBER_ID={stream_id}"))
    [record] = service.journal(f"SUBSCRIBER_ID={stream_id}")
    return record


def test_the_end_of_a_stream_is_found_by_its_session_and_explained(serving: Service) -> None:
    with serving.listening("orders") as listener:
        serving.publish("orders", "first", "second")
        last = listener.until("second")
    ended(serving, listener.stream_id)
    [record] = serving.journal("SESSION_ID=orders")

    assert {
        "SESSION_ID": "orders",
        "SUBSCRIBER_ID": listener.stream_id,
        "REMOTE_ADDR": "127.0.0.1",
        "REASON": "client_gone",
        "EVENT_ID": last.id,
        "SENT_EVENTS": "2",
        "PRIORITY": "6",
        "MESSAGE_ID": MESSAGE_IDS["stream ended"],
        "SYSLOG_IDENTIFIER": "broadcasterd",
        "LOGGER": "broadcasterd.broadcast.subscribers",
        "CODE_FUNC": "ended",
        "_SYSTEMD_UNIT": "broadcasterd.service",
        "_TRANSPORT": "journal",
    }.items() <= record.items()
    assert record["CODE_FILE"].endswith("/broadcasterd/broadcast/subscribers.py")
    assert float(record["DURATION_S"]) > 0
    assert int(record["SENT_BYTES"]) > 0
    assert record["MESSAGE"].startswith("stream ended session=orders ")

    explained = serving.container.run("journalctl", "-x", f"SUBSCRIBER_ID={listener.stream_id}")

    assert "Subject: A stream of session orders has ended: client_gone" in explained.stdout
    assert "The subscriber at 127.0.0.1 listened for" in explained.stdout


def test_a_proxy_that_nobody_trusts_is_found_in_the_log(serving: Service) -> None:
    proxy = f"127.8.8.{1 + secrets.randbelow(250)}"
    with httpx.Client(transport=httpx.HTTPTransport(local_address=proxy)) as client:
        for _ in range(3):
            client.get(f"{serving.url}/health/live", headers={"X-Forwarded-For": "192.0.2.7"})
    until(lambda: serving.journal(f"REMOTE_ADDR={proxy}"))
    [command] = listings_of(PROXIES, "sh", "In the daemon")
    found = serving.container.run("sh", "-ec", command).stdout.splitlines()

    assert 1 == len([line for line in found if f"={proxy} " in f"{line} "])


def test_a_change_of_the_breaker_has_its_state_and_the_memory(service: Service) -> None:
    service.configure(memory={"warning_mb": 1})
    service.start()
    until(lambda: service.journal("BREAKER_STATE=warning"))
    [record] = service.journal("BREAKER_STATE=warning")

    assert ("closed", "4", MESSAGE_IDS["memory breaker"]) == (
        record["BREAKER_STATE_BEFORE"],
        record["PRIORITY"],
        record["MESSAGE_ID"],
    )
    assert 10 < float(record["RSS_MB"]) < 200


def test_events_are_no_records_and_not_in_any(service: Service) -> None:
    service.start()
    before = len(service.journal())
    with service.listening("s") as listener:
        service.publish("s", *[f"do-not-log-{number}" for number in range(500)])
        listener.until("do-not-log-499")
    ended(service, listener.stream_id)
    records = service.journal()

    assert before + 1 == len(records)
    assert "do-not-log" not in str(records)


def test_the_documented_commands_answer(service: Service) -> None:
    """Everything that the questions are about happens once; then each of them is asked."""
    alert = {"name": "memory_critical", "metric": "used_mb", "threshold": "memory.warning_mb"}
    service.configure(
        sessions={"max_lag_events": 5}, memory={"warning_mb": 1}, alerts={"rules": [alert]}
    )
    service.start()
    until(lambda: service.journal("ALERT=memory_critical"))
    with service.listening("demo") as listener, service.stalled("demo"):
        for number in range(10):
            service.publish("demo", f"{number}")
        until(lambda: service.journal("REASON=slow_consumer"))
    service.container.run("systemctl", "reload", service.unit)
    service.container.run("systemctl", "restart", service.unit)
    ended(service, listener.stream_id)

    assert len(COMMANDS) >= 10
    for command in COMMANDS:
        asked = command.replace("192.0.2.7", "127.0.0.1")
        asked = asked.replace("3f0c9d2b7a415e68", listener.stream_id)
        answer = service.container.run("sh", "-c", asked).stdout
        nothing = answer.strip() in {"", "-- No entries --"}

        assert not nothing or any(silent in command for silent in MAY_BE_SILENT), command


@contextmanager
def journald_stopped(service: Service) -> Iterator[None]:
    """Have a journald that takes nothing, as one does that waits for its disk."""
    stop = ("systemctl", "kill", "--kill-whom=main", "systemd-journald.service", "--signal")
    service.container.run(*stop, "STOP")
    try:
        yield
    finally:
        service.container.run(*stop, "CONT")


def test_a_journald_that_takes_nothing_holds_nothing_up(service: Service) -> None:
    service.start("WatchdogSec=2\n")
    pid = service.pid
    with service.listening("s") as listener:
        with journald_stopped(service):
            deadline = time.monotonic() + STALL_S
            rounds = 0
            while time.monotonic() < deadline:
                rounds += 1
                service.publish("s", f"round {rounds}")
                listener.until(f"round {rounds}")
                with service.listening("another"):  # its end is a record
                    pass
        service.publish("s", "afterwards")
        listener.until("afterwards")
        until(lambda: service.journal(f"MESSAGE_ID={MESSAGE_IDS['log records were dropped']}"))

    [told, *_] = service.journal(f"MESSAGE_ID={MESSAGE_IDS['log records were dropped']}")

    assert rounds > 1, "a publisher waited for journald"
    assert "journald took none" == told["WHY"]
    assert int(told["COUNT"]) > 0
    assert (pid, "0") == (service.pid, service.show("NRestarts"))
