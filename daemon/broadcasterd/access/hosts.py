"""Pages that a browser lets ask a daemon which asks nobody for a token.

A daemon on loopback is open to every page that its user looks at. The ``Origin`` of a request tells
the pages of other sites. A page whose own name was made to point here (DNS rebinding) is of this
very origin to the browser: but its name is in ``Host``, and an address or a local name cannot be
made to point anywhere.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

ANY = "*"

_REMEMBERED = 256
"""Answers: the names by which a daemon is called are few."""


@lru_cache(maxsize=_REMEMBERED)
def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a ``Host`` is an address, a local name, or one of these names.

    Without any, it is no browser that asks.
    """
    name = _name_of(host)
    is_local = _is_local_name(name) or _address(name) is not None
    return not host or is_local or name in names or ANY in names


@lru_cache(maxsize=_REMEMBERED)
def is_local(origin: str) -> bool:
    """Whether an ``Origin`` is of this machine: whoever serves pages here need not ask us."""
    name = _name_of(origin.partition("://")[2])
    address = _address(name)
    return _is_local_name(name) if address is None else address.is_loopback


def _name_of(host: str) -> str:
    """Return the name or the address in ``host[:port]``, in lower case."""
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _is_local_name(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")  # RFC 6761 §6.3


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
