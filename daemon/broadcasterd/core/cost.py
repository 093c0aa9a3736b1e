"""The memory that an event is accounted as, and whether that fits into a log."""

from __future__ import annotations

from broadcasterd.errors import TooLarge

ENTRY_OVERHEAD_BYTES = 32
"""The memory of an event beside its frame: its place in three arrays (20), its share of the room
for more there, and of what was dropped and is in the buffer still."""

OWN_TTL_OVERHEAD_BYTES = 32
"""The same for a ttl of its own: an item of an array (8), and one of a heap of those that expire
(16), which may be there a while longer than the event."""

KEY_OVERHEAD_BYTES = 32
"""The same for an idempotency key, beside its text: where that ends (4), and its slot in the index
(12 to 24)."""

ID_ROOM_BYTES = 64
"""The most that the id line and the chunk framing add to a block."""


def cost_of(frame_bytes: int, *, has_ttl: bool, key: str | None) -> int:
    """Return the bytes of memory that a retained event is accounted as."""
    cost = frame_bytes + ENTRY_OVERHEAD_BYTES
    if has_ttl:
        cost += OWN_TTL_OVERHEAD_BYTES
    if key is not None:
        cost += key_cost(key)
    return cost


def key_cost(key: str | None) -> int:
    """Return the share of an idempotency key in that."""
    return 0 if key is None else KEY_OVERHEAD_BYTES + len(key.encode())


def check_block_fits(
    block: bytes, *, max_bytes: int, ttl: float | None = None, key: str | None = None
) -> None:
    """Raise TooLarge for a block that, with its ttl and key, no log of the size could retain."""
    if key is None and len(block) <= surely_fits(max_bytes):
        return  # as nearly always
    if cost_of(len(block) + ID_ROOM_BYTES, has_ttl=ttl is not None, key=key) > max_bytes:
        msg = (
            f"an event of {len(block)} bytes does not fit into what a session retains "
            f"(sessions.max_history_bytes is {max_bytes})"
        )
        raise TooLarge(msg)


def surely_fits(max_bytes: int) -> int:
    """Return how large a block without a key may be, whatever else it has."""
    return max_bytes - ID_ROOM_BYTES - ENTRY_OVERHEAD_BYTES - OWN_TTL_OVERHEAD_BYTES
