"""Permissions and their limits: tokens, tickets, quotas, rates. Pure but for key files."""
