"""Restarts that nobody notices: sessions and streams go from one process to the next."""
