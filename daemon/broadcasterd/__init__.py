"""broadcasterd: a daemon that broadcasts events over Server-Sent Events.

Where things are, for a reader (imports run one way, top to bottom):

=============== ==================================================================
``cli/``        argv and exit statuses; ``client/`` is its HTTP client
``process.py``  the daemon as a process: how it starts, reloads and, in ``stop.py``, stops
``daemon.py``   the whole put together; ``checks.py`` what a start and a reload check first
``reload.py``   what a reload does; ``monitor.py`` the figures that /health shows
``meter.py``    reads all that is counted, for /stats and ``metrics.py`` (Prometheus)
``server/``     HTTP on the wire: the only importers of Quart and Hypercorn
``handover/``   what is restored from the process before, and left to the next
``api/``        what requests mean, as plain functions
``broadcast/``  Trio tasks and channels: hub, sessions, subscribers, supervisor
``engine/``     what keeps events beyond the process: a port, and what is behind it
``memory/``     the bound on memory: the breaker, and what is given up first
``access/``     tokens, tickets, quotas and rate limits
``core/``       pure: events, the wire format, the replay log; knows no I/O
``config/``     every setting, typed and checked; ``errors.py`` what is answered
``figures/``    what every part counts in: counts, histograms, rates
``alerts/``     rules over figures, and webhooks that are told
``page/``       the live page: files for a browser, as they are
``host/``       the machine: memory, the allocator, systemd
``observe/``    logging (to the journal, or standard error), and a watch on the loop
=============== ==================================================================
"""

__version__ = "0.1.0"
