"""The command `broadcasterd`, which `python -m broadcasterd` is as well.

A daemon's process starts itself again, so it does that first, and imports the command line after.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from broadcasterd.host.allocator import use_allocator_that_gives_back


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] == ["serve"]:  # the process is ours, and will live long
        use_allocator_that_gives_back()
    from broadcasterd.cli import main  # noqa: PLC0415 (as it says above)

    main()


if __name__ == "__main__":
    main()
