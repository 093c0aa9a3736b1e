"""What requests mean: plain functions of a head and a body. It knows no framework and no server."""
