"""Fixtures of attacks: a daemon whose memory is all its own, and what an idle one takes."""

from __future__ import annotations

from tests.memory.conftest import idle_mb, launch

__all__ = ["idle_mb", "launch"]
