"""A container that the real systemd boots in, as PID 1, within half a second.

Its root is an overlay over the machine's own: nothing of the machine is changed, and what the
machine has installed is there. It shares the machine's network: 127.0.0.1 is the same inside.
Needs root, overlayfs, and Debian's packages systemd, systemd-container and util-linux.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BOOT_S = 60.0
STOP_S = 20.0
SOON_S = 20.0
"""The time for a step that takes a second here, on a loaded machine."""

POLL_S, POLL_AT_MOST_S = 0.05, 0.5
"""Between two looks, longer each time: a look starts a process or two, which takes from a machine
that is busy."""

CAP_SYS_ADMIN = 21
INITIAL_USER_NAMESPACE = ["0", "0", "4294967295"]
PROGRAMS = ("systemd-nspawn", "systemd-analyze", "journalctl", "unshare", "nsenter", "setpriv")
SYSTEMD = Path("/lib/systemd/systemd")

IN_ITS_PLACE = ["unshare", "-m", "--propagation", "private"]
"""Runs a command whose mounts the machine does not see."""

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

SETUP = r"""
set -eu
# In a mount namespace of its own: what systemd-nspawn keeps in /run is not to stay behind.
mount -t tmpfs -o mode=755 container /run
# A cgroup of its own in every hierarchy, below the present one.
for cgroup in $CGROUPS; do
    mkdir -p "$cgroup"
    case $cgroup in */cpuset/*)
        for file in cpuset.cpus cpuset.mems; do cat "$cgroup/../$file" > "$cgroup/$file"; done;;
    esac
    echo $$ > "$cgroup/cgroup.procs"
done
mount -t tmpfs -o mode=755 container "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay -o "lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work" container "$WORK/root"
cd "$WORK/root"
# Nothing that the machine has enabled is to start here.
rm -rf etc/systemd/system/* etc/rc?.d/* etc/cron* var/log/journal
: > etc/fstab
rm -f etc/resolv.conf
# Nor does it need an index of all man pages each time that a package is installed.
rm -f var/lib/man-db/auto-update
# Nor has it disks, consoles or old scripts, for which each reload of systemd would look.
mkdir -p etc/systemd/system-generators
for generator in lib/systemd/system-generators/*; do
    ln -sf /dev/null "etc/systemd/system-generators/${generator##*/}"
done
for unit in systemd-timesyncd.service systemd-networkd.service systemd-resolved.service \
        getty.target console-getty.service e2scrub_reap.service; do
    ln -s /dev/null "etc/systemd/system/$unit"
done
mkdir -p etc/systemd/system.conf.d etc/systemd/journald.conf.d
printf '[Manager]\nDefaultTimeoutStopSec=5s\n' > etc/systemd/system.conf.d/test.conf
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n' > etc/systemd/journald.conf.d/test.conf
# nspawn mounts the controllers of cgroup v1 read-only. These are below our own cgroup: let systemd
# have them, or no limit of a unit is enforced. And /dev/null has the mode that it has out here: let
# it be everybody's, or Python finds no library, and asks a compiler for it at each start.
exec systemd-nspawn --quiet --register=no --keep-unit --directory=. --machine="$NAME" \
    --uuid="$MACHINE_ID" --resolv-conf=off --timezone=off --link-journal=no --console=pipe \
    --notify-ready=yes --kill-signal=SIGRTMIN+3 \
    /bin/sh -c 'for controller in /sys/fs/cgroup/*/; do
                    mount -o remount,rw,bind "${controller%/}" 2>/dev/null || true
                done
                chmod 666 /dev/null
                exec /lib/systemd/systemd'
"""


def why_not() -> str | None:
    """Return why this machine cannot run a container, or ``None``."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    missing += [] if SYSTEMD.exists() else [str(SYSTEMD)]
    for lacking, reason in [
        (missing, f"{', '.join(missing)} not installed (Debian: systemd-container, util-linux)"),
        (not capabilities >> CAP_SYS_ADMIN & 1, "a container needs root with CAP_SYS_ADMIN"),
        (
            Path("/proc/self/uid_map").read_text().split() != INITIAL_USER_NAMESPACE,
            "a container needs the initial user namespace, to make device nodes",
        ),
        ("overlay" not in Path("/proc/filesystems").read_text(), "the kernel has no overlayfs"),
    ]:
        if lacking:
            return reason
    trial = [*IN_ITS_PLACE, "mount", "-t", "tmpfs", "x", "/mnt"]
    mounted = subprocess.run(trial, capture_output=True, text=True, check=False)
    if mounted.returncode:
        return f"nothing can be mounted: {mounted.stderr.strip()}"
    try:
        for cgroup in _cgroups(f"trial-{os.getpid()}"):
            cgroup.mkdir()
            cgroup.rmdir()
    except OSError as error:
        return f"no cgroup can be made: {error}"
    return None


class Container:
    """A container that has booted.

    Attributes:
        root: its root directory, as seen from here.

    """

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self.root = Path(f"/proc/{leader}/root")

    @classmethod
    @contextmanager
    def booted(cls) -> Iterator[Container]:
        """Boot a container, and halt it afterwards."""
        name = f"broadcasterd-test-{uuid.uuid4().hex[:8]}"
        cgroups = _cgroups(name)
        with tempfile.TemporaryDirectory(prefix=name) as directory:
            work = Path(directory)
            console = work / "console"
            (work / "mount").mkdir()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
                notifications.bind(f"{work}/notify")
                with console.open("w") as output:
                    process = subprocess.Popen(
                        # Should this process be killed, nspawn is told to halt the container.
                        ["setpriv", "--pdeathsig", "TERM", *IN_ITS_PLACE, "sh", "-c", SETUP],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        env=ENVIRONMENT
                        | {
                            "NAME": name,
                            "WORK": f"{work}/mount",
                            "CGROUPS": " ".join(map(str, cgroups)),
                            "MACHINE_ID": uuid.uuid4().hex,
                            "NOTIFY_SOCKET": f"{work}/notify",
                        },
                    )
                try:
                    leader = _wait_until_ready(process, notifications, console)
                    # While a job takes its time, systemd says so several times a second. If nobody
                    # read that, nspawn would wait, and then the whole container.
                    notifications.close()
                    yield cls(leader)
                finally:
                    _halt(process)
                    _remove(cgroups)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside, and return the result."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        done = subprocess.run(
            [*enter, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=ENVIRONMENT | {"container": "systemd-nspawn"},
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def show(self, unit: str, property_name: str) -> str:
        """Return a property of a unit."""
        shown = self.run("systemctl", "show", "--property", property_name, "--value", unit)
        return shown.stdout.strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the records that match, oldest first, as ``journalctl -o json`` has them."""
        self.run("journalctl", "--sync")
        found = self.run("journalctl", "--quiet", "--output", "json", *matches)
        return [json.loads(line) for line in found.stdout.splitlines()]

    def pid_here(self, pid_inside: int) -> int:
        """Return the process id out here of a process inside."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                [line] = [x for x in status.read_text().splitlines() if x.startswith("NSpid:")]
                namespace = (status.parent / "ns/pid").stat().st_ino
            except OSError:
                continue  # it ended meanwhile
            same = namespace == Path(f"/proc/{self._leader}/ns/pid").stat().st_ino
            if same and int(line.split()[-1]) == pid_inside:
                return int(status.parent.name)
        raise AssertionError(f"no process {pid_inside} inside")


def until(condition: Callable[[], object], *, within: float = SOON_S) -> None:
    """Ask until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + within
    pause = POLL_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(pause)
        pause = min(1.5 * pause, POLL_AT_MOST_S)


def _wait_until_ready(
    process: subprocess.Popen[bytes], notifications: socket.socket, console: Path
) -> int:
    """Return the PID of the container's systemd, once that has booted (sd_notify(3))."""
    leader = 0
    deadline = time.monotonic() + BOOT_S
    notifications.settimeout(0.5)
    while True:
        said = console.read_text(errors="replace")
        assert process.poll() is None, f"the container did not start:\n{said}"
        assert time.monotonic() < deadline, f"the container did not boot:\n{said}"
        try:
            news = notifications.recv(4096).decode().splitlines()
        except TimeoutError:
            continue
        for line in news:
            if line.startswith("X_NSPAWN_LEADER_PID="):
                leader = int(line.partition("=")[2])
        if "READY=1" in news:
            return leader


def _halt(process: subprocess.Popen[bytes]) -> None:
    for ask in (process.terminate, process.terminate, process.kill):
        ask()  # to halt; to halt at once; not to be
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
        return


def _cgroups(name: str) -> list[Path]:
    """Return a directory of that name below this process's cgroup, in each hierarchy."""
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().split())
    found = []
    for mount in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = mount.split()
        if kind == "cgroup2":
            found.append(Path(where + own[""]) / name)
        elif kind == "cgroup":
            path = next(own[c] for c in own if c and set(c.split(",")) & set(options.split(",")))
            found.append(Path(where + path) / name)
    return found


def _remove(cgroups: list[Path]) -> None:
    """Remove cgroups whose processes have ended, or are just about to."""
    deadline = time.monotonic() + STOP_S
    for cgroup in cgroups:
        for directory, _, _ in os.walk(cgroup, topdown=False):
            while True:
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_S)
                else:
                    break
