"""What the daemon tells its operator. Handed in by ``daemon``, never imported by ``broadcast``."""
