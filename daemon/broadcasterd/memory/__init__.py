"""The bound on memory: counting, the breaker, and what is given up first."""
