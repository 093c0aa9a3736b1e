"""Publishes over many connections at once: by wrk where it is there, else by our own generator."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.performance.cores import LOAD_CORE, on_core
from tests.performance.processes import LOOPBACK, Broken, Load

CONNECTIONS = 16
WARM_UP_S = 0.3
WRK_TIMEOUT_S = 10  # for one answer; wrk's own default of 2 s is short on a busy machine

# What request() returns is sent as it is; one thread, so that the turns are those of all.
WRK_SCRIPT = """
local requests = {{ {requests} }}
local turn = 0
request = function()
    turn = turn % #requests + 1
    return requests[turn]
end
done = function(summary)
    local errors = summary.errors
    io.stderr:write(string.format(
        '{{"requests": %d, "seconds": %f, "failures": %d}}\\n', summary.requests,
        summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class Listening(Protocol):
    """Somebody who listens on the loopback address."""

    port: int


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of it."""

    requests: int
    seconds: float
    failures: int


def request(session: str, body: str, kind: str, *, token: str = "", fresh: bool = False) -> str:
    """Return one POST as it goes over the wire.

    Args:
        session: to publish to.
        body: ASCII.
        kind: of the body.
        token: is sent with it, unless it is empty.
        fresh: whether the connection is closed after the answer.

    """
    head = [
        f"POST /v1/sessions/{session}/events HTTP/1.1",
        f"Host: {LOOPBACK}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
    ]
    if token:
        head.append(f"Authorization: Bearer {token}")
    if fresh:
        head.append("Connection: close")
    return "\r\n".join([*head, "", body])


def post(
    server: Listening, requests: list[str], directory: Path, *, seconds: float, fresh: bool = False
) -> Posted:
    """Post the requests in turn, over and over, for so long.

    Args:
        server: gets them.
        requests: as :func:`request` makes them.
        directory: for a file.
        seconds: for so long.
        fresh: whether each goes over a connection of its own.

    """
    wrk = find_wrk()
    if wrk is None:
        return _post_without_wrk(server, requests, seconds=seconds, fresh=fresh)
    script = directory / "requests.lua"
    # JSON's escapes of ASCII without control characters, but for line breaks, are Lua's.
    script.write_text(WRK_SCRIPT.format(requests=",".join(map(json.dumps, requests))))
    command = [wrk, "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{seconds:.0f}s", "--timeout", f"{WRK_TIMEOUT_S}s"]
    command += ["--script", str(script), f"http://{LOOPBACK}:{server.port}/"]
    with on_core(LOAD_CORE):
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    if ended.returncode != 0:
        raise Broken(f"wrk: {ended.stdout}{ended.stderr}")
    seen = json.loads(ended.stderr.splitlines()[-1])
    return Posted(**seen)


def warm_up(server: Listening, requests: list[str], *, fresh: bool = False) -> Posted:
    """Post for a moment, so that imports, caches and what a first request does are not counted.

    wrk counts in whole seconds.
    """
    return _post_without_wrk(server, requests, seconds=WARM_UP_S, fresh=fresh)


def find_wrk() -> str | None:
    """Return the path of wrk, where it is installed."""
    return shutil.which("wrk")


def generator() -> str:
    """Return the name of what posts."""
    return "wrk" if find_wrk() else "tests/performance/loadgen_poster.py"


def _post_without_wrk(
    server: Listening, requests: list[str], *, seconds: float, fresh: bool
) -> Posted:
    with on_core(LOAD_CORE):
        load = Load(server.port)
    with load:
        seen = load.do(
            "post", requests=requests, connections=CONNECTIONS, seconds=seconds, fresh=fresh
        )
    return Posted(**seen)
