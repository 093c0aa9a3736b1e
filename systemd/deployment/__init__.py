"""Releases of broadcasterd: made, installed, deployed, and gone back from; `make` runs it, as root.

Only the standard library: it runs in the machine's Python, and leans on no release.

=================== ===============================================================
``__main__.py``     argv and exit statuses
``build.py``        a release made of the checkout
``units.py``        the unit files of a release, made of those of the checkout
``installation.py`` the files beside the releases, and how all of them are removed
``deploy.py``       the order of a deployment's steps, and the way back
``releases.py``     the releases on disk, and the links to them
``instance.py``     production and staging, as systemd runs them
``layout.py``       the places of everything below a prefix
``commands.py``     running the machine's commands
``files.py``        files and links that are replaced in one step
``http.py``         a client for the two that follow
``smoke.py``        the few checks on which a deployment depends
``functional.py``   more of them, for staging
=================== ===============================================================
"""
