"""Which tests share a worker of pytest-xdist, and which start first.

A pytest plugin. What has the same scope is run by one worker, one test after another: its fixtures
are made once, and no two of its tests run side by side. A scope is a file, or one of ``GROUPS``,
and all that is in a group is slow.

Not by ``--dist loadgroup``, which as of pytest-xdist 3.8 groups nothing under pytest 9.2.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "container": "tests/systemd",  # made once, and its tests leave it as it was
    "memory": "tests/memory",
    # More floods at a time would starve each other.
    "stress": "tests/integration/test_memory tests/performance/test_soak",
    "another container": """
        tests/systemd/test_mistakes tests/systemd/test_nodes tests/systemd/test_proxies
        tests/systemd/test_restart tests/systemd/test_sandbox tests/systemd/test_service
        tests/systemd/test_supervisor tests/systemd/test_user_manager
    """,
    "releases": "tests/systemd/test_deploy tests/systemd/test_containerfile",
    "packages": "tests/systemd/test_deb tests/systemd/test_install",
}
"""The paths of a group's tests: the longest counts. The groups start in this order."""

PLACES = {path: group for group, paths in GROUPS.items() for path in paths.split()}


def group_of(node_id: str) -> str | None:
    """Return the group that a test is in."""
    found = max((path for path in PLACES if node_id.startswith(path)), key=len, default="")
    return PLACES.get(found)


def scope_of(node_id: str) -> str:
    """Return what a test shares a worker with: its group, or its file."""
    return group_of(node_id) or node_id.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes long, for the whole suite waits for its end: groups, slow files."""
    for item in items:
        if group_of(item.nodeid):
            item.add_marker(pytest.mark.slow)
    slow = {scope_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    order = list(GROUPS)

    def rank(item: pytest.Item) -> int:
        scope = scope_of(item.nodeid)
        return order.index(scope) if scope in order else len(order) + (scope not in slow)

    items.sort(key=rank)


class ByScope(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives each worker a scope at a time, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer | None) -> ByScope:
    """Return what gives tests to workers (a hook of pytest-xdist)."""
    config.option.loadscopereorder = False
    return ByScope(config, log)
