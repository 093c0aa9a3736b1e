"""Pure: what an event is, how it looks on the wire, what is retained. No I/O, no clock."""
