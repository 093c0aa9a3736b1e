"""Events in the service's state directory: over a crash, a restart, a stop, and in its sandbox."""

from __future__ import annotations

import pytest

from tests.support.container import Container
from tests.support.service import Service

FILE = "var/lib/private/broadcasterd/events.sqlite"


@pytest.fixture
def keeping(service: Service) -> Service:
    """Return the service, with events in a file where the packaged settings have them."""
    service.configure(engine={"kind": "sqlite"})
    service.start("RestartSec=100ms\n")
    return service


def data(service: Service, session: str, after: str) -> list[str]:
    """Return the events after one, of which no gap is told."""
    page = service.page(session, last_event_id=after)

    assert "gap" not in page
    return [event["data"] for event in page["events"]]


def test_a_crash_a_restart_and_a_stop_lose_nothing(keeping: Service, machine: Container) -> None:
    service = keeping
    first = service.publish("s", "a", "b")["first_id"]

    assert (machine.root / FILE).exists()

    pid = service.pid
    service.kill("KILL")
    service.until_restarted(pid)

    assert data(service, "s", first) == ["b"]

    service.publish("s", "c")
    service.restart()

    assert data(service, "s", first) == ["b", "c"]

    service.publish("s", "d")
    pid = service.pid
    service.kill("KILL")
    service.until_restarted(pid)

    assert data(service, "s", first) == ["b", "c", "d"]

    machine.run("systemctl", "stop", service.unit)
    machine.run("systemctl", "start", service.unit)

    assert data(service, "s", first) == ["b", "c", "d"]


def test_a_restart_closes_no_stream_and_the_file_agrees_with_what_goes_on(
    keeping: Service,
) -> None:
    with keeping.listening("t") as listener:
        keeping.publish("t", "a")
        first = listener.until("a")
        keeping.restart()
        keeping.publish("t", "b")
        listener.until("b")
        pid = keeping.pid
        keeping.kill("KILL")
        keeping.until_restarted(pid)

    assert data(keeping, "t", first.id or "") == ["b"]
