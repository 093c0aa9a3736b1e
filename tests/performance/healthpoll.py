"""The health poller: how long GET /health (or another path) takes while the server is busy.

A process of its own, so that a busy load generator doesn't delay it. It asks in turn on a new
connection and on one kept alive, every INTERVAL_S, until its stdin ends; then it writes one JSON
object: per kind of connection the count and the latency percentiles in ms.
Blocking sockets: one request at a time, as a monitor asks.
"""

import json
import select
import socket
import sys
import time

from tests.performance.loadgen_subscriber import percentile

INTERVAL_S = 0.02
TIMEOUT_S = 30.0


def ask(sock: socket.socket, path: str) -> None:
    """Ask once on an open connection and read the answer; raise OSError when it isn't a 200."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError(f"the server hung up after {answer!r}")
        answer += data
        head, end, body = answer.partition(b"\r\n\r\n")
        if not end:
            continue
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(repr(answer))
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) >= int(fields[b"content-length"]):
            return


def summary(latencies_ms: list[float]) -> dict[str, float]:
    """Sum up one kind of connection (ms)."""
    ordered = sorted(latencies_ms)
    return {
        "polls": len(ordered),
        "p50_ms": percentile(ordered, 50),
        "p99_ms": percentile(ordered, 99),
        "max_ms": ordered[-1] if ordered else 0.0,
    }


def main() -> None:
    """Poll until stdin ends."""
    address, path = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
    new_ms: list[float] = []
    kept_ms: list[float] = []
    kept = socket.create_connection(address, timeout=TIMEOUT_S)
    ask(kept, path)
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    while not select.select([sys.stdin], [], [], INTERVAL_S)[0]:
        started = time.monotonic()
        with socket.create_connection(address, timeout=TIMEOUT_S) as sock:
            ask(sock, path)
        between = time.monotonic()
        try:
            ask(kept, path)
        except OSError:  # whoever is short of memory may close it while it is idle
            kept = socket.create_connection(address, timeout=TIMEOUT_S)
            ask(kept, path)
        new_ms.append((between - started) * 1e3)
        kept_ms.append((time.monotonic() - between) * 1e3)
    sys.stdout.write(json.dumps({"new": summary(new_ms), "kept": summary(kept_ms)}) + "\n")


if __name__ == "__main__":
    main()
