"""An offer is made whole or not at all, and taken back only while nobody has begun to pay."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from api import offers
from api.limits import CANCEL_TRIES_MAX
from indexer.core import events
from indexer.core.ids import PAYMENT_ID
from indexer.core.payment import AnyPayment
from indexer.core.types import Status
from indexer.errors import Conflict
from store import everything, payments
from store.database import Database, Rows, Statement, open_database
from store.migrate import migrate
from tests.builders import NOW, make_payment
from tests.cards import make_card_payment
from tests.store.keeping import create


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


def clock() -> float:
    return NOW + 5.5


def test_no_two_payments_have_one_id() -> None:
    drawn = {offers.fresh_id() for _ in range(100)}

    assert len(drawn) == 100
    assert all(PAYMENT_ID.fullmatch(id_) for id_ in drawn)


@pytest.mark.parametrize("payment", [make_payment(), make_card_payment()], ids=["chain", "card"])
async def test_a_pending_offer_of_either_kind_is_taken_back_once(
    database: Database, payment: AnyPayment
) -> None:
    id_ = payment.terms.id
    await database.write(payments.insert(payment, events.created(payment, NOW)))

    first = await offers.take_back(database, id_, clock=clock)
    second = await offers.take_back(database, id_, clock=clock)

    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == (True, False)
    assert first[0] == second[0] == await everything.get(database, id_)
    assert first[0].payment.state.status is Status.CANCELED
    assert first[0].payment.state.canceled_at == NOW + 5


async def test_what_is_being_paid_is_not_taken_back(database: Database) -> None:
    payment = make_payment(status=Status.PROCESSING)
    await create(database, payment)

    taken_back = await offers.take_back(database, payment.terms.id, clock=clock)

    assert taken_back is not None
    assert taken_back[1] is False
    assert taken_back[0].payment == payment


async def test_what_is_not_there_is_not_taken_back(database: Database) -> None:
    assert await offers.take_back(database, "pay_" + "0" * 26, clock=clock) is None


@pytest.mark.parametrize("losses", [1, CANCEL_TRIES_MAX - 1, CANCEL_TRIES_MAX])
async def test_who_loses_against_other_writers_decides_anew_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    payment = make_payment()
    await create(database, payment)
    write, left = database.write, iter(range(losses))

    async def lose_first(batch: Sequence[Statement]) -> list[Rows]:
        if next(left, None) is not None:
            raise Conflict("somebody was faster")
        return await write(batch)

    monkeypatch.setattr(database, "write", lose_first)
    if losses < CANCEL_TRIES_MAX:
        assert await offers.take_back(database, payment.terms.id, clock=clock) is not None
        return
    with pytest.raises(Conflict, match="kept changing"):
        await offers.take_back(database, payment.terms.id, clock=clock)
