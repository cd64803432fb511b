"""Payments made at the command line, on a real store and a real chain."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from solders.keypair import Keypair

from indexer.core.solana_pay import parse
from indexer.demo.surfnet.launcher import Surfnet
from indexer.sources import failover
from tests.indexer.cli.conftest import Result, Run


RECIPIENT = str(Keypair().pubkey())

Payments = Callable[..., Result]


@pytest.fixture
def payments(migrated: Run, surfnet: Surfnet) -> Payments:
    """Runs `axiompay payments …` with a shop's settings."""

    def run(*arguments: str, **settings: str) -> Result:
        shop = {
            "RPC_URLS": surfnet.rpc_url,
            "WS_URLS": surfnet.ws_url,
            "RECIPIENT": RECIPIENT,
            "TOKENS": "SOL",
        }
        return migrated("payments", *arguments, **{**shop, **settings})

    return run


def created(payments: Payments, *arguments: str) -> dict[str, Any]:
    result = payments("create", *(arguments or ("0.25", "SOL")), "--json")
    assert result.code == 0, result.err
    payment: dict[str, Any] = json.loads(result.out)
    return payment


def test_a_payment_is_made_with_all_that_was_asked_for(payments: Payments) -> None:
    other = str(Keypair().pubkey())

    payment = created(
        payments,
        "0.25",
        "SOL",
        "--recipient",
        other,
        "--label=Coffee House",
        "--message=Order 7",
        "--memo=thanks",
        "--order-id=7",
        "--expires-in-s=60",
        "--metadata=table=4=b",
        "--metadata=waiter=ada",
    )

    request = parse(payment["url"])
    assert (payment["status"], payment["amount_base_units"]) == ("pending", "250000000")
    assert payment["recipient"] == request.recipient == other
    assert (request.label, request.message, request.memo) == ("Coffee House", "Order 7", "thanks")
    assert payment["order_id"] == "7"
    assert payment["metadata"] == {"table": "4=b", "waiter": "ada"}
    assert payment["expires_at"] > payment["created_at"]
    assert request.references[0] == payment["reference"]
    assert len(request.references) == 2  # the watch key beside it


def test_all_payments_of_a_deployment_share_the_watch_key(payments: Payments) -> None:
    urls = [created(payments)["url"] for _ in range(2)]

    first, second = (parse(url).references for url in urls)
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_a_person_sees_the_url_whole(payments: Payments) -> None:
    result = payments("create", "0.25", "SOL", "--label", "A quite long label " * 5)

    url = next(line for line in result.lines if line.startswith("url "))
    assert parse(url.split()[1]).amount == "0.25"
    assert "0.25 SOL" in result.out
    assert "warning: the recipient has no account yet" in result.err


def test_a_url_made_elsewhere_brings_its_reference_once(payments: Payments) -> None:
    reference = str(Keypair().pubkey())

    payment = created(payments, "1", "SOL", "--reference", reference)
    again = payments("create", "1", "SOL", "--reference", reference)

    assert parse(payment["url"]).references == (reference,)
    assert again.code == 2
    assert "belongs to another payment" in again.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("0", "SOL"), "amount: is zero"),
        (("1.0000000001", "SOL"), "amount: "),
        (("1", "DOGE"), "token: "),
        (("0.000000001", "SOL"), "amount: "),
        (("1", "SOL", "--recipient", "nobody"), "recipient: "),
        (("1", "SOL", "--expires-in-s", "0"), "expires_in_s: "),
    ],
)
def test_what_the_rules_refuse_is_said_in_a_line(
    payments: Payments, arguments: tuple[str, ...], says: str
) -> None:
    result = payments("create", *arguments)

    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"axiompay: {says}")
    assert result.err.count("\n") == 1


def test_without_the_chain_nothing_is_made(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "ROUNDS_MAX", 2)

    result = payments("create", "1", "SOL", RPC_URLS="http://127.0.0.1:1")

    assert result.code == 1
    assert "http://127.0.0.1:1" in result.err
    assert payments("list", "--json").out == ""


def test_a_payment_is_shown_as_it_was_made(payments: Payments) -> None:
    payment = created(payments, "0.25", "SOL", "--order-id", "7")

    shown = payments("show", payment["id"], "--json")
    for_people = payments("show", payment["id"])

    assert json.loads(shown.out) == payment
    assert payment["id"] in for_people.out
    assert "pending, paid: none" in for_people.out


def test_a_pending_payment_is_canceled_for_good(payments: Payments) -> None:
    payment = created(payments)

    first = payments("cancel", payment["id"], "--json")
    second = payments("cancel", payment["id"], "--json")

    assert (first.code, second.code) == (0, 0)
    assert json.loads(first.out)["status"] == "canceled"
    assert json.loads(first.out) == json.loads(second.out)
    assert json.loads(payments("show", payment["id"], "--json").out)["version"] == 2


@pytest.mark.parametrize("command", ["show", "cancel"])
def test_a_payment_that_is_not_there_is_said(payments: Payments, command: str) -> None:
    result = payments(command, "pay_" + "0" * 26)

    assert result.code == 1
    assert "there is no payment pay_0000" in result.err
