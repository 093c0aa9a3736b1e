"""What the machine tells about this process."""
