"""HTTP on the wire: listening, connections, and the only importers of Quart and Hypercorn."""
