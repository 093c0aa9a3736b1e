"""Put a bounded load on staging, as `make load-test-staging` does, and judge what comes of it.

The exit status is 1 when an event was lost, doubled, altered or out of order, when /health was not
answered with 200 all the time, or when the slowest hundredth of its answers took too long.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from deployment.http import Client
from deployment.instance import INSTANCES
from deployment.releases import DeploymentError, Releases
from tests.performance.processes import Broken, HealthPoller, Load

EVENT_BYTES = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Put on the load, and print the figures; answer the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", type=Path, default=Path("/usr"), help="where it is installed")
    parser.add_argument("--url", help="another machine's; the token is $BROADCASTERD_TOKEN then")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20, help="events a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--health-ms", type=float, default=100, help="bound of /health's p99")
    arguments = parser.parse_args(argv)
    try:
        client = staging(arguments.prefix, arguments.url)
        events = round(arguments.rate * arguments.seconds)
        health_ms = measure(client, arguments.subscribers, events, arguments.rate)
    except (Broken, DeploymentError, OSError) as error:
        print(f"FAILED: {error}")
        return 1
    if health_ms > arguments.health_ms:
        print(f"FAILED: /health took {health_ms:.1f} ms, more than {arguments.health_ms:.0f} ms")
        return 1
    return 0


def staging(prefix: Path, url: str | None) -> Client:
    """Return a client that may use the sessions of a load test."""
    if url is not None:
        return Client(url, os.environ.get("BROADCASTERD_TOKEN"))
    instance, releases = INSTANCES["staging"], Releases(prefix)
    version = releases.in_use(instance.link)
    if version is None:
        raise DeploymentError("staging is not installed here: say URL=")
    return Client(instance.url(), instance.token(releases.path(version), "load-*"))


def measure(client: Client, subscribers: int, events: int, rate: float) -> float:
    """Print the figures; answer the slowest hundredth of /health's latencies in ms."""
    url = urlsplit(client.url)
    if url.scheme != "http" or url.hostname is None:
        raise Broken(f"{client.url}: the load generator speaks plain HTTP only")
    host, port = url.hostname, url.port or 80
    if client.token is not None:
        os.environ["BROADCASTERD_TOKEN"] = client.token  # to the load generator, and not by `ps`
    session = f"load-{secrets.token_hex(6)}"
    with Load(port, host) as load, HealthPoller(port, host) as poller:
        try:
            opened = load.do("open", session=session, count=subscribers)
            seen = load.do("publish", session=session, events=events, size=EVENT_BYTES, rate=rate)
            health = client.ask("GET", "/health").document
            load.do("close")
        finally:
            client.ask("DELETE", f"/v1/sessions/{session}")
        polled = poller.finish()
    say = "{p50_ms:.1f} ms p50, {p99_ms:.1f} ms p99, {max_ms:.1f} ms at most".format_map
    print(f"{client.url}, version {health['version']}")
    print(f"{subscribers} subscribers in {opened['seconds']:.1f} s")
    print(
        f"{events} events, {rate:g}/s: {seen['deliveries']} deliveries in {seen['seconds']:.1f} s"
    )
    print(f"delivery: {say(seen)}")
    for connection, figures in polled.items():
        print(f"/health, {connection} connection: {say(figures)}")
    print(f"event loop: {health['loop']['max_lag_ms']:.1f} ms late at most")
    print(f"memory: {health['memory']['rss_mb']:.1f} MB, breaker {health['memory']['breaker']}")
    if seen["errors"]:
        raise Broken("; ".join(seen["errors"]))
    return max(figures["p99_ms"] for figures in polled.values())


if __name__ == "__main__":
    sys.exit(main())
