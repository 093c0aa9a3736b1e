"""The limit on memory that the unit sets, enforced by the kernel."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter

from tests.support.container import SOON_S
from tests.support.service import PORT, Service

LIMIT_MB = 120
EVENT_BYTES = 500_000
ENOUGH = 2 * LIMIT_MB * 1_000_000 // EVENT_BYTES
"""Events: twice what the limit has room for."""


def test_a_flood_does_not_get_it_killed(service: Service) -> None:
    """The limit is the kernel's; the breaker stays below it, and says what it does."""
    service.start(f"MemoryHigh=infinity\nMemoryMax={LIMIT_MB}M\n")
    pid = service.pid

    assert LIMIT_MB / 2 == service.get("/health").json()["memory"]["warning_mb"]

    names = itertools.count()
    answers: Counter[int] = Counter()
    deadline = time.monotonic() + SOON_S

    def publish() -> None:
        event = b"x" * EVENT_BYTES
        while answers[200] < ENOUGH and not answers[503] and time.monotonic() < deadline:
            connection = http.client.HTTPConnection(service.host, PORT, timeout=SOON_S)
            target = f"/v1/sessions/flood-{next(names)}/events"
            connection.request("POST", target, event, {"Content-Type": "text/plain"})
            answers[connection.getresponse().status] += 1
            connection.close()

    publishers = [threading.Thread(target=publish) for _ in range(4)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()

    assert set(answers) <= {200, 503}
    assert answers[503] or answers[200] >= ENOUGH, "that was no flood"
    assert service.journal("BREAKER_STATE=warning")
    assert (pid, "0") == (service.pid, service.show("NRestarts"))
    assert "active" == service.show("ActiveState")
