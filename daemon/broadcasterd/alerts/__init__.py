"""Alerts: rules over figures, and who is told. ``daemon`` makes them; ``api`` only shows them."""
