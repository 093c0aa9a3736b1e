"""Which tests share a worker of pytest-xdist, and which start first.

A pytest plugin. A group is run by one worker, one test after another: its session-wide fixtures
are made once, and no two of its tests run side by side. All tests of a group are slow.
"""

from __future__ import annotations

import pytest

from tests.support.tools import ROOT

GROUPS = {
    "tests/systemd": "container",  # made once, and there is one
    "tests/memory": "memory",
    "tests/integration/test_memory": "memory",  # floods: two at a time would starve each other
    "tests/performance/test_soak": "memory",
}
"""The group of the tests under a path."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups first: the whole suite waits for the longest."""
    for item in items:
        path = str(item.path.relative_to(ROOT))
        for prefix, group in GROUPS.items():
            if path.startswith(prefix):
                item.add_marker(pytest.mark.xdist_group(group))
                item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
