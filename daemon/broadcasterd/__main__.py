"""`python -m broadcasterd` is the command `broadcasterd`."""

from broadcasterd.cli import main

main()
