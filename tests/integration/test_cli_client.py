"""`broadcasterd publish` and `broadcasterd tail`, as processes, against a real daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, count
from typing import Protocol

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcasterd import client
from tests.support.certificate import Certificate
from tests.support.daemon import Daemon, StartDaemon
from tests.support.forkserver import ForkServer
from tests.support.lines import Lines
from tests.support.proxy import Cut, CuttingProxy
from tests.unit.test_publisher import Pieces

SOON = 60.0
"""Seconds, for a loaded machine; what is waited for takes milliseconds, and a start of Python."""


class Running:
    """A command that goes on: say lines to it, hear lines from it."""

    def __init__(self, server: ForkServer, *argv: str) -> None:
        stdin, ours = os.pipe()
        theirs, stderr = os.pipe()
        with os.fdopen(stdin) as source, os.fdopen(stderr, "w") as aside:
            self.process, stdout = server.fork(argv, os.environ, aside, source)
        self._stdin = os.fdopen(ours, "w", buffering=1)
        self._stdout = Lines(stdout)
        self._stderr = Lines(os.fdopen(theirs))

    def say(self, line: str) -> None:
        self._stdin.write(f"{line}\n")

    def no_more(self) -> None:
        self._stdin.close()

    def hear(self) -> str | None:
        return self._stdout.next(within=SOON)

    def hear_aside(self) -> str | None:
        return self._stderr.next(within=SOON)

    def rest_aside(self) -> Iterator[str]:
        while (line := self.hear_aside()) is not None:
            yield line

    def status(self) -> int:
        return self.process.wait(SOON)

    def outcome(self) -> tuple[int, str, str]:
        """Say no more; return the exit status, and all that is heard until the end."""
        self.no_more()
        out, aside = ("\n".join(iter(hear, None)) for hear in (self.hear, self.hear_aside))
        return self.status(), out, aside

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.no_more()
        self._stdout.close()
        self._stderr.close()


class Start(Protocol):
    """The fixture ``start``: starts a command that goes on."""

    def __call__(self, *argv: str) -> Running: ...


@pytest.fixture
def start(fork_server: ForkServer) -> Iterator[Start]:
    with ExitStack() as running:

        def start(*argv: str) -> Running:
            command = Running(fork_server, *argv)
            running.callback(command.close)
            return command

        yield start


def publish(daemon: Daemon, *data: str) -> list[str]:
    """Publish plain messages one after the other, and return their ids."""
    answers = [httpx.post(daemon.session("s"), json={"data": text}) for text in data]
    return [answer.raise_for_status().json()["last_id"] for answer in answers]


def end(daemon: Daemon) -> None:
    httpx.delete(f"{daemon.url}/v1/sessions/s").raise_for_status()


# --- publish ---------------------------------------------------------------------------------


def test_publish_prints_the_daemons_answer(daemon: Daemon, start: Start) -> None:
    status, out, aside = start("publish", "s", "--data", "hej", "--url", daemon.url).outcome()

    assert (status, aside) == (0, "")
    answer = json.loads(out)
    assert (answer["session"], answer["accepted"]) == ("s", 1)
    assert answer["first_id"] == answer["last_id"]


def test_line_is_broadcast_while_the_next_one_is_awaited(daemon: Daemon, start: Start) -> None:
    tail = start("tail", "s", "--url", daemon.url)
    publisher = start("publish", "s", "-", "--url", daemon.url)

    for line in ("one", "", "tv\u00e5"):
        publisher.say(line)
        assert tail.hear() == line

    publisher.no_more()
    answer = json.loads(publisher.hear() or "")
    assert answer["accepted"] == 3
    assert publisher.status() == 0


def test_ndjson_lines_are_events(daemon: Daemon, start: Start) -> None:
    publisher = start("publish", "s", "-", "--ndjson", "--url", daemon.url)
    publisher.say('{"data": {"n": 1}, "event": "count"}\n{"data": "two"}')
    publisher.no_more()
    assert publisher.status() == 0

    tail = start("tail", "s", "--json", "--url", daemon.url)
    first, second = json.loads(tail.hear() or ""), json.loads(tail.hear() or "")

    assert (first["event"], first["data"]) == ("count", '{"n":1}')
    assert (second["event"], second["data"]) == ("message", "two")


def test_refused_line_is_told(daemon: Daemon, start: Start) -> None:
    publisher = start("publish", "s", "-", "--ndjson", "--url", daemon.url)
    publisher.say('{"data": 1}\n\nnot json\n{"data": 2}')
    status, out, aside = publisher.outcome()

    assert (status, out) == (1, "")
    assert aside.startswith("Error: 400 ")
    assert aside.endswith("; line 3, 1 accepted before it")


def failure(url: str) -> str:
    """Return what publishing in this process says, the address left out."""
    with (
        pytest.raises(client.RequestFailed) as failed,
        client.Client(url, retry_for=0) as server,
    ):
        server.publish("s", "x")
    where, _, why = str(failed.value).partition(": ")

    assert f"{url}/v1/sessions/s/events" == where
    return why


def test_daemon_that_is_not_there_is_told(daemon: Daemon, start: Start) -> None:
    daemon.stop()

    publisher = start("publish", "s", "--data", "x", "--retry-for", "0", "--url", daemon.url)
    status, out, aside = publisher.outcome()

    assert (1, "") == (status, out)
    assert f"Error: {daemon.session('s')}: Connection refused" == aside
    assert "Name or service not known" == failure("http://nobody.invalid")


def test_the_wrong_scheme_is_told(
    daemon: Daemon, start: Start, start_daemon: StartDaemon, certificate: Certificate
) -> None:
    files = {"tls_certificate": str(certificate.chain), "tls_key": str(certificate.key)}
    secured = start_daemon(server=files)

    assert "no TLS is spoken there (is it http:// ?)" == failure(
        daemon.url.replace("http:", "https:")
    )
    publisher = start("publish", "s", "--data", "x", "--url", secured.url)
    status, out, aside = publisher.outcome()

    assert (1, "") == (status, out)
    assert aside.startswith(f"Error: 400 Bad Request from {secured.session('s')}: ")
    assert "this port speaks https" in aside


# --- publish, through what fails -------------------------------------------------------------

SIZES = st.lists(st.integers(0, 3000), max_size=4)


@pytest.mark.slow
def test_however_it_is_cut_every_line_arrives_once_and_in_order(daemon: Daemon) -> None:
    names = (f"cut-{number}" for number in count())

    @settings(max_examples=25)
    @given(
        pieces=st.lists(st.lists(st.text("aå ", max_size=9), max_size=30), max_size=4),
        up=SIZES,
        down=SIZES,
        how=st.sampled_from(Cut),
    )
    def arrives(pieces: list[list[str]], up: list[int], down: list[int], how: Cut) -> None:
        name = next(names)
        lines = [f"{n} {text}" for n, text in enumerate(chain.from_iterable(pieces))]
        numbered = iter(lines)
        source = Pieces(
            *["".join(f"{next(numbered)}\n" for _ in piece).encode() for piece in pieces if piece]
        )
        with (
            CuttingProxy(daemon.port) as proxy,
            client.Client(proxy.url, sleep=lambda _: None) as server,
        ):
            proxy.cut_after_requests_of(*up, how=how)
            proxy.cut_after(*down, how=how)
            receipt = server.publisher(name).publish_lines(source)

        page = reader.get(daemon.session(name), params={"limit": 1000})
        assert lines == [event["data"] for event in page.json()["events"]]
        assert (len(lines), 0) == (receipt.accepted, receipt.duplicates)

    with httpx.Client(headers={"Accept": "application/json"}) as reader:
        arrives()


def test_a_publisher_waits_for_a_daemon_that_is_away_and_says_so(
    daemon: Daemon, start_daemon: StartDaemon, start: Start
) -> None:
    with CuttingProxy(daemon.port) as proxy:
        publisher = start("publish", "s", "-", "--url", proxy.url)
        publisher.say("1")
        assert start("tail", "s", "--url", daemon.url).hear() == "1"
        daemon.stop()
        publisher.say("2")
        publisher.say("3")
        publisher.no_more()
        assert "next attempt in" in (publisher.hear_aside() or "")

        successor = start_daemon()
        proxy.lead_to(successor.port)
        answer = json.loads(publisher.hear() or "")
        tail = start("tail", "s", "--url", successor.url)

        assert (answer["accepted"], publisher.status()) == (3, 0)
        assert [tail.hear(), tail.hear()] == ["2", "3"]


def test_sigint_ends_a_publisher_that_waits(daemon: Daemon, start: Start) -> None:
    daemon.stop()
    publisher = start("publish", "s", "-", "--url", daemon.url)
    publisher.say("1")
    assert "next attempt in" in (publisher.hear_aside() or "")
    publisher.process.send_signal(signal.SIGINT)

    assert publisher.status() == 130
    assert "Traceback" not in "".join(publisher.rest_aside())


# --- tail ------------------------------------------------------------------------------------


def test_tail_prints_what_is_retained_then_what_comes(daemon: Daemon, start: Start) -> None:
    publish(daemon, "1", "2\nlines")
    tail = start("tail", "s", "--url", daemon.url)

    assert [tail.hear(), tail.hear(), tail.hear()] == ["1", "2", "lines"]

    publish(daemon, "3")
    assert tail.hear() == "3"


def test_tail_begins_where_it_is_told(daemon: Daemon, start: Start) -> None:
    ids = publish(daemon, "1", "2", "3")

    assert start("tail", "s", "--from", "last:1", "--url", daemon.url).hear() == "3"
    assert start("tail", "s", "--last-event-id", ids[0], "--url", daemon.url).hear() == "2"


def test_json_lines_name_id_and_event(daemon: Daemon, start: Start) -> None:
    [only] = publish(daemon, "hej")

    line = start("tail", "s", "--json", "--url", daemon.url).hear()

    assert json.loads(line or "") == {"id": only, "event": "message", "data": "hej"}


def test_tail_ends_with_the_session(daemon: Daemon, start: Start) -> None:
    publish(daemon, "1")
    tail = start("tail", "s", "--url", daemon.url)
    assert tail.hear() == "1"

    end(daemon)

    assert "session_closed" in (tail.hear_aside() or "")
    assert tail.status() == 0


def test_tail_of_an_ended_session_ends_at_once(daemon: Daemon, start: Start) -> None:
    publish(daemon, "1")
    end(daemon)

    status, out, _ = start("tail", "s", "--url", daemon.url).outcome()

    assert (status, out) == (0, "")


def test_tail_that_is_cut_off_misses_nothing_and_repeats_nothing(
    start_daemon: StartDaemon, start: Start
) -> None:
    daemon = start_daemon(sessions={"retry_ms": 10})
    with CuttingProxy(daemon.port) as proxy:
        publish(daemon, "1", "2")
        tail = start("tail", "s", "--url", proxy.url)
        assert [tail.hear(), tail.hear()] == ["1", "2"]

        proxy.cut()
        publish(daemon, "3")

        assert tail.hear() == "3"
        assert "next attempt in" in (tail.hear_aside() or "")


def test_gap_is_told_aside(daemon: Daemon, start: Start) -> None:
    publish(daemon, "1")
    tail = start("tail", "s", "--last-event-id", "long-gone", "--url", daemon.url)

    assert tail.hear() == "1"
    assert (tail.hear_aside() or "").startswith("broadcasterd: gap: ")


def test_refusal_is_told_and_not_tried_again(daemon: Daemon, start: Start) -> None:
    status, _, aside = start("tail", "s", "--from", "yesterday", "--url", daemon.url).outcome()

    assert status == 1
    assert aside.startswith("Error: 400")


@pytest.mark.slow
def test_reader_that_has_had_enough_ends_the_tail_quietly(daemon: Daemon) -> None:
    command = f"{sys.executable} -m broadcasterd tail s --url {daemon.url}"
    with subprocess.Popen(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as pipeline:
        # A broken pipe is noticed when something is written to it.
        deadline = time.monotonic() + SOON
        while pipeline.poll() is None and time.monotonic() < deadline:
            publish(daemon, "x")
            time.sleep(0.05)

        assert pipeline.communicate(timeout=SOON) == ("x\n", "")
        assert pipeline.returncode == 0
