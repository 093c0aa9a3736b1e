"""A restart that no client notices: connections stay open, and every event comes once and in order.

The sockets wait in the descriptor store of the real systemd while one process ends and the next
begins.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support.container import SOON_S
from tests.support.service import Service
from tests.support.throughout import SUBSCRIBERS, unnoticed

LINE_S = 0.05
"""Between two lines of a publisher."""

log = logging.getLogger(__name__)


async def test_a_restart_closes_no_connection_and_loses_no_event(serving: Service) -> None:
    silence = await unnoticed(serving, serving.restart)
    moved = serving.journal(f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}")

    log.info("the longest silence of %d subscribers was %.2f s", SUBSCRIBERS, silence)
    assert [(str(SUBSCRIBERS), "0")] == [(m["STREAMS"], m["LOST_STREAMS"]) for m in moved]
    assert "1" == serving.show("NFileDescriptorStore"), "only the configuration stays"


def test_a_publisher_goes_on_through_restarts(serving: Service) -> None:
    command = [sys.executable, "-m", "broadcasterd", "publish", "s", "-", "--url", serving.url]
    numbers = count()
    with (
        serving.listening("s") as listener,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as publisher,
        ThreadPoolExecutor(1) as operator,
    ):
        assert publisher.stdin is not None

        def say() -> str:
            line = str(next(numbers))
            print(line, file=publisher.stdin)
            return line

        listener.until(say())
        for _ in range(2):
            restart = operator.submit(serving.restart)
            while not restart.done():
                say()
                wait([restart], timeout=LINE_S)
            restart.result()
            listener.until(say())
        receipt = json.loads(publisher.communicate(timeout=SOON_S)[0])
        lines = [str(number) for number in range(next(numbers))]

        assert lines == [event.data for event in listener.events]
        assert (len(lines), 0) == (receipt["accepted"], publisher.returncode)
        assert "duplicates" not in receipt


def test_a_process_that_dies_hands_nothing_over_and_the_next_one_begins_anew(
    serving: Service,
) -> None:
    first = serving.publish("s", "a")["first_id"]
    pid = serving.pid
    with serving.listening("s") as listener:
        listener.until("a")
        serving.kill("KILL")
        serving.until_restarted(pid)

        assert listener.is_over()
    assert "gap" in serving.page("s", last_event_id=first)


def test_without_a_descriptor_store_clients_come_back_to_the_log_that_was_left(
    service: Service,
) -> None:
    service.start("Environment=FDSTORE=0\n")
    first = service.publish("s", "a", "b", "c")["first_id"]
    with service.listening("s") as listener:
        listener.until("c")
        service.restart()

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    again = service.page("s", last_event_id=first)

    assert ["b", "c"] == [event["data"] for event in again["events"]]
    assert "gap" not in again
    assert [] == list((service.container.root / "run/broadcasterd").glob("*.handover"))


def test_what_an_unknown_version_left_is_let_go_of_and_clients_are_told(service: Service) -> None:
    service.start(
        "Environment=FDSTORE=0\nExecStartPre=+/bin/sh -c"
        " 'sed -i s/handover.1/handover_9/ /run/broadcasterd/*.handover || true'\n"
    )
    first = service.publish("s", "a", "b")["first_id"]
    service.restart()
    again = service.page("s", last_event_id=first)

    assert 1 == len(service.journal(f"MESSAGE_ID={MESSAGE_IDS['handover unreadable']}"))
    assert ([], {"asked": first, "oldest": None}) == (again["events"], again["gap"])
    assert service.publish("s", "c")["first_id"].partition("-")[0] != first.partition("-")[0]
    assert [] == list((service.container.root / "run/broadcasterd").glob("*.handover"))
