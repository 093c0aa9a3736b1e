"""What the daemon tells its operator. Handed in by ``run``, never imported by ``broadcast``."""
