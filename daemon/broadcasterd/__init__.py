"""broadcasterd: a daemon that broadcasts events over Server-Sent Events.

Where things are, for a reader (imports run one way, top to bottom):

=============== ==================================================================
``cli.py``      argv and exit statuses; ``client.py`` is its HTTP client
``run.py``      the root nursery: in what order all starts and stops, and signals
``parts.py``    hub, server and their guards put together, and told of new settings
``restart.py``  what is taken up from the process before, and left to the next
``monitor.py``  the daemon's figures, for the supervisor and for /health
``edge/``       HTTP: the only importers of Quart and Hypercorn
``broadcast/``  Trio tasks and channels: hub, sessions, subscribers, supervisor
``core/``       pure: events, the wire format, the replay log; knows no I/O
``host/``       the machine: memory, systemd's protocols, where a handover waits
``observe/``    logging (to the journal, or standard error), and a watch on the loop
``service.py``  what systemd is told; ``reload.py`` what SIGHUP does
``config.py``   every setting, typed and checked
=============== ==================================================================
"""

__version__ = "0.1.0"
