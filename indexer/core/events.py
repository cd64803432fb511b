"""The facts that are published: one for every change of a payment, never more."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from indexer.core.amounts import format_amount
from indexer.core.payment import AnyPayment, Payment
from indexer.core.types import EventType, Paid, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact about one payment, at one version of it.

    Attributes:
        version: the payment's version that this event belongs to.
        ordinal: tells apart the events of one version, from 0.
        created_at: unix seconds, when the store learned of it.
        data: what subscribers receive, ready for JSON; carries the whole public state, so that
            one event alone is enough to draw the payment.
    """

    type: EventType
    payment_id: str
    version: int
    ordinal: int
    created_at: int
    data: Mapping[str, Any]


def created(payment: AnyPayment, now: int) -> Event:
    """The first event of every payment."""
    return _event(EventType.CREATED, payment, now)


def of_change(
    before: AnyPayment, after: AnyPayment, now: int, *, signature: str | None = None
) -> tuple[Event, ...]:
    """The events that one stored change publishes: none, one, or one and `payment.review`.

    A change of status has exactly one event. Money that arrives without one is
    `payment.partially_paid`; new reasons for a person to look are `payment.review`, beside the
    other or, where that says all there is to say, instead of it.

    `signature` is the transaction that caused the change, where one did.
    """
    types = []
    if (main := _main_type(before, after)) is not None:
        types.append(main)
    if set(after.state.review) - set(before.state.review) and EventType.REVIEW not in types:
        types.append(EventType.REVIEW)
    return tuple(
        _event(type_, after, now, ordinal=ordinal, signature=signature)
        for ordinal, type_ in enumerate(types)
    )


def _main_type(before: AnyPayment, after: AnyPayment) -> EventType | None:
    status, grew = after.state.status, after.state.received > before.state.received
    changed = status is not before.state.status
    match status:
        case Status.PROCESSING if changed:
            return EventType.DETECTED
        case Status.PENDING if changed:
            return _back_to_pending(before, after, grew=grew)
        case Status.SETTLED if changed:
            return EventType.SETTLED
        case Status.EXPIRED if changed:
            return EventType.EXPIRED
        case Status.CANCELED if changed:
            return EventType.CANCELED
        case Status.FAILED if changed:
            return EventType.FAILED
        case Status.REFUNDED if changed:
            return EventType.REFUNDED
        case Status.PENDING | Status.PROCESSING | Status.EXPIRED if grew:
            return _unsettled_money(after)
        case Status.CANCELED if grew:
            return EventType.REVIEW
        case _:
            return None


def _back_to_pending(before: AnyPayment, after: AnyPayment, *, grew: bool) -> EventType:
    """The sighting was finalized but was not enough, is doubtful, or never came to be."""
    if grew:
        return _unsettled_money(after)
    if set(after.state.review) - set(before.state.review):
        return EventType.REVIEW
    return EventType.REVERTED


def _unsettled_money(after: AnyPayment) -> EventType:
    """Money came and did not settle: a part of it, or all of it, and then a person must look."""
    partial = after.state.paid is Paid.PARTIAL
    return EventType.PARTIALLY_PAID if partial else EventType.REVIEW


def _event(
    type_: EventType,
    payment: AnyPayment,
    now: int,
    *,
    ordinal: int = 0,
    signature: str | None = None,
) -> Event:
    return Event(
        type=type_,
        payment_id=payment.terms.id,
        version=payment.version,
        ordinal=ordinal,
        created_at=now,
        data={"payment": public_state(payment), "signature": signature},
    )


def public_state(payment: AnyPayment) -> dict[str, Any]:
    """What anyone who knows the id may see: terms and state, no `order_id`, no `metadata`."""
    terms, state = payment.terms, payment.state
    chain = payment.terms if isinstance(payment, Payment) else None
    decimals = terms.asset.decimals
    return {
        "id": terms.id,
        "provider": payment.provider,
        "status": state.status,
        "paid": state.paid,
        "late": state.late,
        "review": list(state.review),
        "amount": format_amount(terms.amount, decimals),
        "amount_base_units": str(terms.amount),
        "token": {
            "symbol": terms.asset.symbol,
            "mint": terms.asset.mint,
            "decimals": decimals,
        },
        "received": format_amount(state.received, decimals),
        "received_base_units": str(state.received),
        "recipient": chain.recipient if chain else None,
        "reference": chain.reference if chain else None,
        "memo": payment.memo,
        "label": payment.label,
        "message": payment.message,
        "created_at": format_time(terms.created_at),
        "expires_at": format_time(terms.expires_at),
        "settled_at": None if state.settled_at is None else format_time(state.settled_at),
        "version": payment.version,
    }


def format_time(unix_s: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
