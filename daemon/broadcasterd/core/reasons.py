"""Every reason why a stream ends, by name. Each one is counted under that name."""

from __future__ import annotations

from enum import StrEnum


class EndReason(StrEnum):
    """Why a stream ended. The first eight are told to the client in ``event: broadcaster.end``."""

    SESSION_CLOSED = "session_closed"
    SESSION_EXPIRED = "session_expired"
    SLOW_CONSUMER = "slow_consumer"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 (a reason, not a secret)
    REVOKED = "revoked"
    DRAINING = "draining"
    MEMORY = "memory"
    UNAVAILABLE = "unavailable"

    CLIENT_GONE = "client_gone"
    CLIENT_SPOKE = "client_spoke"
    CRASHED = "crashed"

    @property
    def reconnect(self) -> bool:
        """Whether the client should come back: not to what is over, nor with what is denied."""
        return self not in {
            EndReason.SESSION_CLOSED,
            EndReason.SESSION_EXPIRED,
            EndReason.REVOKED,
        }
