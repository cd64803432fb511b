"""What every guarded connection is judged by; `test_outside` has the attacks on a whole request."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, ip_address
from typing import Any

import aiohttp
import pytest

from indexer.core.addresses import Address, Networks
from indexer.errors import SourceRejected, SourceUnavailable
from indexer.sources.guard import (
    ADDRESSES_MAX,
    Guard,
    guarded_socket,
    judge,
    session,
    told,
    was_closed_before,
    wrapped,
)
from indexer.sources.names import Names


ONE: Networks = (IPv4Network("127.0.0.1/32"),)


def guard(addresses: Sequence[str], networks: Networks = (), scheme: str = "https") -> Guard:
    async def lookup(_host: str) -> Sequence[Address]:
        return [ip_address(each) for each in addresses]

    return Guard(lookup, networks, scheme)


async def test_judged_addresses_are_given_out_as_they_were_judged() -> None:
    found = await guard(["8.8.8.8", "2606:4700::1111"]).resolve("partner.example", 443)

    assert [(each["host"], each["port"], each["family"]) for each in found] == [
        ("8.8.8.8", 443, socket.AF_INET),
        ("2606:4700::1111", 443, socket.AF_INET6),
    ]
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    assert all(each["flags"] == numeric for each in found)


async def test_only_so_many_addresses_are_tried() -> None:
    found = await guard(["8.8.8.8"] * 100).resolve("partner.example")

    assert len(found) == ADDRESSES_MAX


async def test_a_name_without_an_address_leads_nowhere() -> None:
    with pytest.raises(SourceUnavailable, match="no address"):
        await guard([]).resolve("partner.example")


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1", "0177.0.0.1", "localhost"])
async def test_what_the_systems_resolver_makes_of_a_host_is_judged_as_well(host: str) -> None:
    """Whoever checks URLs refuses these before; here it is as if nobody did."""
    with pytest.raises(SourceRejected, match="its address is not public"):
        await Guard(Names().addresses, (), "https").resolve(host)


@pytest.mark.parametrize(
    ("addresses", "networks", "scheme", "is_fine"),
    [
        (["8.8.8.8"], (), "https", True),
        (["127.0.0.1"], (), "https", False),
        (["127.0.0.1"], ONE, "https", True),
        (["127.0.0.1"], ONE, "http", True),
        (["127.0.0.2"], ONE, "http", False),
        (["8.8.8.8"], (), "http", False),
        (["8.8.8.8"], (IPv4Network("8.0.0.0/8"),), "http", False),
        (["127.0.0.1", "8.8.8.8"], ONE, "https", True),
        (["127.0.0.1", "8.8.8.8"], ONE, "http", False),
        (["8.8.8.8", "169.254.169.254"], (), "https", False),
        (["::ffff:169.254.169.254"], (), "https", False),
    ],
)
def test_all_addresses_are_judged(
    addresses: list[str], networks: Networks, scheme: str, is_fine: bool
) -> None:
    found = [ip_address(each) for each in addresses]
    if is_fine:
        judge(found, networks, scheme)
    else:
        with pytest.raises(SourceRejected):
            judge(found, networks, scheme)


@pytest.mark.parametrize(
    ("address", "scheme"), [("127.0.0.2", "https"), ("8.8.8.8", "http"), ("no address", "https")]
)
def test_no_socket_is_made_for_what_came_past_the_other_checks(address: str, scheme: str) -> None:
    with pytest.raises(SourceRejected):
        guarded_socket((0, 0, 0, "", (address, 443)), networks=ONE, scheme=scheme)


@pytest.mark.parametrize(
    ("error", "is_reused", "was_closed"),
    [
        (aiohttp.ServerDisconnectedError(), True, True),
        (aiohttp.ClientOSError(104, "reset"), True, True),
        (aiohttp.ServerDisconnectedError(), False, False),
        (aiohttp.ClientPayloadError(), True, False),
        (TimeoutError(), True, False),
    ],
)
def test_only_a_kept_connection_may_have_been_closed_before(
    error: Exception, is_reused: bool, was_closed: bool
) -> None:
    context = told()
    assert not context.is_reused
    context.is_reused = is_reused

    assert was_closed_before(error, context) is was_closed


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TimeoutError(), SourceUnavailable, "no answer within 7 s"),
        (aiohttp.ConnectionTimeoutError(), SourceUnavailable, "no connection within 2 s"),
        (aiohttp.InvalidURL("http://SECRET"), SourceRejected, "its URL is no URL"),
        (aiohttp.ServerDisconnectedError("SECRET"), SourceUnavailable, "closed before"),
        (aiohttp.ClientPayloadError("SECRET"), SourceUnavailable, "closed before"),
        (OSError("SECRET"), SourceUnavailable, "closed before"),
    ],
)
def test_why_there_is_no_answer_is_told_in_words_of_ours(
    error: Exception, kind: type[Exception], said: str
) -> None:
    told_of = wrapped(error, timeout_s=7, connect_timeout_s=2)

    assert type(told_of) is kind
    assert said in str(told_of)
    assert "SECRET" not in str(told_of)


@pytest.mark.parametrize("keeps_connections", [True, False])
async def test_a_session_remembers_nothing_and_asks_nobody_else(keeps_connections: bool) -> None:
    made: Any = session(
        (),
        "https",
        lookup=Names().addresses,
        tls=None,
        connect_timeout_s=2,
        connections_per_host_max=3,
        headers={},
        keeps_connections=keeps_connections,
    )
    async with made:
        assert isinstance(made.cookie_jar, aiohttp.DummyCookieJar)
        assert not made.trust_env
        assert not made.auto_decompress
        assert made.connector.limit_per_host == 3
        assert made.connector.force_close is not keeps_connections
