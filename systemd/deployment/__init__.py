"""Switching an installed broadcasterd from one release to another; `make` runs it, as root.

Only the standard library: it runs in the machine's Python, and leans on no release.

================ =================================================================
``__main__.py``  argv and exit statuses
``deploy.py``    what is done in which order, and the way back
``releases.py``  what lies on disk: the releases, and the links to them
``instance.py``  production and staging, as systemd runs them
``http.py``      a client for the two that follow
``smoke.py``     the few checks on which a deployment depends
``functional.py`` more of them, for staging
================ =================================================================
"""
