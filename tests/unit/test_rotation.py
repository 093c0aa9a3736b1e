"""Which secrets are good: the one in force, and those before it for their time."""

from __future__ import annotations

import msgspec

from broadcasterd.access.rotation import MAX_PREVIOUS, NO_SECRETS, Secrets


def after(*secrets: bytes, ttl: float = 100.0) -> Secrets:
    """Return what is good after these secrets were in force, one second each."""
    good = NO_SECRETS
    for second, secret in enumerate(secrets):
        good = good.followed_by(secret, ttl=ttl, now=float(second))
    return good


def told(secrets: Secrets) -> list[tuple[bytes, float]]:
    """Return those of before, with the time at which each was replaced."""
    return [(each.secret, each.replaced_at) for each in secrets.previous]


def test_the_first_replaces_nothing() -> None:
    assert Secrets(b"a") == after(b"a")


def test_what_is_read_anew_and_is_the_same_replaces_nothing() -> None:
    assert Secrets(b"a") == after(b"a", b"a", b"a")


def test_each_of_several_has_its_own_time() -> None:
    assert [(b"b", 2.0), (b"a", 1.0)] == told(after(b"a", b"b", b"c"))
    assert [(b"b", 2.0)] == told(after(b"a", b"b", b"c", b"c", ttl=1.5))
    assert [] == told(after(b"a", b"b", b"c", b"c", b"c", ttl=1.5))


def test_the_time_that_counts_is_the_one_in_force() -> None:
    good = after(b"a", b"b")

    assert [] == told(good.followed_by(b"b", ttl=0.0, now=1.0))
    assert [(b"a", 1.0)] == told(good.followed_by(b"b", ttl=1000.0, now=900.0))


def test_one_that_comes_back_is_not_of_before() -> None:
    assert [(b"b", 2.0)] == told(after(b"a", b"b", b"a"))
    assert [(b"a", 3.0), (b"b", 2.0)] == told(after(b"a", b"b", b"a", b"c"))


def test_a_secret_that_is_gone_was_replaced_too() -> None:
    assert [(b"a", 5.0)] == told(after(b"a").followed_by(None, ttl=9.0, now=5.0))


def test_a_clock_that_was_set_back_makes_nothing_last_longer() -> None:
    good = after(b"a", b"b").followed_by(b"b", ttl=100.0, now=-1000.0)

    assert [(b"a", -1000.0)] == told(good)


def test_they_are_bounded() -> None:
    good = after(*(b"%d" % number for number in range(2 * MAX_PREVIOUS)))

    assert MAX_PREVIOUS == len(good.previous)
    assert b"%d" % (2 * MAX_PREVIOUS - 2) == good.previous[0].secret


def test_they_do_not_show_themselves_and_can_be_kept() -> None:
    good = after(b"s3cret", b"t3cret")

    assert "3cret" not in repr(good) + repr(good.previous)
    assert good == msgspec.json.decode(msgspec.json.encode(good), type=Secrets)
