"""broadcasterd as systemd runs it in a container: installed by ``make install``, with its units."""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.container import SOON_S, Container, until
from tests.support.daemon import as_toml
from tests.support.lines import Lines
from tests.support.sse import Event, parse

PROJECT = Path(__file__).parents[2]
PORT = 8000
QUICK_S = 0.2
"""How often the supervisor looks, where a test waits for it."""

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "auth": {"mode": "none"},
    "memory": {"sample_interval": QUICK_S},
}


def make(*arguments: str, directory: Path = PROJECT) -> str:
    """Run make as an operator does: nothing of this test's own make or environment is inherited.

    Returns its output.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    environment.pop("VIRTUAL_ENV", None)
    done = subprocess.run(
        ["make", "--directory", directory, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Service:
    """The service in a container, and the socket that is its door.

    Args:
        container: has the units installed.
        name: of the units; the template's instances have an ``@`` in it.

    """

    def __init__(self, container: Container, name: str = "broadcasterd") -> None:
        self.container = container
        self.name = name
        self.unit = f"{name}.service"
        self.socket = f"{name}.socket"
        # The network is the machine's. An address that nobody else uses needs no free port.
        self.host = "127." + ".".join(str(1 + secrets.randbelow(253)) for _ in range(3))
        self._began_at = 0.0
        self._serves: tuple[str, Mapping[str, Mapping[str, object]]] | None = None

    @property
    def url(self) -> str:
        """The root of its HTTP interface, without a slash at the end."""
        return f"http://{self.host}:{PORT}"

    @contextmanager
    def installed(self) -> Iterator[Service]:
        """Give it a configuration and an address of its own; stop and forget it afterwards."""
        self.begin_anew()
        try:
            yield self
        finally:
            self._stop()
            for unit in (self.socket, self.unit):
                self._drop_in_of(unit).unlink(missing_ok=True)
                # which systemd sees when the next one is installed

    def begin_anew(self) -> None:
        """Have it be as it is after an installation: stopped, with nothing but its address set."""
        self._stop()
        listen = f"[Socket]\nListenStream=\nListenStream={self.host}:{PORT}\n"
        settings, address = self._drop_in_of(self.unit), self._drop_in_of(self.socket)
        known = address.exists() and address.read_text() == listen and not settings.exists()
        settings.unlink(missing_ok=True)
        if not known:
            self.drop_in(self.socket, listen)
        self.configure()
        state = self.container.root / "var/lib/private"
        kept = state / self.unit.removesuffix(".service").replace("@", "-")
        for file in kept.glob("events.sqlite*"):
            file.unlink()  # it is to find no session of the one before
        self._began_at = time.time()

    def serve(self, settings: str = "", **sections: Mapping[str, object]) -> None:
        """Have it run, so set: where it does already, it goes on, with the sessions that it has."""
        if self._serves == (settings, sections) and self._state() == ("active", "0"):
            until(lambda: not self.get("/health").json()["subscribers"])
            self._began_at = time.time()
        else:
            self.begin_anew()
            self.configure(**sections)
            self.start(settings)
            self._serves = settings, sections

    def _state(self) -> tuple[str, ...]:
        """Return whether it is active, and how often systemd has started it by itself."""
        return tuple(self.show(name) for name in ("ActiveState", "NRestarts"))

    def _stop(self) -> None:
        self.container.run("systemctl", "stop", self.socket, self.unit, check=False)
        self.container.run("systemctl", "reset-failed", check=False)

    def _drop_in_of(self, unit: str) -> Path:
        return self.container.root / f"run/systemd/system/{unit}.d/test.conf"

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Write the configuration: these keys on top of ``DEFAULTS``."""
        names = {*DEFAULTS, *sections}
        tables = {name: {**DEFAULTS.get(name, {}), **sections.get(name, {})} for name in names}
        self.write_configuration(as_toml(tables))

    def write_configuration(self, text: str) -> None:
        """Write the configuration as it is."""
        self._serves = None
        name = self.name.rpartition("@")[2]
        self.container.write(f"/etc/broadcasterd/{name}.toml", text)

    def drop_in(self, unit: str, text: str) -> None:
        """Override settings of a unit."""
        self._serves = None
        self.container.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.container.run("systemctl", "daemon-reload")

    def start(self, settings: str = "") -> None:
        """Start it, with these settings of ``[Service]``; it is ready then."""
        if settings:
            self.drop_in(self.unit, f"[Service]\n{settings}")
        self.container.run("systemctl", "start", self.unit)

    def restart(self) -> None:
        """Restart it; it is ready then."""
        self.container.run("systemctl", "restart", self.unit)

    def show(self, property_name: str) -> str:
        """Return a property of its unit."""
        return self.container.show(self.unit, property_name)

    @property
    def pid(self) -> int:
        """The daemon's process id inside the container."""
        return int(self.show("MainPID"))

    @property
    def proc(self) -> Path:
        """The directory of the daemon's process in /proc."""
        return Path(f"/proc/{self.container.pid_here(self.pid)}")

    def kill(self, signal: str) -> None:
        """Send the daemon a signal."""
        self._serves = None
        self.container.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", self.unit)

    def until_restarted(self, pid: int, *, within: float = SOON_S) -> None:
        """Wait until another process than this one is ready."""
        until(
            lambda: self.pid not in {0, pid} and self.show("SubState") == "running", within=within
        )

    def until_status(self, text: str) -> None:
        """Wait until the status line has this in it."""
        until(lambda: text in self.show("StatusText"))

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the records about the unit since the test began."""
        since = f"--since=@{self._began_at:.6f}"
        return self.container.journal(since, f"--unit={self.unit}", *matches)

    def messages(self, *matches: str) -> list[str]:
        """Return the text of those records."""
        return [str(record["MESSAGE"]) for record in self.journal(*matches)]

    def get(self, path: str) -> httpx.Response:
        """Make a request."""
        return httpx.get(f"{self.url}{path}", timeout=SOON_S)

    def post(self, session: str, *data: object) -> httpx.Response:
        """Try to publish events with this data, in one request."""
        url = f"{self.url}/v1/sessions/{session}/events"
        return httpx.post(url, json=[{"data": item} for item in data], timeout=SOON_S)

    def publish(self, session: str, *data: object) -> dict[str, Any]:
        """Publish events with this data; return the receipt."""
        answer = self.post(session, *data)

        assert answer.status_code == 200, answer.text
        receipt: dict[str, Any] = answer.json()
        return receipt

    def page(self, session: str, *, last_event_id: str) -> dict[str, Any]:
        """Return the page after an event, as a client that comes back gets it."""
        answer = httpx.get(
            f"{self.url}/v1/sessions/{session}/events",
            params={"last_event_id": last_event_id},
            headers={"Accept": "application/json"},
            timeout=SOON_S,
        )
        page: dict[str, Any] = answer.json()
        return page

    def listening(
        self,
        session: str,
        *,
        port: int = PORT,
        below: str = "",
        source: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> Listener:
        """Subscribe; leaving the context hangs up.

        Args:
            session: to listen to.
            port: the daemon's, or that of a proxy.
            below: the path that the daemon is below.
            source: the address that the connection comes from.
            tls: secures the connection.

        """
        return Listener(self._subscribe(session, port=port, below=below, source=source, tls=tls))

    @contextmanager
    def stalled(self, session: str) -> Iterator[None]:
        """Have a subscriber that reads nothing, though there is more for it than buffers take."""
        with self._subscribe(session, receive_buffer=4096):
            until(lambda: self.get("/health").json()["subscribers"])
            self.publish(session, *["x" * 90_000] * 10)
            yield

    def _subscribe(
        self,
        session: str,
        *,
        port: int = PORT,
        below: str = "",
        source: str = "",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> socket.socket:
        with ExitStack() as unless_it_is_open:
            connection = unless_it_is_open.enter_context(socket.socket())
            connection.bind((source, 0))
            if receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            connection.connect((self.host, port))
            if tls is not None:
                connection = unless_it_is_open.enter_context(tls.wrap_socket(connection))
            head = f"GET {below}/v1/sessions/{session}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
            connection.sendall(head.encode())
            unless_it_is_open.pop_all()
        return connection


class Listener:
    """A subscription, whose stream a thread reads.

    The framing of HTTP/1.1 (the head, and the sizes of chunks) is left in: a parser of event
    streams takes it for fields that it does not know.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = Lines(connection.makefile(encoding="utf-8"))
        self._heard: list[str] = []
        self.stream_id = self._until_line(": stream ").removeprefix(": stream ")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._socket.close()

    @property
    def events(self) -> list[Event]:
        """The events so far."""
        return list(parse(self._heard))

    def until(self, data: str) -> Event:
        """Wait for an event with this data."""
        deadline = time.monotonic() + SOON_S
        while True:
            assert time.monotonic() < deadline, f"not within {SOON_S} s; it said {self._heard}"
            found = [event for event in self.events if event.data == data]
            if found:
                return found[-1]
            self._hear()

    def until_end(self) -> dict[str, Any]:
        """Wait for the end of the stream; return the reason that was given."""
        while self._hear():
            pass
        [end] = [event for event in self.events if event.type == "broadcaster.end"]
        reason: dict[str, Any] = json.loads(end.data)
        return reason

    def is_over(self) -> bool:
        """Wait for the end of the stream, however it comes."""
        while self._hear():
            pass
        return True

    def _until_line(self, start: str) -> str:
        while not self._heard or not self._heard[-1].startswith(start):
            assert self._hear(), f"the stream ended; it said {self._heard}"
        return self._heard[-1]

    def _hear(self) -> bool:
        line = self._lines.next(within=SOON_S)
        if line is not None:
            self._heard.append(line)
        return line is not None
