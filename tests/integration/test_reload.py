"""SIGHUP: settings change under streams that go on; a bad file changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.certificate import Certificate
from tests.support.container import until
from tests.support.daemon import DEFAULTS, Daemon, StartDaemon, as_toml
from tests.support.talk import TEXT, connected, publish, target
from tests.support.tokens import SECRET, bearer, claims, jwt_mode, sign

JSON_LOG = {"log": {"format": "json"}}


def reload(daemon: Daemon, **sections: Mapping[str, object]) -> dict[str, Any]:
    """Give the daemon another configuration; return the record of what became of it."""
    wanted = {**JSON_LOG, **sections}
    tables = {name: {**DEFAULTS.get(name, {}), **keys} for name, keys in wanted.items()}
    return reload_text(daemon, as_toml({**DEFAULTS, **tables}))


def reload_text(daemon: Daemon, text: str) -> dict[str, Any]:
    """Give the daemon another file; return the record of what became of it."""
    before = len(reloads(daemon))
    (daemon.directory / "broadcasterd.toml").write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: len(reloads(daemon)) > before)
    return reloads(daemon)[-1]


def reloads(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the records about reloads."""
    records = [json.loads(line) for line in daemon.log().splitlines() if line.endswith("}")]
    return [r for r in records if r["event"] in {"configuration reloaded", "reload refused"}]


def get(daemon: Daemon, path: str) -> httpx.Response:
    """Make a request."""
    return httpx.get(f"{daemon.url}{path}")


def post_200_bytes(daemon: Daemon) -> int:
    """Try to publish an event of that size; return the status of the answer."""
    return httpx.post(daemon.session("s"), content="x" * 200, headers=TEXT).status_code


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    """Start a daemon whose records a test can read."""
    return start_daemon(**JSON_LOG)


async def test_limits_change_and_a_stream_goes_on(daemon: Daemon) -> None:
    async with connected(daemon) as client:
        stream = await client.follow(target("s"))
        publish(daemon, "s", *range(10))
        record = reload(
            daemon,
            sessions={"max_history_events": 3, "max_subscribers": 1},
            server={"max_body_bytes": 100},
        )
        publish(daemon, "s", "after")
        seen = await stream.data(11)

    assert ["server.max_body_bytes", "sessions.max_history_events", "sessions.max_subscribers"] == (
        record["changed"]
    )
    assert [*map(str, range(10)), "after"] == seen
    assert 3 == get(daemon, "/v1/sessions/s").json()["retained_events"]
    assert 413 == post_200_bytes(daemon)


async def test_the_cap_of_subscribers_holds_for_those_who_come(daemon: Daemon) -> None:
    async with connected(daemon) as client:
        await client.follow(target("s"))
        reload(daemon, sessions={"max_subscribers": 1})
        refused = get(daemon, target("s", "overload=status"))

    assert 503 == refused.status_code


def test_thresholds_change_and_the_breaker_can_be_switched_off(daemon: Daemon) -> None:
    reload(daemon, memory={"warning_mb": 123, "critical_mb": 456})
    memory = get(daemon, "/health").json()["memory"]

    assert (123, 456, "closed") == (memory["warning_mb"], memory["critical_mb"], memory["breaker"])

    reload(daemon, memory={"breaker": False})

    assert "off" == get(daemon, "/health").json()["memory"]["breaker"]


def test_origins_change(daemon: Daemon) -> None:
    def allowed() -> str | None:
        answer = httpx.get(f"{daemon.url}/health", headers={"Origin": "https://a.example"})
        found: str | None = answer.headers.get("Access-Control-Allow-Origin")
        return found

    assert allowed() is None

    reload(daemon, server={"cors_origins": ["https://a.example"]})

    assert "https://a.example" == allowed()

    reload(daemon)

    assert allowed() is None


def test_the_level_of_the_log_changes(daemon: Daemon) -> None:
    quiet: dict[str, Mapping[str, object]] = {
        "log": {"format": "json", "level": "error"},
        "server": {"max_body_bytes": 100},
    }
    (daemon.directory / "broadcasterd.toml").write_text(as_toml({**DEFAULTS, **quiet}))
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: post_200_bytes(daemon) == 413)

    assert [] == reloads(daemon), "it was no error"
    assert "reload refused" == reload_text(daemon, "[server]\nprot = 1\n")["event"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[server]\nprot = 1\n", "server.prot: unknown key (did you mean port?)"),
        ("not toml", "not valid TOML"),
        ('[auth]\nmode = "none"\n[server]\nhost = "0.0.0.0"\n', "expected a loopback address"),
    ],
    ids=["a key", "a text", "an exposure"],
)
def test_a_file_that_cannot_be_used_changes_nothing(text: str, why: str, daemon: Daemon) -> None:
    reload(daemon, server={"max_body_bytes": 100})
    record = reload_text(daemon, text)

    assert ("reload refused", "error") == (record["event"], record["level"])
    assert why in record["why"]
    assert 413 == post_200_bytes(daemon)


# --- keys ------------------------------------------------------------------------------------


def status(daemon: Daemon, secret: str) -> int:
    """Publish with a token that a secret signed; return the status of the answer."""
    token = sign(claims(publish=("s",)), secret)
    headers = {**bearer(token), **TEXT}
    return httpx.post(daemon.session("s"), content="x", headers=headers).status_code


def test_another_secret_is_in_force_and_the_one_before_is_for_its_time(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    auth = jwt_mode(tmp_path)
    daemon = start_daemon(auth=auth, **JSON_LOG)
    other = SECRET[::-1]

    assert [200, 401] == [status(daemon, SECRET), status(daemon, other)]

    (tmp_path / "secret").write_text(other)
    record = reload(daemon, auth=auth)

    assert [200, 200] == [status(daemon, SECRET), status(daemon, other)]
    new, old = record["keys"]
    assert f"secret {sha256(other.encode()).hexdigest()[:12]}" == new
    assert old.startswith(f"previous secret {sha256(SECRET.encode()).hexdigest()[:12]} until 2")

    record = reload(daemon, auth=auth | {"previous_secret_ttl": 0})

    assert [401, 200] == [status(daemon, SECRET), status(daemon, other)]
    assert [new] == record["keys"]


# --- the command -----------------------------------------------------------------------------


def test_who_asks_is_told_what_became_of_it(
    start_daemon: StartDaemon, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = {"RUNTIME_DIRECTORY": str(tmp_path_factory.mktemp("run"))}
    daemon = start_daemon(environment=directory, **JSON_LOG)
    file = daemon.directory / "broadcasterd.toml"
    good = file.read_text()
    command = [sys.executable, "-m", "broadcasterd", "reload"]
    credentials = tmp_path_factory.mktemp("credentials")
    (credentials / "secret").touch()
    os.utime(credentials / "secret", (0, 0))
    directory |= {"CREDENTIALS_DIRECTORY": str(credentials)}
    for text, told in [
        ("[server]\nprot = 1\n", "server.prot: unknown key"),
        (good, "systemd did not renew the credentials"),
    ]:
        file.write_text(text)
        done = subprocess.run(
            command, env=os.environ | directory, capture_output=True, text=True, check=False
        )

        assert (0 if text == good else 2) == done.returncode, done.stderr
        assert told in done.stderr
    assert ["reload refused", "configuration reloaded"] == [r["event"] for r in reloads(daemon)]


def test_without_a_place_for_its_socket_it_serves_all_the_same(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon(environment={"RUNTIME_DIRECTORY": f"{tmp_path}/none"}, **JSON_LOG)

    assert 200 == get(daemon, "/health").status_code
    until(lambda: "only SIGHUP can ask for a reload" in daemon.log())
    assert "configuration reloaded" == reload(daemon)["event"]


# --- certificates ----------------------------------------------------------------------------


def presented(daemon: Daemon) -> bytes:
    """Return the certificate that the daemon shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", daemon.port)) as raw,
        context.wrap_socket(raw) as tls,
    ):
        shown = tls.getpeercert(binary_form=True)

    assert shown is not None
    return shown


def test_a_certificate_is_replaced_and_a_bad_one_is_not_taken(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    used, renewed = tmp_path / "used", tmp_path / "renewed"
    used.mkdir()
    renewed.mkdir()
    first, second = Certificate.make(used), Certificate.make(renewed)
    files = {"tls_certificate": str(first.chain), "tls_key": str(first.key)}
    daemon = start_daemon(server=files, **JSON_LOG)
    before = presented(daemon)

    shutil.copy(second.chain, first.chain)  # the key does not go with it yet
    record = reload(daemon, server=files)

    assert "reload refused" == record["event"]
    assert str(first.chain) in record["why"]
    assert before == presented(daemon)

    shutil.copy(second.key, first.key)
    record = reload(daemon, server=files)

    assert "configuration reloaded" == record["event"]
    renewed_der = ssl.PEM_cert_to_DER_cert(second.chain.read_text())
    assert renewed_der == presented(daemon)
    assert record["certificate"].startswith(f"{sha256(renewed_der).hexdigest()[:12]} until 2")
