"""Which addresses are everybody's, in every form in which they may be written."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, strategies as st

from indexer.core.addresses import Networks, is_listed, is_public, literal, may_reach


OFFICE: Networks = (IPv4Network("10.1.0.0/16"), IPv6Network("fd00:1::/32"))


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:200::1",
        "2a00:1450:4001:800::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert may_reach(ip_address(text), ())


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::127.0.0.1",
        "100::1",
        "2001::1",
        "2001:0:808:808::8.8.8.8",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ],
)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not may_reach(ip_address(text), OFFICE)


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("64:ff9b::10.1.2.3", True),
        ("fd00:1::1", True),
        ("10.2.0.1", False),
        ("::ffff:10.2.0.1", False),
        ("::10.1.2.3", False),
        ("2002:a01:203::", False),
        ("fd00:2::1", False),
        ("8.8.8.8", False),
    ],
)
def test_what_is_listed_is_reached_however_it_is_written(text: str, listed: bool) -> None:
    assert is_listed(ip_address(text), OFFICE) is listed
    assert may_reach(ip_address(text), OFFICE) is (listed or text == "8.8.8.8")


def test_a_mapped_network_may_be_listed_as_such() -> None:
    assert is_listed(ip_address("::ffff:10.1.2.3"), (IPv6Network("::ffff:10.1.0.0/112"),))


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_no_more_public_for_being_wrapped(number: int) -> None:
    wrapped = [0xFFFF << 32 | number, 0x64_FF9B << 96 | number, number]
    wrapped.append(0x2002 << 112 | number << 80)

    for each in wrapped:
        assert not is_public(IPv6Address(each)) or is_public(IPv4Address(number))


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_nothing_is_public_that_the_language_itself_calls_special(
    address: IPv4Address | IPv6Address,
) -> None:
    special = address.is_private or address.is_multicast or address.is_reserved
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    nat64 = address in IPv6Network("64:ff9b::/96")  # reserved, and leads to the public

    assert not is_public(address) or not special or mapped or nat64


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", IPv4Address("127.0.0.1")),
        ("[::1]", IPv6Address("::1")),
        ("::1", IPv6Address("::1")),
        ("127.1", None),
        ("2130706433", None),
        ("0x7f000001", None),
        ("0177.0.0.1", None),
        ("shop.example", None),
        ("", None),
    ],
)
def test_only_full_addresses_are_addresses(
    host: str, address: IPv4Address | IPv6Address | None
) -> None:
    assert literal(host) == address
