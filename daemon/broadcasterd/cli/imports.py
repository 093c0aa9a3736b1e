"""The client, without what comes along and is of no use to a command."""

from __future__ import annotations

import sys

from broadcasterd.observe.imports import uncollected, without


def import_client(*unused: str) -> None:
    """Import the client without HTTP/2, the command line of httpx, and what else a command names.

    That is a third of the time which `publish` takes (measured). What is imported already stays.
    """
    names = ("h2", "httpx._main", *unused)
    with uncollected(), without(*(name for name in names if name not in sys.modules)):
        import httpcore  # noqa: F401 (httpx imports it later)

        import broadcasterd.client  # noqa: F401 (that is all that this is for)
