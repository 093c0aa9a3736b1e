"""The machine that this process runs on: memory, the allocator, systemd."""
