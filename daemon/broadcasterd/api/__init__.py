"""The meaning of requests: plain functions of a head and a body, without framework or server."""
