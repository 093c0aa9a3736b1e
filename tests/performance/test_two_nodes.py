"""The comparison of one node with two counts what the nodes themselves count."""

from __future__ import annotations

import pytest

from tests.performance.two_nodes import measure
from tests.support.tools import require

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("count", [1, 2])
def test_every_delivery_that_is_counted_was_made(count: int) -> None:
    """A node that counts others fails the measurement."""
    require("redis-server")

    found = measure(count, sessions=2, subscribers=6, seconds=0.5)

    assert count == found["nodes"]
    assert found["deliveries_per_s"] > 0
    assert found["us_per_delivery"] > 0
