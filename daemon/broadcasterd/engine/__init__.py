"""What keeps events beyond the process: a port, and the engines behind it."""
