"""A daemon that hangs or dies is replaced, and clients that connect meanwhile are not refused."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.container import SOON_S
from tests.support.service import PORT, Service

PAUSE_S = 0.05
"""Between one connection and the next: a dozen of them come while the next daemon starts."""


@contextmanager
def connecting(service: Service) -> Iterator[Counter[str]]:
    """Ask for its health all the time; count the answers, and what came instead."""
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def ask() -> str:
        with socket.create_connection((service.host, PORT), timeout=SOON_S) as connection:
            connection.sendall(
                b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            return "answered" if connection.recv(100).startswith(b"HTTP/1.1 200") else "cut off"

    def go_on() -> None:
        while not stop.wait(PAUSE_S):
            try:
                outcomes[ask()] += 1
            except ConnectionRefusedError:
                outcomes["refused"] += 1
            except OSError:
                outcomes["cut off"] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def test_one_that_hangs_is_replaced_by_the_watchdog(service: Service) -> None:
    service.start("WatchdogSec=2\n")
    pid = service.pid
    with connecting(service) as outcomes:
        service.kill("STOP")
        service.until_restarted(pid)

        assert 200 == service.get("/health").status_code
    assert 0 == outcomes["refused"], outcomes
    assert outcomes["answered"]
    assert "1" == service.show("NRestarts")
    assert any("Watchdog timeout" in message for message in service.messages("_PID=1"))


def test_one_that_dies_is_replaced_and_nobody_is_refused(service: Service) -> None:
    """And one that is aborted says where it was."""
    service.start("RestartSec=100ms\n")
    for restarts, signal in enumerate(["KILL", "SEGV", "ABRT"], start=1):
        pid = service.pid
        with connecting(service) as outcomes:
            service.kill(signal)
            service.until_restarted(pid)

            assert 200 == service.get("/health").status_code, signal
        assert 0 == outcomes["refused"], (signal, outcomes)
        assert outcomes["answered"], signal
        assert str(restarts) == service.show("NRestarts"), signal
    told = service.messages("_TRANSPORT=stdout")

    assert "Fatal Python error: Aborted" in told
    assert any("trio" in line for line in told)
