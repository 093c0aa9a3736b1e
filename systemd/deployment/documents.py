"""The documents of a release: a checkout's, with links that lead somewhere without the checkout."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

DOCUMENTS = "docs"
BESIDE = (
    *("CHANGELOG.md", "SECURITY.md", "config/broadcasterd.toml"),
    "config/alerts/webhook.schema.json",
    *("config/Containerfile", "config/logrotate.conf", "config/supervisord.conf"),
    *("config/node.toml", "config/node.socket.conf", "config/proxies/nginx-nodes.conf"),
    *(
        "config/prometheus/scrape.yml",
        "config/prometheus/alerts.yml",
        "config/grafana/dashboard.json",
    ),
    *(
        "config/proxies/nginx.conf",
        "config/proxies/haproxy.cfg",
        "config/proxies/Caddyfile",
        "config/proxies/apache.conf",
    ),
)
"""Files that are no documents of their own, and that documents lead to."""

_LINK = re.compile(r"\[([^]]*)\]\((?!\w+:)([^)#]+)(#[^)]*)?\)")


def documents(root: Path) -> dict[str, bytes]:
    """Return the contents of each document by its place in the documentation's directory.

    Args:
        root: the checkout.

    """
    there = [path for path in (root / DOCUMENTS).rglob("*") if path.is_file()]
    places = {
        **{path.relative_to(root): path.relative_to(root / DOCUMENTS) for path in there},
        **{Path(name): Path(name) for name in BESIDE},
    }
    return {
        place.as_posix(): _placed(name, (root / name).read_bytes(), places)
        for name, place in places.items()
    }


def _placed(name: Path, contents: bytes, places: dict[Path, Path]) -> bytes:
    """Have the links of a document lead to where other documents are; others become their text."""
    if name.suffix != ".md":
        return contents

    def follow(link: re.Match[str]) -> str:
        text, path, anchor = link.groups("")
        target = places.get(Path(os.path.normpath(name.parent / path)))
        if target is None:
            return text
        return f"[{text}]({PurePosixPath(os.path.relpath(target, places[name].parent))}{anchor})"

    return _LINK.sub(follow, contents.decode()).encode()
