"""A charge: one transaction at the card acquirer, as far as it was told of.

News of a charge comes by callbacks and by inquiries: late, twice, in any order, or not at all.
`learned` adds one piece of news to what is known. It never goes back: of two states the further
one counts, of two refunded amounts the larger one, of two times of being paid the earlier one.
So the same news lead to the same charge, in whatever order they come and however often.

    pending ──► declined ──► authorized ──► paid ──► refunded ──► voided

is the order in which one counts for more than another, not a way that a charge goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from indexer.core.types import ChargeState
from indexer.errors import InvalidInput, InvariantError


#: How much a state says: whatever else was told, the one that says most is the true one.
_RANK: Final[Mapping[ChargeState, int]] = {
    ChargeState.PENDING: 0,
    # Says less than `authorized` and `paid`: that the money came is told by nobody but the
    # acquirer, after the fact.
    ChargeState.DECLINED: 1,
    ChargeState.AUTHORIZED: 2,
    ChargeState.PAID: 3,
    ChargeState.REFUNDED: 4,
    ChargeState.VOIDED: 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeNews:
    """What one callback, or one answer to an inquiry, says of a charge.

    Attributes:
        id: the acquirer's number of the transaction.
        order_id: the acquirer's number of the order.
        amount: minor units of the currency.
        currency: such as `EGP`.
        made_at: when the transaction was made, as the acquirer writes it: local time, mostly
            without a zone. For people, never for decisions.
        state: `refunded` only when all of it went back.
        was_paid: the charge has been paid at some time, whatever became of it.
        refunded: minor units that went back to the customer so far.
        needs_inquiry: what happened is not signed: the order is to be inquired about, and this
            is no news of a charge (`learned` refuses it). Then only `order_id` is worth anything.
        reference: our special reference of the order; None when it was not told. A callback does
            not sign it: one that is not of this order's payment is worth an inquiry, no more.
    """

    id: int
    order_id: int
    amount: int
    currency: str
    made_at: str
    state: ChargeState
    was_paid: bool = False
    refunded: int = 0
    needs_inquiry: bool = False
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A row of `charges`, without the payment that it is of.

    Attributes:
        id: the acquirer's number of the transaction.
        order_id: the acquirer's number of the order.
        state: `refunded` only when all of it went back.
        amount: minor units of the payment's currency.
        refunded: minor units that went back to the customer, 0 … `amount`.
        made_at: as the acquirer writes it.
        seen_at: unix seconds, when it was first told of.
        paid_at: unix seconds, the earliest time at which it was told to have been paid; None:
            it was never paid, as far as is known.
        updated_at: unix seconds, when it last changed.
    """

    id: int
    order_id: int
    state: ChargeState
    amount: int
    refunded: int = 0
    made_at: str
    seen_at: int
    paid_at: int | None = None
    updated_at: int

    @property
    def kept(self) -> int:
        """Minor units that were paid and did not go back."""
        if self.paid_at is None or self.state is ChargeState.VOIDED:
            return 0
        return self.amount - self.refunded


def learned(charge: Charge | None, news: ChargeNews, now: int) -> Charge:
    """The charge, with that news; the same object when it says nothing new.

    Args:
        charge: as it was known; None: never heard of.
        news: of the same charge.
        now: unix seconds, when the news came: of a callback the time at which it was received,
            not the one at which it is processed.

    Raises:
        InvalidInput: another order or another amount than was known, which no acquirer says.
        InvariantError: the news is of another charge, or none of a charge at all.
    """
    if news.needs_inquiry:
        raise InvariantError(f"transaction {news.id}: only an inquiry can tell what happened")
    if charge is None:
        return _settled_down(_first(news, now))
    if charge.id != news.id:
        raise InvariantError(f"news of transaction {news.id} told to {charge.id}")
    _check_same(charge, news)
    after = _settled_down(
        replace(
            charge,
            state=max(charge.state, news.state, key=_RANK.__getitem__),
            refunded=max(charge.refunded, _refunded(news)),
            paid_at=_earlier(charge.paid_at, now if news.was_paid else None),
        )
    )
    return charge if after == charge else replace(after, updated_at=now)


def _first(news: ChargeNews, now: int) -> Charge:
    return Charge(
        id=news.id,
        order_id=news.order_id,
        state=news.state,
        amount=news.amount,
        refunded=_refunded(news),
        made_at=news.made_at,
        seen_at=now,
        paid_at=now if news.was_paid else None,
        updated_at=now,
    )


def _refunded(news: ChargeNews) -> int:
    return news.amount if news.state is ChargeState.REFUNDED else min(news.refunded, news.amount)


def _settled_down(charge: Charge) -> Charge:
    """A charge of which all went back is refunded, however the news was split."""
    if charge.state is ChargeState.PAID and charge.refunded == charge.amount:
        return replace(charge, state=ChargeState.REFUNDED)
    return charge


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _check_same(charge: Charge, news: ChargeNews) -> None:
    if news.order_id != charge.order_id:
        raise InvalidInput(
            "order.id", f"{news.order_id}: transaction {charge.id} is of order {charge.order_id}"
        )
    if news.amount != charge.amount:
        raise InvalidInput(
            "amount_cents", f"{news.amount}: transaction {charge.id} is of {charge.amount}"
        )
