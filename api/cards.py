"""Payments by card: an order at the acquirer first, then everything in one write.

The order's page is where the customer pays, and its address is told by one answer only. So the
order of things decides that nobody pays for what is not stored, and nobody pays twice:

    answered        the payment, its event, its order, its first check and the answer to the
                    idempotency key are one write; a crash before it leaves an order that nobody
                    can pay, because nobody was given its address
    answer lost     the acquirer is asked about the order before another is made, under another
                    reference; both stay with the payment, and only one has a page
    not answered    nothing is stored

Source: Paymob, "Intention API", which knows no idempotency key.
"""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, Protocol

from api.errors import FieldError, Problem, invalid, unavailable
from api.limits import CARD_ORDERS_MAX, CARD_RETRY_AFTER_S, CARD_TIMEOUT_S
from api.offers import Made, fresh_id
from api.schema import CUSTOMER_FIELDS
from indexer.core import card_creation, card_schedule, events
from indexer.core.card_creation import Customer
from indexer.core.charge import ChargeNews
from indexer.core.creation import NewPayment, Policy
from indexer.core.intention import Intention, NewIntention
from indexer.core.payment import CardPayment
from indexer.core.texts import shown_name
from indexer.errors import OutcomeUnknown, SourceRejected, SourceUnavailable
from indexer.log import get_logger
from store import cards
from store.cards import CardOrder, CardRecord
from store.database import Statement


log = get_logger(__name__)


#: What an acquirer answers when the values are at fault, and not the account.
_BAD_VALUES: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


class CardDesk(Protocol):
    """Where orders are made. Raises SourceError when there is none."""

    async def create_intention(self, new: NewIntention) -> Intention:
        """An order with its page. Raises OutcomeUnknown when it may have been made."""
        ...

    async def inquire(self, *, special_reference: str) -> Sequence[ChargeNews] | None:
        """What was charged by an order, by our name of it; None: nothing is known of it."""
        ...


async def prepare(
    desk: CardDesk | None, policy: Policy, asked: NewPayment, customer: Customer, *, now: int
) -> Made:
    """The payment by card that was asked for over HTTP; `make`, with its errors as problems.

    Args:
        desk: makes the order; None: payments by card are not set up.
        policy: what the deployment allows.
        asked: what the merchant asks for.
        customer: who will pay, as far as is known.
        now: unix seconds.

    Raises:
        InvalidInput: names the field.
        Problem: 502 or 503, the acquirer makes no order.
    """
    if desk is None:
        raise invalid(FieldError("provider", '"paymob" is not set up here'))
    id_ = fresh_id()
    try:
        async with asyncio.timeout(CARD_TIMEOUT_S):
            return await make(desk, policy, asked, customer, id=id_, now=now)
    except TimeoutError:
        log.warning("cards.too_slow", payment_id=id_)
        raise away() from None
    except SourceUnavailable as error:
        log.warning("cards.unavailable", payment_id=id_, error=str(error))
        raise away(error.retry_after_s) from error
    except SourceRejected as error:
        log.error("cards.refused", payment_id=id_, error=str(error))
        raise _refused(error) from error


async def make(
    desk: CardDesk, policy: Policy, asked: NewPayment, customer: Customer, *, id: str, now: int
) -> Made:
    """The payment by card that was asked for, with an order that can be paid.

    Args:
        desk: makes the order.
        policy: what the deployment allows.
        asked: what the merchant asks for.
        customer: who will pay, as far as is known.
        id: of `offers.fresh_id`.
        now: unix seconds.

    Raises:
        InvalidInput: names the field.
        SourceUnavailable: no order could be made for now.
        SourceRejected: none will be made like this.
    """
    payment = card_creation.create(asked, policy, id=id, now=now)
    card_creation.check_customer(customer)
    record = CardRecord(payment, await orders_for(desk, payment, customer))
    return Made(record=record, statements=statements(record, now))


def statements(record: CardRecord, now: int) -> list[Statement]:
    """The write that makes a new payment, all or nothing."""
    payment = record.payment
    first_check = card_schedule.first_check_at(payment.terms)
    return cards.insert(payment, events.created(payment, now), record.orders, check_at=first_check)


async def orders_for(
    desk: CardDesk, payment: CardPayment, customer: Customer
) -> tuple[CardOrder, ...]:
    """The orders of a new payment: the last one can be paid, what became of others is not known.

    Raises:
        SourceUnavailable: none could be made for now, or nobody knows of one that was.
        SourceRejected: none will be made like this.
    """
    terms, orders = payment.terms, []
    for number in range(1, CARD_ORDERS_MAX + 1):
        reference = terms.id if number == 1 else f"{terms.id}-{number}"
        new = NewIntention(
            reference=reference,
            amount=terms.amount,
            expires_in_s=terms.expires_at - terms.created_at,
            label=payment.label,
            customer=customer,
        )
        try:
            made = await desk.create_intention(new)
        except OutcomeUnknown as error:
            log.warning("cards.answer_lost", payment_id=terms.id, error=str(error))
            told = await desk.inquire(special_reference=reference)
            orders.append(
                CardOrder(
                    special_reference=reference,
                    payment_id=terms.id,
                    order_id=told[0].order_id if told else None,
                    created_at=terms.created_at,
                )
            )
            continue
        orders.append(
            CardOrder(
                special_reference=reference,
                payment_id=terms.id,
                order_id=made.order_id,
                intention_id=made.intention_id,
                checkout_url=made.checkout_url,
                created_at=terms.created_at,
            )
        )
        return tuple(orders)
    raise SourceUnavailable(f"{CARD_ORDERS_MAX} orders were asked for, and no answer came")


def customer_of(given: Mapping[str, str] | None) -> Customer:
    """The customer that a body tells of.

    Raises:
        Problem: 422, one of the fields is none.
    """
    known = {name: text for name, text in (given or {}).items() if name in CUSTOMER_FIELDS}
    errors = [
        FieldError(f"customer.{shown_name(name)}", f"no such field: {', '.join(CUSTOMER_FIELDS)}")
        for name in given or {}
        if name not in known
    ]
    if errors:
        raise invalid(*errors[:1])
    return Customer(**known)


def away(retry_after_s: float | None = None) -> Problem:
    """No order could be made now."""
    seconds = CARD_RETRY_AFTER_S if retry_after_s is None else max(1, round(retry_after_s))
    return unavailable(
        "card_provider_unavailable",
        "Paymob did not make an order; nothing was stored and nothing can be charged, try again",
        seconds,
    )


def _refused(error: SourceRejected) -> Problem:
    """What it said may name the account: only the log hears it."""
    if error.code in _BAD_VALUES:
        detail = "Paymob refuses such an order: look at `amount` and `customer`"
        return Problem(422, "card_provider_refused", detail)
    detail = "Paymob refused to make an order: this deployment's account there must be looked at"
    return Problem(502, "card_provider_refused", detail)
