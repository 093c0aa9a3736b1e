"""Uploads: requests that publish and the memory of their bodies are counted for their subject."""

from __future__ import annotations

import pytest

from broadcasterd.broadcast.upload import Upload
from broadcasterd.config import Limits
from broadcasterd.errors import TooMany
from tests.support.broadcast import in_force, make_hub


async def test_requests_that_publish_are_counted_until_they_end() -> None:
    hub = make_hub(in_force(Limits(max_publishing_per_subject=2)))

    def upload(subject: str | None) -> Upload:
        return Upload(hub.bodies, hub.quotas, subject)

    with upload("alice"), upload("alice"), upload("bob"), upload(None), upload(None), upload(None):
        with pytest.raises(TooMany, match="max_publishing_per_subject"), upload("alice"):
            pytest.fail("there are two already")
        assert 2 == hub.quotas.publishing_of_subject["alice"]
    assert 0 == len(hub.quotas.publishing_of_subject)
    with upload("alice"):
        pass


async def test_the_memory_of_bodies_is_counted_until_they_are_done_with() -> None:
    hub = make_hub(in_force(Limits(max_pending_bytes_per_subject=100)))
    with Upload(hub.bodies, hub.quotas, "bob") as of_bob:
        of_bob.take(100)
        with (
            Upload(hub.bodies, hub.quotas, "alice") as one,
            Upload(hub.bodies, hub.quotas, "alice") as other,
        ):
            one.take(60)
            with pytest.raises(TooMany, match="max_pending_bytes_per_subject"):
                other.take(41)
            other.hold(40)
            one.hold(10)
            assert 50 == hub.quotas.pending_of_subject["alice"]
        assert 0 == hub.quotas.pending_of_subject["alice"]
        assert 100 == hub.bodies.bytes
    assert 0 == len(hub.quotas.pending_of_subject)
    assert 0 == hub.bodies.bytes
