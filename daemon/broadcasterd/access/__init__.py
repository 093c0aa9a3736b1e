"""Who may do what, and how much of it: tokens, tickets, quotas, rates. Pure but for key files."""
