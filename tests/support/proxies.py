"""Real proxies in the container, before the daemon: run as docs/proxies.md says, each on a port.

What is changed of the files is the addresses (the network is the machine's, and others use it) and
how many files may be open (the machine may not allow as many).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent

from tests.support.service import PORT, PROJECT, Service
from tests.support.tools import require

NGINX, HAPROXY, CADDY, APACHE, LEAST = "nginx", "HAProxy", "Caddy", "Apache", "nginx, the least"
PROXIES = (NGINX, HAPROXY, CADDY, APACHE)
PORTS = {NGINX: 8081, HAPROXY: 8082, CADDY: 8083, APACHE: 8084, LEAST: 8080}
PROGRAMS = {NGINX: "nginx", HAPROXY: "haproxy", CADDY: "caddy", APACHE: "apache2"}
"""The program, its package and its unit have one name."""

SUB_PATH = "/broadcasterd"

PAGE = PROJECT / "docs/proxies.md"
INSTALLED = "usr/share/doc/broadcasterd"
"""Where the commands of the page are run: the files that they name lie there as in a checkout."""


def blocks(heading: str) -> list[str]:
    """Return the listings of a section of the page."""
    _, section = PAGE.read_text().split(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    return [*map(dedent, found)]


@contextmanager
def running(service: Service) -> Iterator[None]:
    """Run all proxies before a service while inside."""
    for program in PROGRAMS.values():
        require(program)
    container, host = service.container, service.host
    daemon = ("127.0.0.1:8000", f"{host}:{PORT}")
    listings = {name: blocks(name) for name in PROXIES}
    [_, least] = listings[NGINX]
    least = _changed(least, ("8080", f"{host}:{PORTS[LEAST]}"), daemon)
    http = "http {\n"
    files = {
        "nginx.conf": [
            ("listen 80;", f"listen {host}:{PORTS[NGINX]};"),
            (http, f"{http}access_log off;\n{least}"),
            ("worker_rlimit_nofile 40000;", "worker_rlimit_nofile 2000;"),
        ],
        "haproxy.cfg": [
            ("bind :80", f"bind {host}:{PORTS[HAPROXY]}"),
            ("maxconn 20000", "maxconn 1000"),
        ],
        "Caddyfile": [
            ("\n:80 {", f"\nhttp://:{PORTS[CADDY]} {{\nbind {host}\n"),
            # It is administered at a port of the whole machine otherwise.
            ("(broadcasterd) {", "{\nadmin off\n}\n(broadcasterd) {"),
        ],
        "apache.conf": [("<VirtualHost *:80>", f"<VirtualHost {host}:{PORTS[APACHE]}>")],
    }
    for name, changes in files.items():
        text = (PROJECT / "config/proxies" / name).read_text()
        container.write(f"/{INSTALLED}/config/proxies/{name}", _changed(text, daemon, *changes))
    container.write("/etc/apache2/ports.conf", f"Listen {host}:{PORTS[APACHE]}\n")
    try:
        for name in PROXIES:
            container.run("sh", "-ec", f"cd /{INSTALLED}\n{listings[name][0]}")
        yield
    finally:
        for command in (["kill", "--signal=KILL"], ["stop"]):  # some wait for streams to end
            container.run("systemctl", *command, *PROGRAMS.values(), check=False)


def _changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, f"{old!r} is to be changed, and not there"
        text = text.replace(old, new)
    return text
