"""Payments by card at the command line: made, shown, listed, exported, canceled, audited."""

import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from indexer.cli.arguments import build_parser
from indexer.errors import InvalidInput, SourceRejected, SourceUnavailable
from indexer.settings import Settings
from store import cards
from store.database import Database, Statement, open_database
from store.migrate import migrate
from tests.cards import card, make_card_payment, make_charge, stored_card
from tests.indexer.cli.commanding import Commanding
from tests.indexer.cli.conftest import Result
from tests.indexer.stage import stage
from tests.servers.fake_paymob import FakePaymob
from tests.servers.faults import hang_up, http


Payments = Callable[..., Awaitable[Result]]


@pytest.fixture
async def fake() -> AsyncIterator[FakePaymob]:
    async with FakePaymob() as fake:
        yield fake


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture
def run(
    fake: FakePaymob, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Payments:
    """Runs `axiompay payments …` with the settings of a shop that takes cards."""
    environment = {
        **fake.environment(),
        "AXIOM_DATABASE_URL": f"sqlite:///{tmp_path}/axiom.db",
        "AXIOM_RPC_URLS": "http://127.0.0.1:9",
    }

    async def run(*arguments: str, **others: str) -> Result:
        settings = Settings.from_env(environment | others, None)
        parsed = build_parser().parse_args(["payments", *arguments])
        capsys.readouterr()
        with capture_logs():
            code: int = await parsed.command.run(parsed, settings)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


async def created(run: Payments, *arguments: str) -> dict[str, Any]:
    result = await run("create", "50", "EGP", "--provider", "paymob", "--json", *arguments)
    payment: dict[str, Any] = json.loads(result.out)
    return payment


async def test_a_payment_is_made_with_its_page(run: Payments, fake: FakePaymob) -> None:
    customer = ("--customer=email=amal@example.com", "--customer=first_name=Amal")

    payment = await created(run, "--order-id=7", "--label=Shop", *customer)

    order = fake.order_at(payment["checkout_url"])
    assert (order.reference, order.amount) == (payment["id"], 5_000)
    assert order.asked["billing_data"]["email"] == "amal@example.com"
    assert (payment["status"], payment["order_id"], payment["url"]) == ("pending", "7", None)
    assert "amal" not in json.dumps(payment).lower()


async def test_a_person_sees_the_page_and_the_charges(run: Payments, database: Database) -> None:
    payment = await created(run)
    record = await card(database, payment["id"])
    order_id = record.orders[0].order_id
    charge = make_charge(7, order_id=order_id, refunded=100)
    await database.write(cards.save(record, record.payment, charges=[charge]))

    result = await run("show", payment["id"])

    lines = dict(line.split(None, 1) for line in result.lines)
    assert lines["checkout_url"] == payment["checkout_url"]
    assert lines["amount"] == "50 EGP"
    assert lines["charge"] == "50 EGP, paid, 1 of it refunded, 7"
    assert lines["provider"] == "paymob"
    assert "recipient" not in lines
    assert "None" not in result.out


async def test_when_the_answer_is_lost_there_is_one_page(run: Payments, fake: FakePaymob) -> None:
    fake.fail("intention", hang_up(), after=True)

    payment = await created(run)

    assert len(fake.orders) == 2
    assert fake.order_at(payment["checkout_url"]).reference == f"{payment['id']}-2"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("0", "EGP", "--provider", "paymob"), "amount"),
        (("1", "USD", "--provider", "paymob"), "token"),
        (("1", "EGP", "--provider", "paymob", "--memo", "x"), "memo"),
        (("1", "EGP", "--provider", "paymob", "--reference", "x"), "reference"),
        (("1", "EGP", "--provider", "paymob", "--recipient", "x"), "recipient"),
        (("1", "EGP", "--provider", "paymob", "--customer", "pan=4"), "--customer"),
        (("1", "EGP", "--provider", "paymob", "--customer", "email=x"), "customer.email"),
        (("1", "SOL", "--customer", "email=a@b"), "--customer"),
    ],
)
async def test_what_the_rules_refuse_is_asked_of_nobody(
    run: Payments, fake: FakePaymob, arguments: tuple[str, ...], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await run("create", *arguments)

    assert refused.value.field == field
    assert fake.calls == []


async def test_without_an_account_there_are_no_cards(
    run: Payments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parsed = build_parser().parse_args(["payments", "create", "1", "EGP", "--provider", "paymob"])
    bare = Settings.from_env({"AXIOM_DATABASE_URL": f"sqlite:///{tmp_path}/axiom.db"}, None)

    with pytest.raises(InvalidInput, match="--provider"):
        await parsed.command.run(parsed, bare)


@pytest.mark.parametrize(("status", "error"), [(503, SourceUnavailable), (401, SourceRejected)])
async def test_what_paymob_does_not_make_is_not_stored(
    run: Payments, fake: FakePaymob, status: int, error: type[Exception]
) -> None:
    fake.fail("intention", http(status), times=9)

    with pytest.raises(error):
        await created(run)

    assert (await run("list")).lines[1:] == []


async def test_both_kinds_are_listed_and_exported(run: Payments, database: Database) -> None:
    payment = await created(run, "--metadata=table=7")
    record = await card(database, payment["id"])
    charges = [make_charge(n, order_id=record.orders[0].order_id) for n in (7, 9)]
    await database.write(cards.save(record, record.payment, charges=charges))

    listed = await run("list", "--json")
    [row] = csv.DictReader(io.StringIO((await run("export")).out))

    assert json.loads(listed.out)["id"] == payment["id"]
    assert (row["id"], row["provider"], row["symbol"]) == (payment["id"], "paymob", "EGP")
    assert (row["recipient"], row["reference"], row["mint"]) == ("", "", "")
    assert (row["charges"], row["metadata"]) == ("7 9", '{"table":"7"}')
    assert "50 EGP" in (await run("list")).out


async def test_it_is_canceled_once_and_only_while_it_is_pending(
    run: Payments, database: Database
) -> None:
    payment = await created(run)
    for _ in range(2):
        result = await run("cancel", payment["id"], "--json")
        assert (json.loads(result.out)["status"], json.loads(result.out)["version"]) == (
            "canceled",
            2,
        )


async def test_an_audit_says_what_payments_by_card_are_reckoned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await stored_card(it.database, make_card_payment(created_at=1))
        run = Commanding(it, tmp_path, capsys)

        result = await run("audit")
        assert result.code == 0
        assert "1 payments by card, reckoned from the charges that are stored" in result.out
        assert json.loads((await run("audit", "--json")).out)["payments_by_card"] == 1

        await it.database.write([Statement("UPDATE payments SET received = '7'")])
        result = await run("audit")
        assert result.code == 1
        assert "payment.received" in result.out
