"""What keeps events under the unit: a file in its state directory, or a Redis with a password."""

from __future__ import annotations

import re
import secrets

import pytest

from tests.support.container import Container
from tests.support.documents import listings_of
from tests.support.redis import free_port, redis
from tests.support.service import PROJECT, Service

FILE = "var/lib/private/broadcasterd/events.sqlite"
PASSWORD = "etc/broadcasterd/engine_password"


@pytest.fixture
def keeping(installed: Service) -> Service:
    """Return the service, with events in a file where the packaged settings have them."""
    installed.serve("RestartSec=100ms\n", engine={"kind": "sqlite"})
    return installed


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


def test_redis_takes_the_password_that_root_alone_can_read(
    service: Service, machine: Container
) -> None:
    """The user is the one of docs/redis.md; another password takes a restart."""
    [acl] = listings_of(PROJECT / "docs/redis.md", "text", "Several daemons on one Redis")
    file = machine.root / PASSWORD
    with redis(port=free_port()) as server:

        def give_away() -> str:
            password = secrets.token_hex(16)
            assert "OK" == server.ask(*re.sub(">…", f"resetpass >{password}", acl).split())
            machine.write(PASSWORD, f"{password}\n", mode=0o600)
            return password

        passwords = [give_away()]
        place = f"redis://events@127.0.0.1:{server.port}"
        service.configure(engine={"kind": "redis", "url": place})
        try:
            service.start()
            first = service.publish("s", "a")["first_id"]
            with service.listening("s") as listener:
                passwords.append(give_away())
                service.restart()
                service.publish("s", "b")
                listener.until("b")

            assert data(service, "s", first) == ["b"]

            server.ask("CONFIG", "SET", "requirepass", secrets.token_hex(16))  # of everybody else
            file.unlink()
            service.restart()

            assert 503 == service.post("s", "c").status_code
            assert "credentials" in service.get("/health").json()["engine"]["why"]
            said = [record["MESSAGE"] for record in service.journal()]
            assert not [each for each in passwords if any(each in message for message in said)]
        finally:
            file.unlink(missing_ok=True)
