"""HTTP: requests in, responses and streams out. The only importers of Quart and Hypercorn.

What a request means is decided by plain functions of a :class:`~broadcasterd.edge.request.Head`
(``publish.py``, ``subscribe.py``, ``admin.py``); ``app.py`` is what Quart adds to them, and
``server.py`` all that leans on Hypercorn.
"""
