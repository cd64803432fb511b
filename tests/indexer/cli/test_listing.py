import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from solders.keypair import Keypair

from indexer.core import creation, events, ids
from indexer.core.creation import NewPayment, Policy
from indexer.core.payment import Payment
from store import payments
from store.database import open_database
from tests.indexer.cli.conftest import Run


COUNT = 1_203  # more than two pages
WATCH_KEY = str(Keypair().pubkey())


def payment(number: int) -> Payment:
    recipient = str(Keypair().pubkey())
    request = NewPayment(
        amount=f"1.{number + 1}",
        token="SOL",
        order_id=f"order {number % 3}",
        label='He said "buy", =1+1',
        metadata={"n": str(number)},
    )
    policy = Policy(
        recipient=recipient, tokens={"SOL": None}, expires_in_s=60, grace_s=0, watch_key=WATCH_KEY
    )
    made, _ = creation.create(
        request,
        policy,
        {recipient: None},
        rent_exempt_minimum=1,
        id=ids.payment_id(number.to_bytes(16)),
        fresh_reference=creation.reference((number + 1).to_bytes(32)),
        now=1_790_000_000 + number // 10,
    )
    return made


@pytest.fixture
def filled(migrated: Run, tmp_path: Path) -> Run:
    async def fill() -> None:
        database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
        made = [payment(number) for number in range(COUNT)]
        await database.write(
            [s for p in made for s in payments.insert(p, events.created(p, p.terms.created_at))]
        )
        await database.close()

    asyncio.run(fill())
    return migrated


def test_an_export_holds_every_payment_once_the_newest_first(filled: Run) -> None:
    result = filled("payments", "export")

    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert result.code == 0
    assert len(rows) == len({row["id"] for row in rows}) == COUNT
    keys = [(row["created_at"], row["id"]) for row in rows]
    assert keys == sorted(keys, reverse=True)
    newest = rows[0]
    assert newest["id"] == payment(COUNT - 1).terms.id
    assert newest["amount"] == "1.1203"
    assert newest["label"] == 'He said "buy", =1+1'
    assert json.loads(newest["metadata"]) == {"n": str(COUNT - 1)}
    assert (newest["late"], newest["settled_at"], newest["signatures"]) == ("false", "", "")


def test_an_export_to_a_file_prints_nothing_and_leaves_nothing_else(
    filled: Run, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())

    result = filled("payments", "export", "--output", "payments.csv")

    assert (result.code, result.out, result.err) == (0, "", "")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "payments.csv"}
    with (tmp_path / "payments.csv").open(newline="") as stream:
        assert sum(1 for _ in csv.reader(stream)) == COUNT + 1


def test_an_export_that_fails_leaves_the_file_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "payments.csv").write_text("old")

    result = run("payments", "export", "--output", "payments.csv")

    assert result.code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["payments.csv"]
    assert (tmp_path / "payments.csv").read_text() == "old"


def test_a_folder_that_is_not_there_is_said(filled: Run) -> None:
    result = filled("payments", "export", "--output", "no/where.csv")

    assert result.code == 1
    assert result.err == "axiompay: cannot write no/where.csv: No such file or directory\n"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 20),
        (("--limit", "1100"), 1_100),
        (("--limit", "100000"), COUNT),
        (("--order-id", "order 1", "--limit", "9999"), 401),
        (("--status", "settled"), 0),
        (("--reference", payment(7).terms.reference), 1),
        (("--created-after", "2026-09-21T14:15:17Z", "--limit", "9999"), 23),
    ],
)
def test_filters_and_limits_hold(filled: Run, filters: tuple[str, ...], count: int) -> None:
    result = filled("payments", "list", "--json", *filters)

    assert result.code == 0
    assert len(result.lines) == count
    assert all(json.loads(line)["id"].startswith("pay_") for line in result.lines)


def test_a_table_has_heads_and_a_line_for_each(filled: Run) -> None:
    result = filled("payments", "list", "--limit", "3")

    assert result.lines[0].split()[:4] == ["created_at", "id", "status", "paid"]
    assert len(result.lines) == 4
    assert "1.1203 SOL" in result.lines[1]
