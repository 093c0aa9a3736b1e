"""Tests that cannot run side by side, or share what is expensive to make, share a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from unittest.mock import MagicMock

import pytest

from tests.support.scheduling import pytest_xdist_make_scheduler, scope_of


@pytest.mark.parametrize(
    ("node_id", "scope"),
    [
        ("tests/systemd/test_units.py::test_a", "container"),
        ("tests/systemd/test_service.py::test_a", "another container"),
        ("tests/systemd/test_deploy.py::test_a", "releases"),
        ("tests/memory/test_flood.py::test_a", "memory"),
        ("tests/integration/test_memory_leak_quick.py::test_a[x::y]", "stress"),
        (
            "tests/integration/test_limits.py::test_a[tests/memory]",
            "tests/integration/test_limits.py",
        ),
        ("tests/unit/test_hub.py::TestIt::test_a", "tests/unit/test_hub.py"),
    ],
)
def test_a_scope_is_a_group_or_a_file(node_id: str, scope: str) -> None:
    assert scope == scope_of(node_id)


def test_a_worker_is_given_a_whole_scope() -> None:
    config = SimpleNamespace(option=SimpleNamespace(), getvalue=lambda _: ["2*popen"])
    scheduling = pytest_xdist_make_scheduler(cast("pytest.Config", config), log=None)
    collection = [
        "tests/memory/test_flood.py::a",
        "tests/memory/test_bounds.py::b",
        "tests/unit/test_hub.py::c",
        "tests/unit/test_hub.py::d",
    ]
    workers = [MagicMock() for _ in range(2)]
    for worker in workers:
        worker.shutting_down = False
        scheduling.add_node(worker)
        scheduling.add_node_collection(worker, collection)

    scheduling.schedule()

    given = [worker.send_runtest_some.call_args.args[0] for worker in workers]
    assert given == [[0, 1], [2, 3]]
