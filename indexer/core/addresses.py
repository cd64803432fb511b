"""Which addresses belong to everybody's internet, whatever way they are written.

What is not public belongs to this machine, to its network, or to whoever rents it out: nothing
there is told anything because somebody on the outside asked for it, unless the operator lists it.

An IPv4 address may hide in an IPv6 one. What a gateway or a kernel makes of such an address is
judged, where that is certain (mapped, NAT64); what only old tunnels understand is never public.

Sources: IANA, IPv4 and IPv6 special-purpose address registries; RFC 4291 (mapped), RFC 6052
(NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 6598 (shared addresses of providers).
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final


Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Networks = Sequence[Network]

#: Not everybody's, or nobody's. Python's own list lacks some of these, and versions differ.
_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared, behind a provider's NAT; metadata of one cloud is there
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by its number, and yet the metadata of a cloud's machines
        "169.254.0.0/16",  # link-local: metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and the metadata of one cloud
        "192.0.2.0/24",
        "192.88.99.0/24",  # gateways of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)

#: All that was ever given out for global use. What is outside of it is local, or nobody's.
_GLOBAL_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)

#: Holds an IPv4 address in its last 32 bits, and leads there through a gateway.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def literal(host: str) -> Address | None:
    """The address that a URL's host is; None when it is a name, or no address in full form.

    `127.1`, `0x7f000001` and the like are names here, although resolvers take them for addresses.
    """
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether it belongs to everybody's internet."""
    meant = _meant(address)
    if isinstance(meant, IPv4Address):
        return not any(meant in network for network in _SPECIAL_V4)
    if meant.scope_id is not None or meant not in _GLOBAL_V6:
        return False
    return not any(meant in network for network in _SPECIAL_V6)


def is_listed(address: Address, networks: Networks) -> bool:
    """Whether it is in one of the networks, as it is written or as it is meant."""
    meant = _meant(address)
    return any(meant in network or address in network for network in networks)


def may_reach(address: Address, networks: Networks) -> bool:
    """Whether something may be sent there: to the public, and to what is listed."""
    return is_public(address) or is_listed(address, networks)


def _meant(address: Address) -> Address:
    """Where a packet to this address arrives."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
