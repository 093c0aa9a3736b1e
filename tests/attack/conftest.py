"""The fixture of attacks on memory: what an idle daemon takes."""

from __future__ import annotations

from tests.memory.conftest import idle_mb

__all__ = ["idle_mb"]
