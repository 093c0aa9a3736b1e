"""The servers that the benchmark compares, each with the same paths and as much of a log."""

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.performance.cores import LOAD_CORE, SERVER_CORE, on_core
from tests.performance.processes import LOOPBACK, ROOT, Load
from tests.performance.server_process import Server, free_port
from tests.support.daemon import as_toml
from tests.support.redis import Redis
from tests.support.tokens import jwt_mode

BENCH = ROOT / ".venv-bench" / ".installed"  # there once all is
BENCH_PYTHON = BENCH.parent / "bin" / "python"
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

ANSWER_S = 60.0
"""How long one command of the load may take: a slow server must not use up the others' time."""

# No limit shall be met but those of the machine; the rest are the defaults.
UNLIMITED: Mapping[str, Mapping[str, object]] = {
    "limits": {
        "publish_rate": 1e9,
        "publish_burst": 1_000_000_000,
        "publish_rate_bytes": 1e12,
        "publish_burst_bytes": 1_000_000_000_000,
        "max_requests_per_connection": 1_000_000_000,
        "max_sessions_per_subject": 100_000,
    },
    "sessions": {"max_sessions": 100_000},
    "memory": {"warning_mb": 4000, "critical_mb": 6000},
    "log": {"format": "console", "level": "warning"},
}

# As many events as the daemon retains, for as long; heartbeats as often.
NGINX = """
load_module {module};
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 19000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    client_max_body_size 16m;
    client_body_buffer_size 1m;
    keepalive_requests 1000000000;
    nchan_shared_memory_size 512m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /health {{ return 200 "healthy"; }}
        location ~ ^/v1/sessions/([^/]+)/events$ {{
            nchan_pubsub;
            nchan_channel_id $1;
            nchan_message_buffer_length 500;
            nchan_message_timeout 10m;
            nchan_eventsource_ping_interval 15;
            nchan_eventsource_ping_event "";
            nchan_eventsource_ping_data "";
            nchan_eventsource_ping_comment "ping";
        }}
    }}
}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One of the servers.

    Attributes:
        label: its column.
        command: what starts it, given a directory for its files and a port.
        missing: why it cannot be had on this machine; empty if it can.
        environment: variables on top of ours.
        body: of a POST: "json", or "text" where that is the event's text.
        with_tokens: the same, but asking for tokens, where it can.
        takes_many: whether one POST may have several events.
        is_ours: whether it is this daemon, of whatever revision and engine.
        counts: whether it is that of this checkout, whose counting can be measured alone.
        only: the scenarios that it is in, if not in all.
        beside: what runs beside it, given the directory.

    """

    label: str
    command: Callable[[Path, int], list[str]]
    missing: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    body: str = "json"
    with_tokens: "Kind | None" = None
    takes_many: bool = True
    is_ours: bool = False
    counts: bool = False
    only: frozenset[str] | None = None
    beside: Callable[[Path], AbstractContextManager[object]] = nullcontext

    @contextmanager
    def serving(self, directory: Path) -> Iterator[Server]:
        """Run it on the core of the servers."""
        port = free_port()
        command = self.command(directory, port)
        with self.beside(directory):
            with on_core(SERVER_CORE):
                server = Server(self.label, command, port, self.environment)
            with server:
                yield server

    @contextmanager
    def loading(self, server: Server) -> Iterator[Load]:
        """Run a load generator on the core of the load."""
        with on_core(LOAD_CORE):
            load = Load(server.port, body=self.body, answer_s=ANSWER_S)
        with load:
            yield load


def compared(directory: Path, against: str | None) -> dict[str, Kind]:
    """Return the servers by name, in the order in which they take their turns.

    Args:
        directory: for what has to be made first.
        against: another revision of this repository, or a directory with one.

    """
    kinds = {"broadcasterd": daemon("broadcasterd", ROOT)}
    if against is not None:
        path = Path(against)
        if not path.is_dir():
            path = checkout(against, directory / "against")
        kinds["against"] = daemon(f"broadcasterd, {Path(against).name}", path)
    for durability in ("commit", "relaxed"):
        engine = {"kind": "sqlite", "durability": durability}
        label = f"broadcasterd, SQLite, {durability}"
        kinds[f"sqlite-{durability}"] = daemon(label, ROOT, engine=engine)
    kinds["redis"] = daemon("broadcasterd, Redis", ROOT, engine={"kind": "redis"})
    kinds["nchan"] = nchan()
    kinds["sse-starlette"] = sse_starlette()
    kinds["bare"] = bare(directory)
    return kinds


def daemon(
    label: str,
    checkout_of_it: Path,
    *,
    tokens: bool = False,
    engine: Mapping[str, object] | None = None,
) -> Kind:
    """Return a broadcasterd, which runs in our environment whatever the checkout.

    Args:
        label: its column.
        checkout_of_it: where daemon/ is.
        tokens: whether it asks for tokens, signed as tests/support/tokens.py does.
        engine: settings of another engine than the default one, to publish with.

    """

    def command(directory: Path, port: int) -> list[str]:
        config = directory / "broadcasterd.toml"
        sections = {
            **_known(UNLIMITED, checkout_of_it),
            "server": {"host": LOOPBACK, "port": port},
            "auth": jwt_mode(directory) if tokens else {"mode": "none"},
        }
        if engine is not None:
            sections["engine"] = {**engine, **_place_of(engine, directory)}
        config.write_text(as_toml(sections))
        return [sys.executable, "-m", "broadcasterd", "serve", "--config", str(config)]

    is_redis = engine is not None and engine["kind"] == "redis"
    return Kind(
        label=label,
        command=command,
        environment={"PYTHONPATH": str(checkout_of_it.resolve() / "daemon")},
        with_tokens=None if tokens or engine else daemon(label, checkout_of_it, tokens=True),
        is_ours=True,
        counts=checkout_of_it == ROOT and not engine,
        only=frozenset({"publish"}) if engine else None,
        missing="" if not is_redis or shutil.which("redis-server") else "it needs redis-server",
        beside=_redis if is_redis else nullcontext,
    )


def _place_of(engine: Mapping[str, object], directory: Path) -> dict[str, object]:
    """Return where an engine keeps events."""
    if engine["kind"] == "redis":
        return {"url": Redis(directory).url}
    return {"path": str(directory / "events.sqlite")}


@contextmanager
def _redis(directory: Path) -> Iterator[None]:
    """Run a redis-server on the core of the load: its CPU time is no part of the daemon's."""
    server = Redis(directory)
    with on_core(LOAD_CORE):
        server.start()
    try:
        yield
    finally:
        server.kill()


def _known(
    sections: Mapping[str, Mapping[str, object]], checkout_of_it: Path
) -> dict[str, dict[str, object]]:
    """Return the settings that a revision has: an older one refuses those that came later."""
    package = checkout_of_it / "daemon/broadcasterd"
    files = [package / "config/sections.py", package / "config.py"]  # as it is, and as it was
    settings = next(file for file in files if file.exists()).read_text("utf-8")
    return {
        section: {key: value for key, value in keys.items() if f"    {key}: " in settings}
        for section, keys in sections.items()
    }


def checkout(revision: str, directory: Path) -> Path:
    """Put the daemon of a revision of this repository into the directory."""
    packed = subprocess.run(
        ["git", "archive", revision, "daemon"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def nchan() -> Kind:
    """Return Debian's nginx with Debian's Nchan, one worker."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def command(directory: Path, port: int) -> list[str]:
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(module=NCHAN, directory=directory, port=port))
        return [str(nginx), "-p", str(directory), "-e", "stderr", "-c", str(config)]

    return Kind(
        label="Nchan",
        command=command,
        missing=""
        if nginx and NCHAN.exists()
        else "Debian's nginx or libnginx-mod-nchan is missing",
        body="text",
        takes_many=False,
    )


def sse_starlette() -> Kind:
    """Return a server of sse-starlette, in an environment of its own."""
    program = Path(__file__).with_name("starlette_server.py")
    return Kind(
        label="sse-starlette",
        command=lambda _, port: [str(BENCH_PYTHON), str(program), str(port)],
        missing="" if BENCH.exists() else "its environment, .venv-bench, is missing",
    )


def bare(directory: Path) -> Kind:
    """Return the floor, compiled."""
    compiler, program = shutil.which("cc"), directory / "bare_server"
    missing = "" if compiler else "there is no C compiler"
    if compiler:
        source = Path(__file__).with_name("bare_server.c")
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
    return Kind(
        label="bare C loop",
        command=lambda _, port: [str(program), str(port)],
        missing=missing,
        body="text",
        takes_many=False,
    )
