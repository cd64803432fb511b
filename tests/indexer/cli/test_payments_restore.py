"""What others kept of a payment makes it again, or a sentence that says why not."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.chain import Accounts
from indexer.cli import payments_restore
from indexer.cli.command import CommandFailed
from indexer.core.account import Account
from indexer.core.creation import Policy, solana_pay_url
from indexer.core.events import public_state
from indexer.core.payment import Payment
from indexer.errors import InvalidInput, StoreError
from store import payments, restoring, watch_keys
from store.database import Statement, open_database
from store.migrate import migrate
from tests.builders import GRACE_S, NOW, WATCH_KEY, make_payment
from tests.indexer.cli.commanding import Commanding
from tests.indexer.cli.conftest import Result
from tests.indexer.stage import Stage, stage
from tests.instructions import key


Restore = Callable[..., Awaitable[Result]]

LOST = make_payment(amount=5_000_000, order_id="order 7", metadata={"n": "1"}, memo="thanks")
POLICY = Policy(
    recipient=None, tokens={"SOL": None}, expires_in_s=60, grace_s=GRACE_S, watch_key=key("now")
)


class Chain:
    """On which no address has an account."""

    async def account(self, key: str) -> Account | None:
        return None

    async def rent_exempt_minimum(self) -> int:
        return 890_880


def kept(lost: Payment = LOST, **changes: Any) -> dict[str, Any]:
    """What the API answered when it was created."""
    body = public_state(lost) | {"url": solana_pay_url(lost), "transfers": [], "checkout_url": None}
    return body | {"order_id": lost.order_id, "metadata": dict(lost.metadata)} | changes


def hook(lost: Payment = LOST) -> dict[str, Any]:
    """What its receiver was sent."""
    return {"type": "payment.created", "data": {"payment": public_state(lost)}}


async def read(body: object) -> Any:
    accounts = Accounts(Chain(), (), lambda: 0.0)
    text = body if isinstance(body, str) else json.dumps(body)
    return await payments_restore.read(text, POLICY, accounts, now=NOW + 10)


async def test_it_is_the_same_payment_to_the_letter() -> None:
    assert await read(kept()) == LOST


async def test_a_webhook_that_a_receiver_kept_has_all_but_the_merchants_own_notes() -> None:
    state = public_state(LOST)
    hook = {"type": "payment.created", "timestamp": "t", "data": {"payment": state}}
    for body in (hook, {"type": "payment.created", "data": state}):
        payment = await read(body)
        assert payment.terms.reference == LOST.terms.reference
        assert (payment.terms.watch_key, payment.order_id) == (None, None)


async def test_late_money_has_as_much_time_as_is_configured_now() -> None:
    """No body says how much it was."""
    accounts, policy = Accounts(Chain(), (), lambda: 0.0), replace(POLICY, grace_s=GRACE_S + 7)
    payment = await payments_restore.read(json.dumps(kept()), policy, accounts, now=NOW)

    assert payment == replace(LOST, terms=replace(LOST.terms, grace_s=GRACE_S + 7))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "pay_1"},
        {"id": None},
        {"id": "pay_" + "A" * 26},
        {"provider": "paymob"},
        {"status": "canceled"},
        {"amount": "-1"},
        {"amount": "0.1"},
        {"amount": 0.005},
        {"amount_base_units": "5000001"},
        {"token": {"symbol": "USDC", "mint": key("usdc"), "decimals": 6}},
        {"recipient": None},
        {"recipient": "me"},
        {"reference": None},
        {"reference": LOST.terms.recipient},
        {"reference": key("another")},
        {"created_at": "2026-11-22"},
        {"created_at": "2026-11-22T20:00:00"},
        {"created_at": "2030-01-01T00:00:00Z"},
        {"expires_at": "2026-11-22T19:00:00Z"},
        {"expires_at": "2036-11-22T19:00:00Z"},
        {"url": "solana:x?reference=y"},
        {"url": solana_pay_url(LOST) + f"&reference={key('third')}"},
        {"url": solana_pay_url(LOST).replace(WATCH_KEY, LOST.terms.recipient)},
        {"url": "http://[::1"},
        {"metadata": {"n": 1}},
        {"label": "x" * 10_000},
    ],
    ids=lambda changes: " ".join(f"{k}={v}"[:30] for k, v in changes.items()),
)
async def test_what_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await read(kept(**changes))


@pytest.mark.parametrize("text", ["", "x", "[]", "null", "{}", '{"data": 1}', "[" * 9_000])
async def test_what_is_no_payment_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        await read(text)


async def test_it_is_put_back_once_and_its_watch_key_is_watched(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    payment = await read(kept())
    assert await restoring.look(database, payment) == restoring.Known()

    await restoring.put_back(database, [payment], now=NOW)

    assert await restoring.look(database, payment) == restoring.Known(is_there=True)
    [known] = await watch_keys.listing(database)
    assert (known.key, known.retired_at) == (WATCH_KEY, NOW)
    record = await payments.get(database, payment.terms.id)
    assert record is not None
    assert record.payment == payment
    other = make_payment(2, amount=5_000_000)
    twin = make_payment(1, amount=6_000_000)
    assert await restoring.look(database, other) == restoring.Known()
    assert "another amount" in str((await restoring.look(database, twin)).contradiction)
    await database.close()


# ------------------------------------------------------------------------------- as it is typed


@pytest.fixture
async def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(payments_restore, "clock", lambda: NOW + 10)
    async with stage(tmp_path) as it:
        yield it


@pytest.fixture
def restore(it: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Restore:
    """Runs `axiompay payments restore` on a file of these lines."""
    commanding = Commanding(it, tmp_path, capsys)

    async def restore(lines: Sequence[object], *arguments: str) -> Result:
        path = tmp_path / "kept.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        try:
            return await commanding("payments", "restore", str(path), *arguments)
        except CommandFailed as error:
            return Result(1, str(error), capsys.readouterr().err)

    return restore


async def ids_in(it: Stage) -> list[str]:
    return [str(id_) for (id_,) in sorted(await it.table("payments", "id"))]


async def test_lines_that_contradict_each_other_or_the_store_are_told_and_nothing_is_changed(
    it: Stage, restore: Restore
) -> None:
    there, good, other, third = (make_payment(n, amount=5_000_000) for n in (1, 2, 3, 4))
    await it.put(there)
    twin = replace(third, terms=replace(third.terms, reference=good.terms.reference))
    taken = replace(third, terms=replace(third.terms, reference=there.terms.reference))
    changed = replace(there, terms=replace(there.terms, amount=6_000_000))
    second_tale = replace(other, terms=replace(other.terms, expires_at=NOW + 100))
    lines = [kept(each) for each in (there, good, other, second_tale, twin, taken, changed, good)]

    result = await restore(lines)

    assert (result.code, result.out) == (1, "4 lines cannot be used: nothing was changed")
    told = (line.removeprefix("axiompay: line ") for line in result.err.splitlines())
    said = dict(line.split(": ", 1) for line in told)
    assert said.keys() == {"4", "5", "6", "7"}
    assert "an earlier line tells it otherwise" in said["4"]
    assert "an earlier line has its reference" in said["5"]
    assert f"its reference is that of {there.terms.id}" in said["6"]
    assert "another amount" in said["7"]
    assert await ids_in(it) == [there.terms.id]

    result = await restore(lines, "--skip-bad")

    assert (result.code, result.out) == (1, "2 payments put back, 1 were there, 4 lines left out\n")
    assert await ids_in(it) == sorted(each.terms.id for each in (there, good, other))
    assert (await it.record(other)).payment == other


@pytest.mark.parametrize("bodies", [(kept(), hook()), (hook(), kept())], ids=["first", "last"])
async def test_of_several_lines_of_one_payment_the_one_that_tells_most_is_taken(
    it: Stage, restore: Restore, bodies: tuple[object, ...]
) -> None:
    result = await restore(bodies)

    assert (result.code, result.out) == (0, "1 payments put back, 0 were there, 0 lines left out\n")
    assert (await it.record(LOST)).payment == LOST


async def test_many_are_put_back_in_several_writes_and_one_that_breaks_off_is_done_again(
    it: Stage, restore: Restore
) -> None:
    """The write that breaks off leaves nothing of its own; those before stay."""
    lost = [make_payment(n, amount=5_000_000) for n in range(2 * restoring.AT_ONCE + 10)]
    lines, broken = [kept(each) for each in lost], lost[restoring.AT_ONCE + 50].terms.id
    fails = f"CREATE TRIGGER breaks BEFORE INSERT ON payments WHEN NEW.id = '{broken}'"
    stop = f"{fails} BEGIN SELECT RAISE(ABORT, 'the power is cut'); END"
    await it.database.write([Statement(stop)])

    with pytest.raises(StoreError, match="the power is cut"):
        await restore(lines)
    assert await ids_in(it) == sorted(each.terms.id for each in lost[: restoring.AT_ONCE])
    assert len(await it.table("events")) == restoring.AT_ONCE
    await it.database.write([Statement("DROP TRIGGER breaks")])
    result = await restore(lines)

    assert result.out == "210 payments put back, 200 were there, 0 lines left out\n"
    assert await ids_in(it) == sorted(each.terms.id for each in lost)
    for each in (lost[0], lost[-1]):
        assert (await it.record(each)).payment == each
    created = await it.table("events", "payment_id, type, version")
    assert sorted(created) == sorted((each.terms.id, "payment.created", 1) for each in lost)
    assert (await restore(lines)).out.startswith("0 payments put back, 410 were there")
