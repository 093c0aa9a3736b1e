"""HTTP: requests in, responses and streams out. The only importers of Quart and Hypercorn.

What a request means is decided by plain functions of a :class:`~broadcasterd.edge.request.Head`
(``auth.py`` first of all, then ``publish.py``, ``subscribe.py``, ``streams.py``, ``admin.py``);
``app.py`` is what Quart adds to them, and ``server.py`` all that leans on Hypercorn.
``openapi.py`` describes the whole.
"""
