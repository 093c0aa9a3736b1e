"""Counts and durations: what every part may count in. It reads no clock, and does no I/O."""
