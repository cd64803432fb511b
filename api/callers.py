"""Whose address a request comes from, where proxies stand in front.

A proxy that is trusted (`AXIOM_TRUSTED_PROXIES`) appends to `X-Forwarded-For` the address that it
was called from. So the header is read from its end: each address that is a trusted proxy's own was
called by the one before it, and the first one that is not is the caller. What stands further to
the left is whatever the caller wrote there himself, and is not read.

Nothing is read from the header when whoever connects is no trusted proxy.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import Request

from api.limits import PROXIES_MAX
from indexer.core.addresses import Address, Networks


#: Of one who has no address, such as through a socket in the file system.
NOBODY: Final = "local"

#: What a provider gives to one customer at the least, who may then use any address in it.
_NETWORK_BITS: Final = 64


def caller_address(request: Request, trusted_proxies: Networks) -> str:
    """For whom a request counts: an IPv4 address, or the /64 of an IPv6 address."""
    address = _caller(request, trusted_proxies)
    if address is None:
        return NOBODY
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), _NETWORK_BITS), strict=False))
    return str(address)


def full_address(request: Request, trusted_proxies: Networks) -> str:
    """The same with all of it, for the record; empty when there is none."""
    address = _caller(request, trusted_proxies)
    return "" if address is None else str(address)


def _caller(request: Request, trusted_proxies: Networks) -> Address | None:
    peer = _parsed(request.client.host) if request.client else None
    if peer is None or not _is_in(peer, trusted_proxies):
        return peer
    header = ",".join(request.headers.getlist("x-forwarded-for"))
    # One more than is read: the first of them is then more than a hop, and never looked at.
    hops = header.rsplit(",", PROXIES_MAX)[-PROXIES_MAX:]
    return _last_untrusted(peer, hops, trusted_proxies)


def _last_untrusted(peer: Address, hops: Sequence[str], trusted_proxies: Networks) -> Address:
    """The first from the right that is no proxy of ours.

    The last proxy where all of them are, or where what it says is no address.
    """
    for hop in reversed(hops):
        address = _parsed(hop)
        if address is None:
            break
        peer = address
        if not _is_in(address, trusted_proxies):
            break
    return peer


def _parsed(text: str) -> Address | None:
    """An address, with a port or without; one of IPv4 in IPv6 is one of IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])  # without the interface it came in by
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
