"""News of charges is one write, whoever else writes at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from indexer import charging as charging_module
from indexer.charging import Charging, with_news
from indexer.core import events, settle
from indexer.core.types import ChargeState, Status
from indexer.errors import Conflict, InvalidInput, StoreUnavailable
from store import cards, everything, migrate
from store.database import Database, Rows, Statement, open_database
from tests.api.running import Clock
from tests.builders import NOW
from tests.cards import (
    CARD_AMOUNT,
    card,
    due_at,
    make_card_payment,
    make_charge,
    make_news,
    stored_card,
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate.migrate(database)
    yield database
    await database.close()


class Meddler(Database):
    """A database in which somebody else writes right before each write that is told."""

    def __init__(self, database: Database, first: Sequence[Sequence[Statement]]) -> None:
        super().__init__(database._writer, database._readers)
        self.first = list(first)

    async def write(self, batch: Sequence[Statement]) -> list[Rows]:
        if self.first:
            await super().write(self.first.pop(0))
        return await super().write(batch)


def charging(database: Database, woken: list[int] | None = None) -> Charging:
    wake = (lambda: woken.append(1)) if woken is not None else (lambda: None)
    return Charging(database, clock=Clock(NOW + 70), wake=wake)


async def test_who_was_slower_decides_anew_with_what_the_other_has_learned(
    database: Database,
) -> None:
    record = await stored_card(database)
    id_ = record.payment.terms.id
    half = make_charge(1, amount=CARD_AMOUNT // 2)
    first = cards.save(record, record.payment, charges=[half])

    after = await charging(Meddler(database, [first])).learn(
        id_, [make_news(2, amount=CARD_AMOUNT // 2)], NOW + 60
    )

    assert after.payment.state.status is Status.SETTLED, "by both halves"
    assert await card(database, id_) == after


async def test_a_cancellation_that_was_faster_is_seen(database: Database) -> None:
    record = await stored_card(database)
    canceled = settle.cancel(record.payment, NOW + 5)
    change = events.of_change(record.payment, canceled, NOW + 5)
    first = everything.save(record, canceled, events=change, now=NOW + 5)

    after = await charging(Meddler(database, [first])).learn(
        record.payment.terms.id, [make_news()], NOW + 60
    )

    assert after.payment.state.status is Status.CANCELED
    assert after.payment.state.review == ("paid_after_cancel",)


async def test_it_does_not_try_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charging_module, "TRIES_MAX", 3)
    record = await stored_card(database)
    batches = []
    for number in range(9):
        known = replace(record, charges=tuple(make_charge(n + 10) for n in range(number)))
        batches.append(cards.save(known, record.payment, charges=[make_charge(number + 10)]))
    meddler = Meddler(database, batches)

    with pytest.raises(Conflict, match="kept changing"):
        await charging(meddler).learn(record.payment.terms.id, [make_news()], NOW)

    assert len(meddler.first) == 9 - 3
    assert 1 not in {each.id for each in (await card(database, record.payment)).charges}


async def test_many_writers_at_once_come_to_one_state(database: Database) -> None:
    record = await stored_card(database)
    id_ = record.payment.terms.id
    told = [make_news(n, ChargeState.DECLINED) for n in (1, 2, 3)] + [make_news(4)]

    await asyncio.gather(*(charging(database).learn(id_, [news], NOW) for news in told))

    after = await card(database, id_)
    assert len(after.charges) == 4
    assert after.payment.state.status is Status.SETTLED


async def test_what_says_nothing_new_wakes_nobody_and_is_not_written(database: Database) -> None:
    record, woken = await stored_card(database), list[int]()
    id_ = record.payment.terms.id
    for _ in range(3):
        await charging(database, woken).learn(id_, [make_news()], NOW + 60)

    assert len(woken) == 1
    assert (await card(database, id_)).payment.version == 2


async def test_an_answer_sets_the_next_time_also_when_it_says_nothing(database: Database) -> None:
    record, woken = await stored_card(database), list[int]()
    id_ = record.payment.terms.id

    await charging(database, woken).learn(id_, [], NOW + 70, complete_to=NOW + 70)

    assert await due_at(database, id_) == NOW + 180
    assert woken == []


async def test_a_contradiction_changes_nothing(database: Database) -> None:
    record = await stored_card(database)
    id_ = record.payment.terms.id
    await charging(database).learn(id_, [make_news(1, ChargeState.PENDING)], NOW)
    before = await card(database, id_)

    with pytest.raises(InvalidInput, match="amount"):
        await charging(database).learn(id_, [make_news(2), make_news(1, amount=1)], NOW)

    assert await card(database, id_) == before


async def test_a_store_that_does_not_answer_says_so(database: Database) -> None:
    record = await stored_card(database)

    class Broken(Meddler):
        async def write(self, batch: Sequence[Statement]) -> list[Rows]:
            raise StoreUnavailable("disk full")

    with pytest.raises(StoreUnavailable):
        await charging(Broken(database, [])).learn(record.payment.terms.id, [make_news()], NOW)


async def test_nothing_is_told_of_a_payment_that_is_not_there(database: Database) -> None:
    with pytest.raises(Conflict, match="no payment by card"):
        await charging(database).learn("pay_no", [make_news()], NOW)


def test_the_same_charge_told_twice_at_once_is_one() -> None:
    payment = make_card_payment()
    record = cards.CardRecord(payment)
    told = [make_news(1, ChargeState.PENDING), make_news(1)]

    changed, after = with_news(record, told, NOW, complete_to=None)

    assert [each.state for each in changed] == [ChargeState.PAID]
    assert list(after.charges) == changed
