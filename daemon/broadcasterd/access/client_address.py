"""The client of a request: the peer, or a client for whom a trusted proxy speaks.

A proxy adds the address of its caller to the right of ``Forwarded`` (RFC 7239) or
``X-Forwarded-For``. Everything to the left of a trusted proxy's entry is a stranger's claim. So the
list is walked from right to left, and an entry is believed only if the one before it (at first the
peer) is a trusted proxy. An unreadable entry ends the walk, and the request counts as that of the
proxy that passed it on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]

MAX_HOPS = 16
"""Trusted proxies in a row. A longer chain is somebody's attempt to keep us busy."""

MAX_ENTRY_CHARS = 512
"""Characters of one ``Forwarded`` element: ``for``, ``by``, ``host`` and ``proto`` take fewer."""

CLIENT_PREFIX_BITS = 64
"""A site gets at least a /64 of IPv6 (RFC 6177), and a host makes up addresses in it as it likes
(RFC 8981): a limit on single addresses would be none."""

_PAIR = re.compile(
    r"""\s* (?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+) = (?: "(?P<quoted>(?:[^"\\]|\\.)*)"
        | (?P<token>[^\s;,"]*) ) \s* (?:;|$)""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")
_PORT = re.compile(r"(?::[0-9]{1,5})?")


def parse_networks(texts: Iterable[str]) -> Networks:
    """Return networks and single addresses as networks.

    Raises:
        ValueError: a text is neither.

    """
    return tuple(ip_network(text) for text in texts)


def is_trusted(address: str, trusted: Networks) -> bool:
    """Whether an address is that of a trusted proxy."""
    return bool(trusted) and (found := _parse(address)) is not None and _within(found, trusted)


def client_address(peer: str, headers: Mapping[str, str], trusted: Networks) -> str:
    """Return the address of the client: ``peer``, unless a trusted proxy names another.

    Args:
        peer: the other end of the connection.
        headers: the header fields by lower-case name; a repeated one has all values, by comma.
        trusted: the networks of trusted proxies.

    """
    if not trusted and not peer.startswith("::ffff:"):  # the usual case costs nothing
        return peer
    address = _parse(peer)
    if address is None:
        return peer
    if not _within(address, trusted):
        return str(address)
    forwarded, x_forwarded_for = headers.get("forwarded"), headers.get("x-forwarded-for")
    found = {
        _walk(address, entries, trusted)
        for entries in (
            None if forwarded is None else _forwarded(forwarded),
            None if x_forwarded_for is None else _x_forwarded_for(x_forwarded_for),
        )
        if entries is not None
    }
    # A proxy adds to one of the fields, and may pass the other on as a stranger wrote it.
    return str(found.pop() if len(found) == 1 else address)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine itself."""
    found = _parse(address)
    return found is not None and found.is_loopback


def client_group(address: str) -> str:
    """Return the group that limits count as one client: an IPv4 address, or a /64 of IPv6."""
    if ":" not in address:
        return address
    found = _parse(address)
    if not isinstance(found, IPv6Address):
        return address if found is None else str(found)
    return str(IPv6Network((found, CLIENT_PREFIX_BITS), strict=False))


def _walk(address: Address, entries: Iterable[Address | None], trusted: Networks) -> Address:
    for entry in entries:
        if entry is None:
            break
        address = entry
        if not _within(address, trusted):
            break
    return address


def _x_forwarded_for(value: str) -> Iterable[Address | None]:
    for entry in reversed(value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        yield _parse(entry)


def _forwarded(value: str) -> Iterable[Address | None]:
    end = len(value)
    for _ in range(MAX_HOPS):
        start = _start_of_last(value, end)
        yield None if start is None else _for(value[start:end])
        if not start:
            return
        end = start - 1


def _start_of_last(value: str, end: int) -> int | None:
    """Return where the last entry of ``value[:end]`` starts; ``None`` if that is unclear.

    The value is read from the right: a trusted proxy's entry there is well-formed, while a
    quotation mark that a stranger left open on the left would swallow it.
    """
    comma = end
    oldest = max(0, end - MAX_ENTRY_CHARS)
    while (comma := value.rfind(",", oldest, comma)) >= 0:
        if _ESCAPED.sub("", value[comma:end]).count('"') % 2 == 0:
            return comma + 1
    return None if oldest else 0


def _for(entry: str) -> Address | None:
    """Return the address that an entry of ``Forwarded`` names; ``None`` if it names none."""
    found, place = None, 0
    while place < len(entry):
        pair = _PAIR.match(entry, place)
        if pair is None:
            return None
        if pair["name"].lower() == "for":
            if found is not None:
                return None  # each parameter occurs once (RFC 7239 §4)
            found = pair["token"] if pair["quoted"] is None else _ESCAPED.sub(r"\1", pair["quoted"])
        place = pair.end()
    return None if found is None else _parse(found)


def _parse(text: str) -> Address | None:
    """Read an address, with or without a port; an IPv4 address in IPv6 is that address."""
    text = text.strip()
    host, port = text, ""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed:
            return None
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
        port = colon + port
    if not _PORT.fullmatch(port):
        return None
    try:
        address = ip_address(host.partition("%")[0])  # a zone means nothing elsewhere
    except ValueError:
        return None  # also `unknown`, and names that hide the address (RFC 7239 §6)
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
