"""The protocols between systemd and a service.

They are those of sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3). If systemd did not
start the daemon, there is no socket, no descriptor and no watchdog, and nothing is done.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_FD = 3
"""SD_LISTEN_FDS_START: standard input, output and error come before it."""


class Notifier:
    """Tells the service manager what the service does. It never waits: its caller runs in the loop.

    Args:
        address: ``$NOTIFY_SOCKET``; ``None`` where nobody listens.

    """

    def __init__(self, address: str | None) -> None:
        self._address = None if address is None else _socket_address(address)

    def send(self, *assignments: str, fds: Sequence[int] = ()) -> bool:
        """Send ``NAME=value`` assignments, and with them descriptors (``FDSTORE=1``).

        Returns:
            False if the manager is too busy to take them just now, and shall be told again.

        Raises:
            OSError: the descriptors cannot be sent, and the caller has to know.

        """
        if self._address is None:
            return True
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendmsg(["\n".join(assignments).encode()], rights, 0, self._address)
        except BlockingIOError:
            return False
        except OSError:
            if fds:
                raise
            # The manager is gone, or never was: telling it again would change nothing
        return True


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A descriptor that this process was started with, and the name that its unit gave it."""

    name: str
    fd: int


def take_listen_fds(environ: MutableMapping[str, str]) -> list[HandedOver]:
    """Return the descriptors that systemd handed over; no child is to take them for its own.

    The variables are removed, and the descriptors are closed by execve(2) from now on.
    """
    meant_for = environ.pop("LISTEN_PID", "")
    count = int(environ.pop("LISTEN_FDS", "") or 0)
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant_for != str(os.getpid()):
        return []
    found = []
    for index in range(count):
        os.set_inheritable(FIRST_FD + index, False)  # noqa: FBT003 (no keywords there)
        name = names[index] if index < len(names) else ""
        found.append(HandedOver(name or "unknown", FIRST_FD + index))
    return found


def runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the (first) directory of ``RuntimeDirectory=``, if the service has one."""
    first = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the (first) directory of ``StateDirectory=``, if the service has one."""
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def watchdog_period(environ: MutableMapping[str, str]) -> float | None:
    """Return the seconds within which systemd wants to hear of the service, if it watches it."""
    meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
    period = int(environ.get("WATCHDOG_USEC") or 0) / 1e6
    return period if period and meant_for == str(os.getpid()) else None


def _socket_address(address: str) -> str:
    """Return an address as the socket API has it: ``@`` stands for the abstract namespace."""
    return "\0" + address[1:] if address.startswith("@") else address
