"""Real proxies before the daemon, run as docs/proxies.md says: nobody notices that they are there.

Nor what happens behind them: ``make restarts`` has the daemon start again a hundred times.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from broadcasterd.observe.messages import MESSAGE_IDS
from tests.support import proxies
from tests.support.certificate import Certificate
from tests.support.container import SOON_S, Container, until
from tests.support.proxies import (
    APACHE,
    CADDY,
    HAPROXY,
    LEAST,
    NGINX,
    PORTS,
    PROXIES,
    SUB_PATH,
    TLS_PORTS,
)
from tests.support.service import PROJECT, Service
from tests.support.throughout import Door, KeptPublisher, unnoticed

RESTARTS = int(os.environ.get("BROADCASTERD_TEST_RESTARTS", "2"))
SUBSCRIBERS = int(os.environ.get("BROADCASTERD_TEST_SUBSCRIBERS", "60"))
PUBLISHERS = int(os.environ.get("BROADCASTERD_TEST_PUBLISHERS", "10"))
"""A restart of the everyday suite is one among few; see the Makefile for more."""

EVENTS = 2
"""Events that each subscriber gets between two restarts."""

each_proxy = pytest.mark.parametrize("proxy", PROXIES)
each_path = pytest.mark.parametrize("below", ["", SUB_PATH])

log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def behind(machine: Container, certificate: Certificate) -> Iterator[Service]:
    """Start the service, which trusts whom the packaged configuration trusts, and all proxies."""
    packaged = tomllib.loads((PROJECT / "config/broadcasterd.toml").read_text())
    with Service(machine).installed() as service:
        service.configure(limits={"trusted_proxies": packaged["limits"]["trusted_proxies"]})
        service.start()
        with proxies.running(service, certificate):
            yield service


@each_path
@each_proxy
def test_events_come_at_once(proxy: str, below: str, behind: Service) -> None:
    session = secrets.token_hex(4)
    with behind.listening(session, port=PORTS[proxy], below=below) as listener:
        for data in ("a", "b"):
            behind.publish(session, data)

            assert data == listener.until(data).data


@pytest.fixture
def context(certificate: Certificate) -> ssl.SSLContext:
    """Return that of a client, for whom it does not matter which of loopback's addresses it is."""
    context = certificate.client_context()
    context.check_hostname = False
    return context


@each_proxy
def test_events_come_at_once_over_tls(proxy: str, behind: Service, context: ssl.SSLContext) -> None:
    session = secrets.token_hex(4)
    with behind.listening(session, port=TLS_PORTS[proxy], tls=context) as listener:
        for data in ("a", "b"):
            behind.publish(session, data)

            assert data == listener.until(data).data


@each_proxy
def test_events_come_at_once_over_http2(
    proxy: str, behind: Service, context: ssl.SSLContext
) -> None:
    session = secrets.token_hex(4)
    url = f"https://{behind.host}:{TLS_PORTS[proxy]}/v1/sessions/{session}/events"
    with (
        httpx.Client(http2=True, verify=context, timeout=SOON_S) as client,
        client.stream("GET", url) as stream,
    ):
        lines = stream.iter_lines()
        for data in ("a", "b"):
            behind.publish(session, data)

            assert f"data: {data}" in lines
        assert "HTTP/2" == stream.http_version


@each_path
@each_proxy
def test_an_upload_is_passed_on_as_it_comes(proxy: str, below: str, behind: Service) -> None:
    session = secrets.token_hex(4)
    head = (
        f"POST {below}/v1/sessions/{session}/events HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with (
        behind.listening(session) as listener,
        closing(socket.create_connection((behind.host, PORTS[proxy]), SOON_S)) as upload,
    ):
        upload.sendall(head.encode())
        for data in ("a", "b"):
            line = f'{{"data":"{data}"}}\n'
            upload.sendall(f"{len(line):x}\r\n{line}\r\n".encode())

            assert data == listener.until(data).data
        upload.sendall(b"0\r\n\r\n")

        assert upload.recv(4096).startswith(b"HTTP/1.1 200 ")


@each_proxy
def test_the_address_in_the_record_is_the_clients(proxy: str, behind: Service) -> None:
    session, client = secrets.token_hex(4), f"127.9.9.{1 + secrets.randbelow(250)}"
    with behind.listening(session, port=PORTS[proxy], source=client) as listener:
        httpx.delete(f"{behind.url}/v1/sessions/{session}").raise_for_status()
        ended = f"SUBSCRIBER_ID={listener.stream_id}", f"MESSAGE_ID={MESSAGE_IDS['stream ended']}"
        until(lambda: behind.journal(*ended))
    [record] = behind.journal(*ended)

    assert client == record["REMOTE_ADDR"]


@pytest.mark.parametrize("proxy", [NGINX, HAPROXY, CADDY])
def test_who_hangs_up_is_gone_at_once(proxy: str, behind: Service) -> None:
    session = secrets.token_hex(4)
    with behind.listening(session, port=PORTS[proxy]):
        until(lambda: behind.publish(session, "a")["subscribers"] == 1)
    until(lambda: behind.get(f"/v1/sessions/{session}").json()["subscribers"] == 0)


def test_who_hangs_up_on_apache_is_gone_after_the_next_events(behind: Service) -> None:
    session = secrets.token_hex(4)
    with behind.listening(session, port=PORTS[APACHE]):
        until(lambda: behind.publish(session, "a")["subscribers"] == 1)
    until(lambda: behind.publish(session, "b")["subscribers"] == 0)


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * RESTARTS)
async def test_restarts_close_no_stream_lose_no_event_and_fail_no_request(
    behind: Service, context: ssl.SSLContext
) -> None:
    silence = await unnoticed(
        behind,
        *[behind.restart] * RESTARTS,
        subscribers=SUBSCRIBERS,
        sessions=PUBLISHERS,
        doors=[
            Door(),
            *(Door(PORTS[name]) for name in (*PROXIES, LEAST)),
            *(Door(TLS_PORTS[name], context) for name in PROXIES),
        ],
        publisher_kind=KeptPublisher,
        events=EVENTS,
    )
    moved = behind.journal(f"MESSAGE_ID={MESSAGE_IDS['handover taken up']}")

    log.info("the longest silence in %d restarts was %.2f s", RESTARTS, silence)
    assert ["0"] * RESTARTS == [each["LOST_STREAMS"] for each in moved]
    assert all(int(each["STREAMS"]) >= SUBSCRIBERS for each in moved)
