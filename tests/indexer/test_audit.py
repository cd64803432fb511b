"""The audit finds what was changed by hand, and nothing where nothing was."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from indexer import audit as audit_module
from indexer.audit import Audit, Report
from indexer.core.payment import Asset, Payment
from indexer.core.types import TOKEN_PROGRAM, Status
from indexer.errors import SourceUnavailable
from indexer.settlement import settlement
from indexer.sources import endpoint
from indexer.sources.priority import Priority, present
from store.database import Database, Rows, Statement
from tests.chain import (
    BLOCK_TIME,
    ata,
    key,
    sol_transfer,
    system_transfer,
    token_transfer,
    transaction,
)
from tests.indexer.stage import (
    AMOUNT,
    BUYER,
    EXPIRES_AT,
    FINAL_SLOT,
    GRACE_S,
    SHOP,
    WATCH_KEY,
    Stage,
    paying,
    stage,
)
from tests.servers.fake_rpc import http, result


MINT = key("usdc")
USDC = Asset(symbol="USDC", mint=MINT, decimals=6, token_program=TOKEN_PROGRAM)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LOOK_PAUSE_S", 0.0)
    monkeypatch.setattr(endpoint, "FINALIZED_SLOT_KEPT_S", 0.0)


async def audited(it: Stage, since: int = 0) -> Report:
    report = Report(since=since)
    await Audit(it.database, it.rpc, report, clock=it.clock).run()
    return report


def found(report: Report) -> list[tuple[str, object, object]]:
    return [(each.what, each.stored, each.chain) for each in report.differences]


async def tamper(it: Stage, whose: Payment, *statements: str) -> None:
    """Changes rows of a payment (`?1`) by hand, with the guards before them taken away."""
    guards = ("events_are_final", "events_stay", "payments_status_is_legal",
              "payments_terms_are_final", "payments_stay")  # fmt: skip
    await it.database.write([Statement(f"DROP TRIGGER {name}") for name in guards])
    await it.database.write([Statement(sql, (whose.terms.id,)) for sql in statements])


@asynccontextmanager
async def market(folder: Path) -> AsyncIterator[tuple[Stage, dict[str, Payment]]]:
    """Payments that went every way there is, swept to the end."""
    async with stage(folder) as it:
        names = ("exact", "two parts", "over", "late", "too late", "expired", "canceled",
                 "canceled and paid", "doubtful", "left", "right", "dust")  # fmt: skip
        orders = {name: await it.expect(name=name) for name in names}
        orders["token"] = await it.expect(
            name="token", asset=USDC, token_account=ata(SHOP, MINT, TOKEN_PROGRAM)
        )
        orders["open"] = await it.expect(name="open", expires_at=EXPIRES_AT + 100_000)
        for name in ("canceled", "canceled and paid"):
            await it.cancel(orders[name])
        it.pay(orders["exact"])
        it.pay(orders["two parts"], amount=1, slot=990)
        it.pay(orders["two parts"], amount=AMOUNT - 1, slot=991)
        it.pay(orders["over"], amount=AMOUNT + 7, slot=992)
        it.pay(orders["over"], amount=3, slot=993, name="after it was settled")
        it.pay(orders["late"], slot=994, block_time=EXPIRES_AT + 10)
        it.pay(orders["too late"], slot=995, block_time=EXPIRES_AT + GRACE_S + 10)
        it.pay(orders["canceled and paid"], slot=980)
        it.pay(orders["dust"], amount=1, slot=981)
        it.pay(orders["dust"], slot=982, err={"InstructionError": [0, "Custom"]}, name="failed")
        doubtful = paying(
            orders["doubtful"], amount=AMOUNT + 5, slot=983, extra_lamports={SHOP: -5}
        )
        it.chain.add(doubtful)
        it.chain.add(pair(orders["left"], orders["right"]))
        it.chain.add(token(orders["token"]))
        it.chain.block_times[FINAL_SLOT + 1] = EXPIRES_AT + GRACE_S + 20
        it.chain.finalize(FINAL_SLOT + 1)
        await it.sweeper().sweep(WATCH_KEY)
        await it.check(*orders.values())
        await it.sweeper().sweep(WATCH_KEY)
        yield it, orders


def pair(one: Payment, other: Payment) -> dict[str, object]:
    """One transaction that pays two payments."""
    transfers = [
        system_transfer(BUYER, SHOP, each.terms.amount, each.terms.reference, WATCH_KEY)
        for each in (one, other)
    ]
    return transaction(transfers, slot=984, name="pair")


def token(order: Payment) -> dict[str, object]:
    return token_transfer(
        BUYER,
        SHOP,
        order.terms.amount,
        mint=MINT,
        references=[order.terms.reference, WATCH_KEY],
        slot=985,
        name="token",
    )


async def test_where_nothing_was_changed_nothing_differs(tmp_path: Path) -> None:
    async with market(tmp_path) as (it, orders):
        statuses = {name: (await it.record(o)).payment.state.status for name, o in orders.items()}
        report = await audited(it)

        assert found(report) == []
        assert report.behind == []
        assert report.unproven == []
        assert (report.payments, report.transactions) == (len(orders), 12)
        assert [doubt.payment_id for doubt in report.doubtful] == [orders["doubtful"].terms.id]
        sol, usdc = report.books.accounts[None], report.books.accounts[MINT]
        assert sol.credits == sol.legs == sol.moved == 8 * AMOUNT + 7 + 3 + 1
        assert usdc.credits == usdc.legs == usdc.moved == AMOUNT
        assert report.is_clean
        assert report.finalized_slot == FINAL_SLOT + 1
        assert set(statuses.values()) == {
            Status.SETTLED, Status.EXPIRED, Status.CANCELED, Status.PENDING, Status.PROCESSING,
        }  # fmt: skip


#: What was changed, whose it was, and what the audit says of it.
CHANGES = [
    (
        "UPDATE payments SET status = 'expired', settled_at = NULL WHERE id = ?1",
        "exact",
        {"payment.status", "payment.settled_at"},
    ),
    ("UPDATE payments SET paid = 'over' WHERE id = ?1", "exact", {"payment.paid"}),
    ("UPDATE payments SET late = 1 WHERE id = ?1", "exact", {"payment.late"}),
    ("UPDATE payments SET review = '[\"debited\"]' WHERE id = ?1", "exact", {"payment.review"}),
    ("UPDATE payments SET received = '4999999' WHERE id = ?1", "exact", {"payment.received"}),
    (
        "UPDATE payments SET settled_at = settled_at + 1 WHERE id = ?1",
        "exact",
        {"payment.settled_at"},
    ),
    (
        "UPDATE payments SET status = 'settled', settled_at = 1, canceled_at = NULL WHERE id = ?1",
        "canceled",
        {"payment.status"},
    ),
    (
        "UPDATE payments SET status = 'settled', settled_at = 1 WHERE id = ?1",
        "doubtful",
        {"payment.status"},
    ),
    ("UPDATE payments SET status = 'pending' WHERE id = ?1", "expired", {"payment.status"}),
    ("UPDATE payments SET status = 'expired' WHERE id = ?1", "open", {"payment.status"}),
    ("UPDATE payments SET amount = '1' WHERE id = ?1", "open", {"payment.amount"}),
    (
        "UPDATE payments SET expires_at = expires_at - 1 WHERE id = ?1",
        "open",
        {"payment.expires_at"},
    ),
    ("UPDATE payments SET version = version + 1 WHERE id = ?1", "exact", {"event"}),
]


@pytest.mark.parametrize(("change", "name", "whats"), CHANGES, ids=[each[0] for each in CHANGES])
async def test_a_payment_that_was_changed_is_found(
    tmp_path: Path, change: str, name: str, whats: set[str]
) -> None:
    async with market(tmp_path) as (it, orders):
        id_ = orders[name].terms.id
        await tamper(it, orders[name], change)

        report = await audited(it)

        assert whats <= {each.what for each in report.differences}
        assert {each.payment_id for each in report.differences} == {id_}
        assert not report.is_clean


ROWS = [
    (
        "UPDATE verdicts SET credit = '5000001' WHERE payment_id = ?1",
        "exact",
        {"verdict.credit", "books"},
    ),
    ("UPDATE verdicts SET clean = 0 WHERE payment_id = ?1", "exact", {"verdict.clean"}),
    ("UPDATE verdicts SET clean = 1 WHERE payment_id = ?1", "doubtful", {"verdict.clean", "books"}),
    (
        "UPDATE verdicts SET reasons = '[\"debited\"]' WHERE payment_id = ?1",
        "exact",
        {"verdict.reasons"},
    ),
    ("UPDATE verdicts SET slot = slot - 1 WHERE payment_id = ?1", "exact", {"verdict.slot"}),
    (
        "UPDATE verdicts SET block_time = block_time - 1 WHERE payment_id = ?1",
        "exact",
        {"verdict.block_time"},
    ),
    (
        "UPDATE verdicts SET transaction_index = 9 WHERE payment_id = ?1",
        "exact",
        {"verdict.transaction_index"},
    ),
    (
        "UPDATE verdicts SET evidence = json_set(evidence, '$.delta', 1) WHERE payment_id = ?1",
        "exact",
        {"verdict.evidence"},
    ),
    (
        "UPDATE transfers SET net = '4999999' WHERE payment_id = ?1",
        "exact",
        {"transfer.net", "books"},
    ),
    ("UPDATE transfers SET amount = '9' WHERE payment_id = ?1", "exact", {"transfer.amount"}),
    ("UPDATE transfers SET source = 'thief' WHERE payment_id = ?1", "token", {"transfer.source"}),
    (
        "UPDATE transfers SET destination = 'thief' WHERE payment_id = ?1",
        "token",
        {"transfer.destination"},
    ),
    ("UPDATE transfers SET outer_index = 5 WHERE payment_id = ?1", "exact", {"transfer"}),
]


@pytest.mark.parametrize(("change", "name", "whats"), ROWS, ids=[each[0] for each in ROWS])
async def test_a_verdict_or_leg_that_was_changed_is_found(
    tmp_path: Path, change: str, name: str, whats: set[str]
) -> None:
    async with market(tmp_path) as (it, orders):
        id_ = orders[name].terms.id
        await tamper(it, orders[name], change)

        report = await audited(it)

        assert whats <= {each.what for each in report.differences}
        assert {each.payment_id for each in report.differences} == {id_}


async def test_a_verdict_that_was_taken_away_is_found(tmp_path: Path) -> None:
    async with market(tmp_path) as (it, orders):
        await tamper(
            it,
            orders["exact"],
            "DELETE FROM transfers WHERE payment_id = ?1",
            "DELETE FROM verdicts WHERE payment_id = ?1",
        )

        report = await audited(it)

        (missing,) = report.differences
        assert (missing.what, missing.stored) == ("verdict", None)
        assert missing.chain["credit"] == str(AMOUNT)


async def test_a_forged_payment_is_found(tmp_path: Path) -> None:
    async with market(tmp_path) as (it, orders):
        await tamper(
            it,
            orders["open"],
            """
            INSERT INTO verdicts (signature, payment_id, slot, block_time, credit, clean, reasons,
                evidence)
            VALUES ('forged', ?1, 990, 1790000000, '5000000', 1, '[]',
                '{"bound":5000000,"debited":0,"delta":5000000,"other_inflow":0,"fee_lamports":0}')
            """,
            """
            UPDATE payments SET status = 'settled', paid = 'exact', version = version + 1,
                received = '5000000', settled_at = 1790000000
            WHERE id = ?1
            """,
        )

        report = await audited(it)

        by_what = {each.what: (each.stored, each.chain) for each in report.differences}
        assert by_what["payment.status"] == ("settled", "pending")
        assert by_what["verdict"][1] is None
        assert by_what["event"][1] == ["payment.settled"]


async def test_another_ones_money_is_found(tmp_path: Path) -> None:
    """A verdict on a transaction that exists, but pays somebody else."""
    async with market(tmp_path) as (it, orders):
        thief, victim = orders["open"].terms.id, orders["exact"].terms.id
        await it.database.write(
            [
                Statement(
                    "INSERT INTO verdicts SELECT signature, ?, slot, transaction_index, block_time,"
                    " credit, clean, reasons, evidence FROM verdicts WHERE payment_id = ?",
                    (thief, victim),
                )
            ]
        )

        report = await audited(it)

        assert ("verdict", None) in {(each.what, each.chain) for each in report.differences}
        assert thief in {each.payment_id for each in report.differences}


async def test_an_event_that_is_missing_is_found(tmp_path: Path) -> None:
    async with market(tmp_path) as (it, orders):
        id_ = orders["exact"].terms.id
        settled = "DELETE FROM events WHERE payment_id = ?1 AND type = 'payment.settled'"
        await tamper(it, orders["exact"], settled)
        report = await audited(it)

        assert {(each.payment_id, each.what) for each in report.differences} >= {
            ("", "event"),
            (id_, "event"),
        }


async def test_the_last_event_of_all_cannot_be_taken_away_unseen(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await tamper(it, await it.expect(), "DELETE FROM events WHERE payment_id = ?1")

        report = await audited(it)

        assert ("event", None, "an event") in found(report)


async def test_what_the_store_has_not_come_to_is_behind_and_no_drift(tmp_path: Path) -> None:
    async with market(tmp_path) as (it, orders):
        it.pay(orders["open"], slot=FINAL_SLOT + 2, block_time=EXPIRES_AT + GRACE_S + 21)
        it.chain.finalize(FINAL_SLOT + 2)

        report = await audited(it)

        assert found(report) == []
        (remark,) = report.behind
        assert remark.payment_id == orders["open"].terms.id
        assert "has not come to slot" in remark.why
        assert report.is_clean


async def test_what_was_set_aside_is_behind(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        found_ = it.pay(order)
        it.node.hidden.add(found_.signature)
        await it.settle(found_)
        it.node.hidden.clear()
        await it.advance(FINAL_SLOT, BLOCK_TIME)

        report = await audited(it)

        assert [remark.why for remark in report.behind] == ["set aside: not_found"]
        assert report.is_clean


async def test_what_the_frontier_passed_and_nobody_stored_is_drift(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.pay(await it.expect())
        await it.advance(FINAL_SLOT, BLOCK_TIME)

        report = await audited(it)

        assert ("verdict", None) in {(each.what, each.stored) for each in report.differences}


async def test_an_open_payment_whose_time_has_passed_is_behind(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1

        report = await audited(it)

        assert [remark.why for remark in report.behind] == ["it has not been expired yet"]
        assert report.is_clean


@pytest.mark.parametrize(("chain_time", "is_right"), [(EXPIRES_AT, False), (EXPIRES_AT + 1, True)])
async def test_a_payment_that_expired_before_its_time_is_found(
    tmp_path: Path, chain_time: int, is_right: bool
) -> None:
    """Its event is there and its row agrees: only the chain's time says otherwise."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        record = await it.record(order)
        await it.database.write(settlement(record, now=BLOCK_TIME, complete_to=EXPIRES_AT + 1))
        it.chain.block_times[FINAL_SLOT] = chain_time

        report = await audited(it)

        expected = [] if is_right else [("payment.status", "expired", "pending")]
        assert found(report) == expected


async def test_a_difference_that_is_gone_at_the_next_look_was_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon wrote while the audit read."""
    async with stage(tmp_path) as it:
        found_ = it.pay(await it.expect())
        await it.advance(FINAL_SLOT, BLOCK_TIME)
        looks = 0
        look = Audit._look

        async def look_and_write(self: Audit, ids: Sequence[str]) -> object:
            nonlocal looks
            looks += 1
            opinions = await look(self, ids)
            await it.settle(found_)
            return opinions

        monkeypatch.setattr(Audit, "_look", look_and_write)
        report = await audited(it)

        assert looks == 2
        assert found(report) == []
        assert report.transactions == 1


async def test_a_chain_that_cannot_be_reached_is_no_proof(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        it.node.fail("getSignaturesForAddress", http(404), times=None)
        report = Report(since=0)

        with pytest.raises(SourceUnavailable):
            await Audit(it.database, it.rpc, report, clock=it.clock).run()

        assert report.payments == 0


async def test_a_transaction_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        one, other = await it.expect(name="one"), await it.expect(name="other")
        await it.settle(it.pay(one))
        it.node.fail("getTransaction", result(7), times=None)

        report = await audited(it)

        assert found(report) == []
        assert [remark.payment_id for remark in report.unproven] == [one.terms.id]
        assert other.terms.id not in {remark.payment_id for remark in report.unproven}
        assert not report.is_clean


async def test_what_no_endpoint_keeps_is_not_told(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.settle(it.pay(await it.expect()))
        it.node.first_available = FINAL_SLOT + 1
        it.chain.block_times[FINAL_SLOT + 1] = BLOCK_TIME + 50
        it.chain.finalize(FINAL_SLOT + 2)

        report = await audited(it)

        assert report.differences == []
        assert [remark.why for remark in report.unproven][-1].startswith("no endpoint keeps")
        assert not report.is_clean


async def test_a_leg_belongs_to_whom_it_was_given_first(tmp_path: Path) -> None:
    """A payment that was created later names a reference of a transaction of long ago."""
    async with stage(tmp_path) as it:
        first = await it.expect(name="first", watch_key=None)
        landed = sol_transfer(
            BUYER,
            SHOP,
            AMOUNT,
            references=[key("reference of second"), first.terms.reference],
            slot=FINAL_SLOT,
        )
        it.chain.add(landed)
        await it.settle(it.found(landed))
        second = await it.expect(name="second", watch_key=None, created_at=BLOCK_TIME + 5)
        await it.settle(it.found(landed))
        it.clock.now += 10
        assert (await it.record(first)).payment.state.status is Status.SETTLED
        assert (await it.record(second)).payment.state.received == 0

        report = await audited(it)

        assert found(report) == []
        assert report.transactions == 1
        assert report.books.accounts[None].moved == AMOUNT


async def test_only_the_period_is_looked_at(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        old = await it.expect(name="old")
        await it.expect(name="new", created_at=BLOCK_TIME)
        await tamper(it, old, "UPDATE payments SET late = 1 WHERE id = ?1")

        assert (await audited(it, since=BLOCK_TIME)).payments == 1
        assert (await audited(it, since=BLOCK_TIME)).is_clean
        assert not (await audited(it, since=BLOCK_TIME - 100)).is_clean


async def test_with_a_quorum_a_lie_of_one_is_no_drift(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=3, quorum=2) as it:
        found_ = it.pay(await it.expect())
        await it.settle(found_)
        it.nodes[0].lies[found_.signature] = lambda landed: landed["meta"].update(fee=1)
        it.nodes[1].hidden.add(found_.signature)

        report = await audited(it)

        assert found(report) == []


async def test_everybody_else_goes_first(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        seen: set[tuple[str, Priority]] = set()
        call = it.rpc.endpoints[0].call

        async def listening(method: str, params: Sequence[object]) -> bytes:
            seen.add((method, present()))
            return await call(method, params)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(it.rpc.endpoints[0], "call", listening)
            await audited(it)

        # What is finalized is asked for everybody, and so at once.
        assert {priority for method, priority in seen if method != "getSlot"} == {Priority.REPLAY}
        assert ("getSignaturesForAddress", Priority.REPLAY) in seen


async def test_many_payments_are_reckoned_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "PAYMENTS_AT_ONCE", 3)
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"order {n}") for n in range(7)]
        await it.settle(*(it.pay(order, name=f"tx {n}") for n, order in enumerate(orders)))
        told: list[tuple[int, int]] = []
        report = Report(since=0)

        await Audit(
            it.database,
            it.rpc,
            report,
            clock=it.clock,
            progress=lambda done, total: told.append((done, total)),
        ).run()

        assert told == [(0, 7), (3, 7), (6, 7), (7, 7)]
        assert (report.payments, report.transactions) == (7, 7)
        assert report.is_clean


async def test_it_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with market(tmp_path) as (it, _):

        async def refuse(_self: Database, batch: Sequence[Statement]) -> list[Rows]:
            raise AssertionError(batch)

        monkeypatch.setattr(Database, "write", refuse)
        assert (await audited(it)).is_clean
        await asyncio.sleep(0)
