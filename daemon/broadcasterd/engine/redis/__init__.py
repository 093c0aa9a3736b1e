"""The engine that several daemons share: Redis 7 or Valkey 8.

``wire.py`` has the names of keys and the forms of events; the scripts beside it (``*.lua``) decide
everything, each in one step; ``places.py`` finds the servers, ``shard.py`` talks to one and
``reader.py`` reads what it sends, ``following.py`` keeps one session's events in order, and
``engine.py`` is the port.
"""
