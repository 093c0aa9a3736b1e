"""structlog as the daemon has it: without rich, which only `top` and its like draw with.

structlog imports rich wherever that is installed. It would cost every daemon 3.3 MB and a quarter
of a second (measured), and by default show exceptions with their local variables.
"""

from __future__ import annotations

import sys
from typing import cast


def import_structlog() -> None:
    """Import structlog as if rich were not installed. Call it before all that imports structlog."""
    modules = cast("dict[str, object]", sys.modules)  # None is no module, and says so
    before = {"rich": modules["rich"]} if "rich" in modules else {}
    modules["rich"] = None
    try:
        import structlog  # noqa: F401, PLC0415 (that is all that this is for)
    finally:
        del modules["rich"]
        modules.update(before)
