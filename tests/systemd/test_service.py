"""Start, activation through the socket, status and stop, by the real systemd."""

from __future__ import annotations

import httpx
import pytest

from tests.support.container import Container, until
from tests.support.service import Service
from tests.support.tokens import bearer, claims, sign


def test_it_is_active_when_its_port_answers_wherever_that_is(service: Service) -> None:
    """And says that the address is not its own choice."""
    service.configure(server={"port": 1})
    service.start()

    assert "healthy" == service.get("/health").json()["status"], "asked once, and at once"
    assert "active" == service.show("ActiveState")
    assert "0 sessions, 0 subscribers, breaker closed" == service.show("StatusText")
    assert any("server.host, .port and .backlog are ignored" in m for m in service.messages())


def test_the_status_line_follows_and_a_stop_tells_the_subscribers(service: Service) -> None:
    service.start()
    with service.listening("a"), service.listening("b"), service.listening("b"):
        service.until_status("2 sessions, 3 subscribers, breaker closed")

    service.until_status("2 sessions, 0 subscribers, breaker closed")
    with service.listening("s") as listener:
        service.container.run("systemctl", "stop", service.socket, service.unit)

        assert {"reason": "draining", "reconnect": True} == listener.until_end()
    assert ("inactive", "success") == (service.show("ActiveState"), service.show("Result"))
    with pytest.raises(httpx.ConnectError):
        service.get("/health")


def test_a_connection_to_the_socket_starts_it(service: Service) -> None:
    service.container.run("systemctl", "start", service.socket)

    assert "inactive" == service.show("ActiveState")
    assert 200 == service.get("/health").status_code
    until(lambda: service.show("ActiveState") == "active")  # its answer may overtake its READY=1


def test_a_drain_may_take_longer_than_systemd_would_wait(service: Service) -> None:
    """A stuck reader holds the drain up for its whole grace: three times what systemd gives."""
    service.configure(server={"shutdown_grace": 3})
    service.start("TimeoutStopSec=1\nWatchdogSec=2\n")
    with service.stalled("s"):
        service.container.run("systemctl", "stop", service.socket, service.unit)

    assert "success" == service.show("Result"), service.messages()
    assert any(message.startswith("stopped") for message in service.messages())


def test_the_key_of_tokens_is_handed_over_as_a_credential(service: Service) -> None:
    """The configuration names no key: it is the one that was made when it was installed."""
    service.configure(auth={"mode": "jwt"})
    service.start()
    secret = service.container.root / "etc/broadcasterd/secret"
    token = sign(claims(publish=("s",)), secret.read_text().strip())
    url = f"{service.url}/v1/sessions/s/events"

    assert 401 == httpx.post(url, json={"data": 1}).status_code
    assert 200 == httpx.post(url, json={"data": 1}, headers=bearer(token)).status_code
    assert 0o600 == secret.stat().st_mode & 0o777


def test_without_a_key_it_says_what_to_set(service: Service) -> None:
    secret = service.container.root / "etc/broadcasterd/secret"
    kept = secret.read_text()
    secret.unlink()
    service.configure(auth={"mode": "jwt"})
    try:
        service.container.run("systemctl", "start", service.unit, check=False)

        assert any("auth.secret_file" in message for message in service.messages())
    finally:
        service.container.write("/etc/broadcasterd/secret", kept, mode=0o600)


def test_staging_runs_beside_production(serving: Service, machine: Container) -> None:
    with Service(machine, "broadcasterd@staging").installed() as staging:
        staging.start()
        staging.publish("staged", "only here")
        each = [instance.get("/v1/sessions/staged").status_code for instance in (staging, serving)]

        assert [200, 404] == each
        assert serving.proc.stat().st_uid != staging.proc.stat().st_uid

        staging.container.run("systemctl", "stop", staging.socket, staging.unit)
        until(lambda: staging.show("ActiveState") == "inactive")

        assert 200 == serving.get("/health").status_code
