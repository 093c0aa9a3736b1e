"""broadcasterd: a daemon that broadcasts events over Server-Sent Events.

Where things are, for a reader (imports run one way, top to bottom):

=============== ==================================================================
``cli.py``      argv and exit statuses; ``client.py`` is its HTTP client
``run.py``      the root nursery: hub, server, supervisor, signals, drain
``edge/``       HTTP: the only importers of Quart and Hypercorn
``broadcast/``  Trio tasks and channels: hub, sessions, subscribers, supervisor
``core/``       pure: events, the wire format, the replay log; knows no I/O
``host/``       what the machine says (memory), and systemd's protocols
``observe/``    logging (to the journal, or standard error) and counters
``service.py``  what systemd is told; ``reload.py`` what SIGHUP does
``config.py``   every setting, typed and checked
=============== ==================================================================
"""

__version__ = "0.1.0"
