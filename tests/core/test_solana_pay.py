from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, strategies as st
from solders.pubkey import Pubkey

from indexer.core.solana_pay import URL_CHARS_MAX, TransferRequest, encode, parse
from indexer.errors import InvalidInput
from tests import vectors


RECIPIENT = "mvines9iiHiQTysrwkJjGf2gb9Ex9jXJX8ns3qwf2kN"
FIRST = "9aE476sH92Vz7DMPyq5WLPkrKWivxeuTKEFKd2sZZcde"
SECOND = "2jDmYQMRCBnXUQeFRvQABcU6hLcvjVTdG7AoHravxWJX"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
URL = f"solana:{RECIPIENT}"

KEYS = st.binary(min_size=32, max_size=32).map(lambda key: str(Pubkey(key)))
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
REQUESTS = st.builds(
    TransferRequest,
    recipient=KEYS,
    amount=st.none() | st.from_regex(r"(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})?", fullmatch=True),
    spl_token=st.none() | KEYS,
    references=st.lists(KEYS, max_size=4).map(tuple),
    label=TEXTS,
    message=TEXTS,
    memo=TEXTS,
)


def published() -> Any:
    return vectors.load("verify/31_solana_pay_url_vectors.json")


def request_of(case: Any) -> TransferRequest:
    return TransferRequest(
        recipient=case["recipient"],
        amount=case.get("amount"),
        spl_token=case.get("spl_token"),
        references=tuple(case.get("reference") or ()),
        label=case.get("label"),
        message=case.get("message"),
        memo=case.get("memo"),
    )


def test_published_requests_are_encoded_to_the_letter() -> None:
    for case in published()["encode"]:
        assert encode(request_of(case)) == case["url"]


def test_published_urls_are_read_as_published() -> None:
    cases = [*published()["valid_transfer"], *published()["encode"]]
    for case in cases:
        read = parse(case["url"])
        assert "recipient" not in case or read == request_of(case)
        assert encode(read) == case["url"]


def test_published_malformed_urls_are_refused() -> None:
    for case in published()["invalid"]:
        with pytest.raises(InvalidInput):
            parse(case["url"])


def test_published_transaction_requests_are_refused_by_name() -> None:
    for url in published()["valid_transaction_request"]:
        with pytest.raises(InvalidInput, match="transaction request"):
            parse(url)


def test_parameters_stand_in_the_order_of_the_specification() -> None:
    url = encode(
        TransferRequest(
            recipient=RECIPIENT,
            amount="1.5",
            spl_token=USDC,
            references=(FIRST, SECOND),
            label="Shop & Co",
            message="Thanks + bye",
            memo="#7/á?",
        )
    )

    assert url == (
        f"solana:{RECIPIENT}?amount=1.5&spl-token={USDC}&reference={FIRST}&reference={SECOND}"
        "&label=Shop%20%26%20Co&message=Thanks%20%2B%20bye&memo=%237%2F%C3%A1%3F"
    )


@given(REQUESTS)
def test_a_request_survives_its_url(request: TransferRequest) -> None:
    url = encode(request)

    assert url.isascii()
    assert parse(url) == request


@given(REQUESTS)
def test_other_readers_of_urls_see_the_same_parameters(request: TransferRequest) -> None:
    seen = parse_qsl(encode(request).partition("?")[2], strict_parsing=False)

    assert [value for name, value in seen if name == "reference"] == list(request.references)
    assert dict(seen).get("memo") == request.memo


@given(st.text(max_size=80).map("solana:".__add__) | st.text("solana:?&=%+#/ 1A", max_size=80))
def test_garbage_is_refused_and_nothing_else_happens(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(url)
    assert refused.value.field == "url"


@pytest.mark.parametrize("memo", ["two+words", "two%20words", "two%20w%6Frds"])
def test_a_space_may_be_a_plus_or_percent_20(memo: str) -> None:
    assert parse(f"{URL}?memo={memo}").memo == "two words"


def test_references_are_kept_in_order_and_may_repeat() -> None:
    url = f"{URL}?reference={SECOND}&amount=1&reference={FIRST}&reference={SECOND}"

    assert parse(url).references == (SECOND, FIRST, SECOND)


@pytest.mark.parametrize(
    ("url", "amount"),
    [
        (f"{URL}?amount=0", "0"),
        (f"{URL}?amount=00.10", "00.10"),
        (f"{URL}?amount=1.0000000000&spl-token={USDC}", "1.0000000000"),
    ],
)
def test_an_amount_that_the_specification_allows_is_kept_as_written(url: str, amount: str) -> None:
    assert parse(url).amount == amount


@pytest.mark.parametrize(
    "url",
    [
        f"SOLANA:{RECIPIENT}",
        f"{URL}?",
        f"{URL}?&&",
        f"{URL}?label=&message=&memo",
        f"{URL}?redirect=https%3A%2F%2Fshop.example&redirect=%zz",
    ],
)
def test_what_says_nothing_more_than_the_recipient_is_a_request_for_any_amount(url: str) -> None:
    assert parse(url) == TransferRequest(recipient=RECIPIENT)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "character"),
        ("solana:", "recipient"),
        ("solana", "recipient"),
        (RECIPIENT, "begin"),
        (f"ethereum:{RECIPIENT}", "begin"),
        (f"solana://{RECIPIENT}", "recipient"),
        (f"solana:{RECIPIENT}/", "recipient"),
        (f"solana:{RECIPIENT[:-1]}", "recipient"),
        (f"solana:{RECIPIENT}:{RECIPIENT}", "transaction request"),
        ("solana:https://shop.example/pay?amount=1", "transaction request"),
        ("solana:https%3A%2F%2Fshop.example", "transaction request"),
        (f" {URL}", "character"),
        (f"{URL}\n", "character"),
        (f"{URL}?amount=1\x00", "character"),
        (f"{URL}?label=a b", "character"),
        (f"{URL}?label=Café", "character"),
        (f"{URL}?label=\ud800", "character"),
        (f"{URL}?amount=1#&reference={FIRST}", "character"),
        (f"{URL}?amount=", "amount"),
        (f"{URL}?amount", "amount"),
        (f"{URL}?amount=.5", "amount"),
        (f"{URL}?amount=1.", "amount"),
        (f"{URL}?amount=1e3", "amount"),
        (f"{URL}?amount=1_000", "amount"),
        (f"{URL}?amount=%2B1", "amount"),
        (f"{URL}?amount=+1", "amount"),
        (f"{URL}?amount=-1", "amount"),
        (f"{URL}?amount=1%0A", "amount"),
        (f"{URL}?amount=%D9%A1", "amount"),
        (f"{URL}?amount=0.0000000001", "decimals"),
        (f"{URL}?amount=1&amount=1", "more than one amount"),
        (f"{URL}?amount=1&amount=2", "more than one amount"),
        (f"{URL}?spl-token={USDC}&spl-token={USDC}", "more than one spl-token"),
        (f"{URL}?label=a&label=b", "more than one label"),
        (f"{URL}?message=a&message=b", "more than one message"),
        (f"{URL}?memo=a&memo=", "more than one memo"),
        (f"{URL}?spl-token=", "spl-token"),
        (f"{URL}?spl-token=USDC", "spl-token"),
        (f"{URL}?reference=", "reference"),
        (f"{URL}?reference={FIRST},{SECOND}", "reference"),
        (f"{URL}?reference={FIRST}&reference=x", "reference"),
        (f"{URL}?memo=%", "memo"),
        (f"{URL}?memo=%4", "memo"),
        (f"{URL}?memo=%zz", "memo"),
        (f"{URL}?memo=%FF", "UTF-8"),
        (f"{URL}?memo=%ED%A0%80", "UTF-8"),
        (f"{URL}?memo={'a' * URL_CHARS_MAX}", "2048"),
    ],
)
def test_a_malformed_url_is_refused_with_what_is_wrong(url: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        parse(url)
    assert refused.value.field == "url"


@pytest.mark.parametrize(("chars", "fits"), [(2048, True), (2049, False)])
def test_a_url_has_at_most_2048_characters(chars: int, *, fits: bool) -> None:
    memo = "m" * (chars - len(f"{URL}?memo="))
    request = TransferRequest(recipient=RECIPIENT, memo=memo)
    url = f"{URL}?memo={memo}"

    if fits:
        assert parse(encode(request)) == request
        return
    with pytest.raises(InvalidInput, match="shorten"):
        encode(request)
    with pytest.raises(InvalidInput, match="2049"):
        parse(url)
