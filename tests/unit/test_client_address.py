"""The address of a client, behind proxies that are trusted and strangers that are not."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcasterd.access.client_address import (
    MAX_HOPS,
    client_address,
    client_group,
    is_loopback,
    is_trusted,
    parse_networks,
)

PROXIES = parse_networks(["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"])
PROXY = "10.0.0.1"
CLIENT = "203.0.113.9"

# All that a field value may hold, the dangerous characters more often.
FIELD = st.text(
    st.one_of(st.sampled_from('",;=\\[]: for.'), st.characters(min_codepoint=32, max_codepoint=255))
)


def behind_a_proxy(**headers: str) -> str:
    return client_address(PROXY, {n.replace("_", "-"): v for n, v in headers.items()}, PROXIES)


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_a_stranger_is_not_believed(name: str) -> None:
    headers = {name: "for=192.0.2.1" if name == "forwarded" else "192.0.2.1"}

    assert CLIENT == client_address(CLIENT, headers, PROXIES)
    assert CLIENT == client_address(CLIENT, headers, ())
    assert PROXY == client_address(PROXY, headers, ())


def test_without_a_field_the_proxy_is_the_client() -> None:
    assert PROXY == behind_a_proxy()


@pytest.mark.parametrize(
    ("field", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9\t", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("2001:DB8:0::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("[2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("fe80::1%eth0", "fe80::1"),
        # The nearest that is not a proxy, whatever is claimed before it.
        ("192.0.2.1, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("192.0.2.1, 203.0.113.9, 2001:db8:ffff::1, 10.9.9.9", "203.0.113.9"),
        # A client beside the proxies.
        ("10.1.1.1", "10.1.1.1"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        # What cannot be read ends the walk at the proxy that passed it on.
        ("203.0.113.9, rubbish", PROXY),
        ("203.0.113.9, rubbish, 10.2.2.2", "10.2.2.2"),
        ("unknown", PROXY),
        ("", PROXY),
        (",", PROXY),
        ("203.0.113.9,", PROXY),
        ("203.0.113.9:http", PROXY),
        ("203.0.113.9:", PROXY),
        ("203.0.113.256", PROXY),
        ("203.0.113.009", PROXY),
        ("3405803785", PROXY),
        ("[2001:db8::9", PROXY),
        ("[2001:db8::9]4711", PROXY),
        ("²03.0.113.9", PROXY),
    ],
)
def test_x_forwarded_for(field: str, client: str) -> None:
    assert client == behind_a_proxy(x_forwarded_for=field)


@pytest.mark.parametrize(
    ("field", "client"),
    [
        ("for=203.0.113.9", "203.0.113.9"),
        ("For=203.0.113.9", "203.0.113.9"),
        ('for="203.0.113.9"', "203.0.113.9"),
        ('for="203.0.113.9:4711"', "203.0.113.9"),
        ('for="[2001:db8::9]"', "2001:db8::9"),
        ('for="[2001:db8::9]:4711"', "2001:db8::9"),
        ("for=[2001:db8::9]", "2001:db8::9"),
        (r'for="203.0.113\.9"', "203.0.113.9"),
        ('for="[::ffff:203.0.113.9]"', "203.0.113.9"),
        ("proto=https;for=203.0.113.9;by=10.0.0.1", "203.0.113.9"),
        ("proto=https ; for=203.0.113.9 ; by=10.0.0.1;", "203.0.113.9"),
        ('host="a, b;for=192.0.2.1";for=203.0.113.9', "203.0.113.9"),
        (r'host="a\", b\\";for=203.0.113.9', "203.0.113.9"),
        ('for=192.0.2.1, for=203.0.113.9;host="a,b", for=10.2.2.2', "203.0.113.9"),
        ("for=10.1.1.1, for=10.2.2.2", "10.1.1.1"),
        # Hidden on purpose (RFC 7239 §6), or nothing that can be read.
        ("for=unknown", PROXY),
        ("for=_hidden", PROXY),
        ('for="_SEVKISEK"', PROXY),
        ("for=192.0.2.1, for=unknown", PROXY),
        ("for=192.0.2.1, for=_hidden, for=10.2.2.2", "10.2.2.2"),
        ("by=203.0.113.9", PROXY),
        ("for=203.0.113.9;for=192.0.2.1", PROXY),
        ("203.0.113.9", PROXY),
        ("for = 203.0.113.9", PROXY),
        ('for="203.0.113.9', PROXY),
        ("for=203.0.113.9 rubbish", PROXY),
        ("", PROXY),
    ],
)
def test_forwarded(field: str, client: str) -> None:
    assert client == behind_a_proxy(forwarded=field)


@pytest.mark.parametrize(
    ("forwarded", "x_forwarded_for", "client"),
    [
        ("for=203.0.113.9", "203.0.113.9", "203.0.113.9"),
        # A proxy added to one of them, and nobody can tell which.
        ("for=192.0.2.1", "203.0.113.9", PROXY),
        ("for=203.0.113.9", "192.0.2.1", PROXY),
        ("rubbish", "203.0.113.9", PROXY),
    ],
)
def test_two_fields_have_to_agree(forwarded: str, x_forwarded_for: str, client: str) -> None:
    assert client == behind_a_proxy(forwarded=forwarded, x_forwarded_for=x_forwarded_for)


def test_a_proxy_on_a_socket_for_both_families_is_trusted() -> None:
    headers = {"x-forwarded-for": CLIENT}

    assert CLIENT == client_address("::ffff:10.0.0.1", headers, PROXIES)
    assert PROXY == client_address("::ffff:10.0.0.1", headers, ())
    assert is_trusted("::ffff:10.0.0.1", PROXIES)
    assert not is_trusted("::ffff:203.0.113.9", PROXIES)


def test_a_peer_without_an_address_is_left_as_it_is() -> None:
    assert "" == client_address("", {"x-forwarded-for": CLIENT}, PROXIES)
    assert not is_trusted("", PROXIES)
    assert "" == client_group("")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.7", False),
        ("2001:db8::1", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_an_address_of_this_machine_is_loopback(address: str, *, expected: bool) -> None:
    assert expected == is_loopback(address)


def test_only_so_many_proxies_are_followed() -> None:
    chain = ", ".join([CLIENT] + [f"10.0.0.{n}" for n in range(MAX_HOPS - 1)])

    assert CLIENT == behind_a_proxy(x_forwarded_for=chain)
    assert "10.0.0.0" == behind_a_proxy(x_forwarded_for=chain + ", 10.9.9.9")


@pytest.mark.parametrize(
    "field",
    [
        "," * 16_000,
        '"' * 16_000,
        '",' * 8000,
        "for=" + "a" * 16_000,
        'for="' + "\\a" * 8000,
        ";".join(["for=10.0.0.1"] * 1000),
        ",".join(["for=10.0.0.1"] * 1000),
        'for=10.0.0.1;a="' + "," * 500 + '"',
    ],
)
def test_what_is_made_to_keep_us_busy_does_not(field: str) -> None:
    started = time.process_time()
    for _ in range(10):
        behind_a_proxy(forwarded=field)
        behind_a_proxy(x_forwarded_for=field)

    assert time.process_time() - started < 1.0  # it takes 10 ms


@given(FIELD)
def test_what_a_stranger_writes_changes_nothing(claim: str) -> None:
    assert CLIENT == behind_a_proxy(x_forwarded_for=f"{claim}, {CLIENT}")
    assert CLIENT == behind_a_proxy(forwarded=f"{claim}, for={CLIENT}")
    assert CLIENT == behind_a_proxy(
        forwarded=f'{claim}, proto=https;for="{CLIENT}:1", for=10.1.1.1'
    )


@given(FIELD, FIELD, st.sampled_from([PROXY, CLIENT, "::ffff:10.0.0.1", "", "rubbish"]))
def test_whatever_is_written_the_answer_is_the_peer_or_an_address(
    forwarded: str, x_forwarded_for: str, peer: str
) -> None:
    for headers in (
        {"forwarded": forwarded},
        {"x-forwarded-for": x_forwarded_for},
        {"forwarded": forwarded, "x-forwarded-for": x_forwarded_for},
    ):
        found = client_address(peer, headers, PROXIES)
        assert found == peer or str(ip_address(found)) == found
        client_group(found)


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_site_of_ipv6_counts_as_one_client(address: str, group: str) -> None:
    assert group == client_group(address)
