"""How much memory this process has, as the kernel counts it."""

from __future__ import annotations

import psutil

_process = psutil.Process()


def rss_bytes() -> int:
    """Return the resident set size in bytes."""
    return int(_process.memory_info().rss)
