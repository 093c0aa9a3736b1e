"""What others see of this process: its name, and the environment that it was started with."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

COMM = Path("/proc/self/comm")
"""The name of the main thread, which ``ps``, ``top`` and ``pgrep`` show (proc(5)); 15 bytes."""


def take_name(name: str) -> None:
    """Have this process be called so; without it, it is one of many called ``python``."""
    with suppress(OSError):  # a name is no reason not to serve
        COMM.write_text(name)


def hide_variable(name: str) -> None:
    """Overwrite the value of a variable where ``ps e`` reads it (``/proc/PID/environ``, proc(5)).

    ``os.environ`` is a copy, and has it still.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.strlen.argtypes = [ctypes.c_void_p]
    libc.strlen.restype = ctypes.c_size_t
    if value := libc.getenv(os.fsencode(name)):
        ctypes.memset(value, 0, libc.strlen(value))
