"""The corners that no setting reaches by itself; the rest is in `test_settings`."""

import pytest

from indexer import parsers


def test_a_list_of_urls_is_distinct_and_in_order() -> None:
    assert parsers.urls("http")("http://b, http://a") == ("http://b", "http://a")


@pytest.mark.parametrize("text", ["", ",", "http://a,", "http://a,http://a", "//a", "http:/a"])
def test_a_list_of_urls_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"item|begin|host"):
        parsers.urls("http")(text)


@pytest.mark.parametrize("text", ["1" * 31, "1" * 45, "l" * 32, "1" * 33])
def test_a_key_has_32_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="base58 of 32 bytes"):
        parsers.key(text)


def test_a_private_key_that_is_pasted_by_mistake_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^this is no Solana key"):
        parsers.key("5" * 88)


@pytest.mark.parametrize("text", ["+1", "1_0", " 1", "1.0", "0x1", "9" * 40])
def test_a_whole_number_is_digits_alone(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        parsers.integer(0, 10**20)(text)


@pytest.mark.parametrize(
    ("host", "shown"), [("::", "[::1]"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("a.b", "a.b")]
)
def test_a_host_is_shown_as_others_reach_it(host: str, shown: str) -> None:
    assert parsers.authority(host) == shown


def test_the_websocket_port_is_the_next_one() -> None:
    assert parsers.ws_url("http://a:65534") == "ws://a:65535"
    with pytest.raises(ValueError, match="AXIOM_WS_URLS"):
        parsers.ws_url("http://a:65535")
