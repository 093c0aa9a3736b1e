"""The live page: files that a browser runs as they are, without a build step, and how they go out.

``static/app.js`` is the entry; ``docs/page.md`` says what the page shows.
``client.js`` is for the pages of applications, and served as ``/client.js``.
"""
