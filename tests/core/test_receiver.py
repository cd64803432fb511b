"""What may be registered as a receiver of events, and what leads into a network of ours."""

from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, strategies as st

from indexer.core.addresses import Networks
from indexer.core.receiver import (
    DESCRIPTION_CHARS_MAX,
    OVERLAP_S_DEFAULT,
    OVERLAP_S_MAX,
    URL_CHARS_MAX,
    check_overlap,
    check_url,
    new_receiver,
)
from indexer.core.types import EventType
from indexer.errors import InvalidInput


LOCAL: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
OFFICE: Networks = (IPv4Network("10.1.0.0/16"),)


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/hooks",
        "https://shop.example:8443/hooks?shop=1&x=%20",
        "HTTPS://Shop.Example/",
        "https://shop.example.",
        "https://xn--bcher-kva.example/",
        "https://a_b.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:444/",
        "https://shop.example/" + "x" * (URL_CHARS_MAX - 21),
        "https://shop.example/a@b",
    ],
)
def test_a_public_https_url_may_be_registered(url: str) -> None:
    check_url(url, ())
    assert new_receiver(url, None, None, private_networks=()).url == url


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("", "1 to 2048 characters"),
        ("https://shop.example/" + "x" * (URL_CHARS_MAX - 20), "1 to 2048 characters"),
        ("shop.example", "must begin with https://"),
        ("//shop.example/", "must begin with https://"),
        ("https:shop.example", "must begin with https://"),
        ("https:/shop.example", "must begin with https://"),
        ("http://shop.example/", "must begin with https://"),
        ("ftp://shop.example/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("javascript:alert(1)//://", "must begin with https://"),
        ("https://", "neither a name nor an address"),
        ("https:///hooks", "neither a name nor an address"),
        ("https://user:secret@shop.example/", "user name"),
        ("https://@shop.example/", "user name"),
        ("https://shop.example/#top", "fragment"),
        ("https://shop.example/#", "fragment"),
        ("https://shop.example /", "ASCII"),
        ("https://shop.example/\n", "ASCII"),
        ("https://sh\top.example/", "ASCII"),
        ("https://bücher.example/", "ASCII"),
        ("https://shop.example\\@10.0.0.1/", "ASCII"),
        ("https://{host}/", "ASCII"),
        ("https://shop.example:x/", "is no URL"),
        ("https://shop.example:65536/", "is no URL"),
        ("https://shop.example:0/", "its port is 0"),
        ("https://shop.example:25/", "its port is 25"),
        ("https://shop.example:6379/", "its port is 6379"),
        ("https://[::1/", "is no URL"),
        ("https://[v1.x]/", "neither a name nor an address"),
        ("https://-a.example/", "neither a name nor an address"),
        ("https://shop..example/", "neither a name nor an address"),
        ("https://shop.example../", "neither a name nor an address"),
        ("https://sh%6fp.example/", "neither a name nor an address"),
        (f"https://{'a' * 64}.example/", "neither a name nor an address"),
        (f"https://{'a.' * 127}example/", "neither a name nor an address"),
        ("https://127.1/", "neither a name nor an address"),
        ("https://0/", "neither a name nor an address"),
        ("https://2130706433/", "neither a name nor an address"),
        ("https://0x7f000001/", "neither a name nor an address"),
        ("https://0177.0.0.1/", "neither a name nor an address"),
        ("https://127.0.0.0x1/", "neither a name nor an address"),
        ("https://localhost/", "this machine"),
        ("https://LOCALHOST:8000/", "this machine"),
        ("https://localhost./", "this machine"),
        ("https://db.localhost/", "this machine"),
        ("https://127.0.0.1/", "not public"),
        ("https://127.0.0.1./", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[::]/", "not public"),
        ("https://0.0.0.0/", "not public"),
        ("https://10.0.0.1/", "not public"),
        ("https://169.254.169.254/latest/meta-data/", "not public"),
        ("https://100.64.0.1/", "not public"),
        ("https://224.0.0.1/", "not public"),
        ("https://255.255.255.255/", "not public"),
        ("https://[fe80::1]/", "not public"),
        ("https://[fe80::1%25eth0]/", "not public"),
        ("https://[fd00::1]/", "not public"),
        ("https://[ff02::1]/", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
        ("https://[::ffff:7f00:1]/", "not public"),
        ("https://[::127.0.0.1]/", "not public"),
        ("https://[64:ff9b::10.0.0.1]/", "not public"),
        ("https://[2002:a00:1::]/", "not public"),
    ],
)
def test_what_leads_to_no_receiver_is_refused(url: str, because: str) -> None:
    with pytest.raises(InvalidInput, match=because) as refused:
        check_url(url, ())

    assert refused.value.field == "url"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/hooks",
        "https://127.0.0.1/",
        "http://localhost:8000/",
        "http://[::1]:8000/",
        "http://receiver:8000/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_a_network_that_is_listed_may_be_reached_also_without_tls(url: str) -> None:
    check_url(url, LOCAL)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://8.8.8.8/", "https://localhost/", "https://127.0.0.1/"]
)
def test_only_what_is_listed_may_be_reached(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url, OFFICE)


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    for url in (text, "https://" + text, "http://[" + text):
        with suppress(InvalidInput):
            check_url(url, LOCAL)


# ------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("given", [None, ()])
def test_no_types_are_all_types(given: tuple[str, ...] | None) -> None:
    receiver = new_receiver("https://a.example", given, None, private_networks=())

    assert receiver.event_types == ()


def test_types_are_kept_once_and_in_order() -> None:
    asked = ["payment.settled", "payment.created", "payment.settled"]

    receiver = new_receiver("https://a.example", asked, "shop", private_networks=())

    assert receiver.event_types == (EventType.CREATED, EventType.SETTLED)
    assert receiver.description == "shop"


@pytest.mark.parametrize(
    ("types", "description", "field"),
    [
        (["payment.paid"], None, "event_types"),
        (["payment.settled", ""], None, "event_types"),
        (["PAYMENT.SETTLED"], None, "event_types"),
        (["x" * 10_000], None, "event_types"),
        (None, "", "description"),
        (None, "two\nlines", "description"),
        (None, "x" * (DESCRIPTION_CHARS_MAX + 1), "description"),
    ],
)
def test_what_is_wrong_is_named(types: list[str] | None, description: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        new_receiver("https://a.example", types, description, private_networks=())

    assert refused.value.field == field
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("given_s", "taken_s"), [(None, OVERLAP_S_DEFAULT), (0, 0), (OVERLAP_S_MAX, OVERLAP_S_MAX)]
)
def test_an_overlap_has_a_default(given_s: int | None, taken_s: int) -> None:
    assert check_overlap(given_s) == taken_s


@pytest.mark.parametrize("given_s", [-1, OVERLAP_S_MAX + 1])
def test_an_overlap_is_bounded(given_s: int) -> None:
    with pytest.raises(InvalidInput, match="overlap_s"):
        check_overlap(given_s)
