"""Whose request it is, whatever the caller writes into the headers."""

from ipaddress import ip_network
from typing import Final

import pytest
from hypothesis import given, strategies as st
from starlette.requests import Request

from api.callers import NOBODY, caller_address, full_address
from api.limits import PROXIES_MAX


PROXIES: Final = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1"))
CALLER: Final = "203.0.113.9"


def request(peer: str | None, *forwarded: str | bytes) -> Request:
    """A request as the server hands it on; each text is a header of its own."""
    values = [each if isinstance(each, bytes) else each.encode("latin-1") for each in forwarded]
    return Request(
        {
            "type": "http",
            "client": None if peer is None else (peer, 50_000),
            "headers": [(b"x-forwarded-for", value) for value in values],
        }
    )


#: Who connects, what he sends, who it is.
CASES: Final = {
    "nobody in between": ("203.0.113.9", (), CALLER),
    "a stranger's header": ("203.0.113.9", ("198.51.100.1",), CALLER),
    "one proxy": ("10.0.0.1", (CALLER,), CALLER),
    "one proxy, a forged beginning": ("10.0.0.1", (f"198.51.100.1, 10.0.0.7, {CALLER}",), CALLER),
    "two proxies": ("10.0.0.1", (f"{CALLER}, 10.0.0.2",), CALLER),
    "two headers": ("10.0.0.1", ("198.51.100.1", f"{CALLER}, 10.0.0.2"), CALLER),
    "the second header is the last": ("10.0.0.1", (CALLER, "198.51.100.1"), "198.51.100.1"),
    "no header": ("10.0.0.1", (), "10.0.0.1"),
    "an empty header": ("10.0.0.1", ("",), "10.0.0.1"),
    "only proxies": ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
    "no address": ("10.0.0.1", ("unknown",), "10.0.0.1"),
    "no address in the middle": ("10.0.0.1", (f"{CALLER}, unknown, 10.0.0.2",), "10.0.0.2"),
    "an empty hop": ("10.0.0.1", (f"{CALLER},",), "10.0.0.1"),
    "with a port": ("10.0.0.1", (f"{CALLER}:4711",), CALLER),
    "without spaces": ("10.0.0.1", (f"{CALLER},10.0.0.2",), CALLER),
    "with tabs": ("10.0.0.1", (f"\t{CALLER}\t,\t10.0.0.2 ",), CALLER),
    "leading zeros": ("10.0.0.1", ("203.0.113.009",), "10.0.0.1"),
    "a number": ("10.0.0.1", ("3405803785",), "10.0.0.1"),
    "a host name": ("10.0.0.1", ("example.com",), "10.0.0.1"),
    "bytes": ("10.0.0.1", ("\xff\xfe",), "10.0.0.1"),
    "v4 in v6": ("::ffff:10.0.0.1", (f"::ffff:{CALLER}",), CALLER),
    "v6": ("fd00::1", ("2001:db8:1:2:3:4:5:6",), "2001:db8:1:2::/64"),
    "v6 in brackets": ("fd00::1", ("[2001:db8:1:2:3:4:5:6]",), "2001:db8:1:2::/64"),
    "v6 with a port": ("fd00::1", ("[2001:db8:1:2:3:4:5:6]:443",), "2001:db8:1:2::/64"),
    "v6 of an interface": ("fe80::1%eth0", (), "fe80::/64"),
    "v6 proxies": ("fd00::1", ("2001:db8::1, fd00::2",), "2001:db8::/64"),
    "v6 all by itself": ("2001:db8:1:2:ffff::1", (CALLER,), "2001:db8:1:2::/64"),
    "a socket in the file system": (None, (CALLER,), NOBODY),
    "an empty name": ("", (CALLER,), NOBODY),
}


@pytest.mark.parametrize("case", CASES)
def test_the_caller_is_the_last_hop_that_is_no_proxy_of_ours(case: str) -> None:
    peer, forwarded, caller = CASES[case]

    assert caller_address(request(peer, *forwarded), PROXIES) == caller


def test_without_trusted_proxies_nothing_is_believed() -> None:
    assert caller_address(request("127.0.0.1", CALLER), ()) == "127.0.0.1"


def test_the_record_has_the_whole_address() -> None:
    of_v6 = request("fd00::1", "2001:db8:1:2:3:4:5:6")

    assert full_address(of_v6, PROXIES) == "2001:db8:1:2:3:4:5:6"
    assert full_address(request("fe80::1%eth0"), PROXIES) == "fe80::1"
    assert full_address(request(None), PROXIES) == ""


def test_a_customer_s_whole_network_is_one_caller() -> None:
    callers = {
        caller_address(request(f"2001:db8:1:2::{number:x}"), PROXIES) for number in range(1, 500)
    }

    assert callers == {"2001:db8:1:2::/64"}


def test_it_follows_no_more_proxies_than_anybody_has() -> None:
    chain = [CALLER, *["10.0.0.2"] * (PROXIES_MAX - 1)]

    assert caller_address(request("10.0.0.1", ", ".join(chain)), PROXIES) == CALLER
    longer = ", ".join([*chain, "10.0.0.3"])
    assert caller_address(request("10.0.0.1", longer), PROXIES) == "10.0.0.2"


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_what_a_caller_writes_never_makes_him_another(written: list[bytes]) -> None:
    """The proxy appends whom it was called by; before that stands what the caller likes."""
    given_to_us = [*written[:-1], b"".join([*written[-1:], b", ", CALLER.encode()])]

    assert caller_address(request("10.0.0.1", *given_to_us), PROXIES) == CALLER


@given(st.one_of(st.none(), st.text(max_size=60)), st.lists(st.binary(max_size=300), max_size=3))
def test_whatever_comes_it_is_somebody(peer: str | None, written: list[bytes]) -> None:
    assert caller_address(request(peer, *written), PROXIES)
