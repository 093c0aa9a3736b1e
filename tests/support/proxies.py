"""Real proxies in the container, before the daemon: run as docs/proxies.md says, each on a port.

What is changed of the files is the addresses (the network is the machine's, and others use it) and
how many files may be open (the machine may not allow as many).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.certificate import Certificate
from tests.support.documents import listings, listings_of
from tests.support.service import PORT, PROJECT, Service
from tests.support.tools import require

NGINX, HAPROXY, CADDY, APACHE, LEAST = "nginx", "HAProxy", "Caddy", "Apache", "nginx, the least"
PROXIES = (NGINX, HAPROXY, CADDY, APACHE)
PORTS = {NGINX: 8081, HAPROXY: 8082, CADDY: 8083, APACHE: 8084, LEAST: 8080}
TLS_PORTS = {NGINX: 8481, HAPROXY: 8482, CADDY: 8483, APACHE: 8484}
PROGRAMS = {NGINX: "nginx", HAPROXY: "haproxy", CADDY: "caddy", APACHE: "apache2"}
"""The program, its package and its unit have one name."""

SUB_PATH = "/broadcasterd"

PAGE = PROJECT / "docs/proxies.md"
CERTIFICATE, KEY = "/etc/ssl/broadcasterd.pem", "/etc/ssl/private/broadcasterd.key"
BOTH = "/etc/ssl/private/broadcasterd-both.pem"
"""The files that the page names."""

INSTALLED = "usr/share/doc/broadcasterd"
"""Where the commands of the page are run: the files that they name lie there as in a checkout."""


@contextmanager
def running(service: Service, certificate: Certificate) -> Iterator[None]:
    """Run all proxies before a service while inside, each with plain HTTP and with TLS."""
    for program in PROGRAMS.values():
        require(program)
    container, host = service.container, service.host
    for path, pieces in {
        CERTIFICATE: [certificate.chain],
        KEY: [certificate.key],
        BOTH: [certificate.chain, certificate.key],
    }.items():
        container.write(path, "".join(piece.read_text() for piece in pieces))
    container.run("chmod", "755", "/etc/ssl/private")  # Caddy is nobody special
    for name, text in _files(host).items():
        changed = _changed(text, ("127.0.0.1:8000", f"{host}:{PORT}"))
        container.write(f"/{INSTALLED}/config/proxies/{name}", changed)
    ports = [f"Listen {host}:{each[APACHE]}\n" for each in (PORTS, TLS_PORTS)]
    container.write("/etc/apache2/ports.conf", "".join(ports))
    container.run("a2enmod", "ssl", "http2")
    try:
        for name in PROXIES:
            [commands] = listings_of(PAGE, "sh", name)
            container.run("sh", "-ec", f"cd /{INSTALLED}\n{commands}")
        yield
    finally:
        for command in (["kill", "--signal=KILL"], ["stop"]):  # some wait for streams to end
            container.run("systemctl", *command, *PROGRAMS.values(), check=False)


def _files(host: str) -> dict[str, str]:
    """Return the proxies' files, which have all that the page has, at addresses of the test's."""
    [least] = listings_of(PAGE, "nginx", NGINX)
    in_tls = [listing.text for listing in listings(PAGE) if listing.heading == "TLS"]
    tls = dict(zip(PROXIES, in_tls, strict=True))
    for name, (old, new) in {
        NGINX: ("listen 443", f"listen {host}:{TLS_PORTS[NGINX]}"),
        HAPROXY: ("bind :443", f"bind {host}:{TLS_PORTS[HAPROXY]}"),
        CADDY: (":443 {", f"https://:{TLS_PORTS[CADDY]} {{\nbind {host}"),
        APACHE: ("<VirtualHost *:443>", f"<VirtualHost {host}:{TLS_PORTS[APACHE]}>"),
    }.items():
        tls[name] = _changed(tls[name], (old, new))
    least = _changed(least, ("8080", f"{host}:{PORTS[LEAST]}"))
    http = "http {\n"
    return {
        "nginx.conf": _changed(
            _file("nginx.conf"),
            ("listen 80;", f"listen {host}:{PORTS[NGINX]};\n{tls[NGINX]}"),
            (http, f"{http}access_log off;\n{least}"),
            ("worker_rlimit_nofile 40000;", "worker_rlimit_nofile 2000;"),
        ),
        "haproxy.cfg": _changed(
            _file("haproxy.cfg"),
            ("bind :80", f"bind {host}:{PORTS[HAPROXY]}\n{tls[HAPROXY]}"),
            ("maxconn 20000", "maxconn 1000"),
        ),
        "Caddyfile": _changed(
            _twice("Caddyfile", ":80 {", f"http://:{PORTS[CADDY]} {{\nbind {host}", tls[CADDY]),
            # It is administered at a port of the whole machine otherwise.
            ("(broadcasterd) {", "{\nadmin off\nauto_https disable_redirects\n}\n(broadcasterd) {"),
        ),
        "apache.conf": _twice(
            "apache.conf",
            "<VirtualHost *:80>",
            f"<VirtualHost {host}:{PORTS[APACHE]}>",
            tls[APACHE],
        ),
    }


def _file(name: str) -> str:
    return (PROJECT / "config/proxies" / name).read_text()


def _twice(name: str, head: str, *heads: str) -> str:
    """Return a file whose last section is there several times, with these heads."""
    before, found, section = _file(name).partition(f"\n{head}\n")
    assert found, f"{head!r} is to be changed, and not there"
    return before + "".join(f"\n{each.rstrip()}\n{section}" for each in heads)


def _changed(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text, f"{old!r} is to be changed, and not there"
        text = text.replace(old, new)
    return text
