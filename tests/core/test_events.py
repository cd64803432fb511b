import json
from dataclasses import replace

import pytest

from indexer.core.events import Event, created, format_time, of_change, public_state
from indexer.core.payment import Payment, State
from indexer.core.types import EventType, Paid, Reason, Status
from tests.core.script import (
    CREATED_AT,
    EXPIRES_AT,
    ORDER,
    SHOP,
    USDC,
    in_sol,
    in_tokens,
)


PAYMENT = Payment(
    terms=in_tokens(1_500_000),
    version=4,
    order_id="order 1",
    label="Shop",
    message="Thanks",
    memo="1",
    metadata={"secret": "note"},
)

DETECTED, REVERTED, PARTIALLY_PAID = (
    EventType.DETECTED,
    EventType.REVERTED,
    EventType.PARTIALLY_PAID,
)
SETTLED, EXPIRED, CANCELED, REVIEW = (
    EventType.SETTLED,
    EventType.EXPIRED,
    EventType.CANCELED,
    EventType.REVIEW,
)


def state(status: Status, received: int = 0, *review: Reason) -> State:
    """A state of a payment of 100."""
    paid = Paid.NONE if not received else Paid.PARTIAL if received < 100 else Paid.EXACT
    return State(
        status=status,
        paid=Paid.OVER if received > 100 else paid,
        received=received,
        review=tuple(sorted(review)),
        settled_at=5 if status in (Status.SETTLED, Status.REFUNDED) else None,
        canceled_at=5 if status is Status.CANCELED else None,
    )


def types_of(before: State, after: State) -> tuple[EventType, ...]:
    payment = Payment(terms=in_sol(100), state=before)
    published = of_change(payment, replace(payment, state=after, version=2), 1)
    return tuple(event.type for event in published)


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        # A change of status, and whatever came with it.
        (state(Status.PENDING), state(Status.PROCESSING), (DETECTED,)),
        (state(Status.PENDING), state(Status.PROCESSING, 100, Reason.BOOKS), (DETECTED, REVIEW)),
        (state(Status.PROCESSING), state(Status.PENDING), (REVERTED,)),
        (state(Status.PROCESSING, 7), state(Status.PENDING, 7), (REVERTED,)),
        (state(Status.PROCESSING), state(Status.PENDING, 7), (PARTIALLY_PAID,)),
        (
            state(Status.PROCESSING),
            state(Status.PENDING, 7, Reason.BOOKS),
            (PARTIALLY_PAID, REVIEW),
        ),
        (
            state(Status.PROCESSING),
            state(Status.PENDING, 0, Reason.ALREADY_ALLOCATED),
            (REVIEW,),
        ),
        (
            state(Status.PROCESSING, 7, Reason.BOOKS),
            state(Status.PENDING, 107, Reason.BOOKS),
            (REVIEW,),
        ),
        (state(Status.PENDING), state(Status.SETTLED, 100), (SETTLED,)),
        (state(Status.PROCESSING), state(Status.SETTLED, 100), (SETTLED,)),
        (state(Status.EXPIRED, 7), state(Status.SETTLED, 100), (SETTLED,)),
        (
            state(Status.PROCESSING),
            state(Status.SETTLED, 200, Reason.PAID_AGAIN),
            (SETTLED, REVIEW),
        ),
        (
            state(Status.PROCESSING, 100, Reason.BOOKS),
            state(Status.SETTLED, 200, Reason.BOOKS),
            (SETTLED,),
        ),
        (state(Status.PENDING), state(Status.EXPIRED), (EXPIRED,)),
        (state(Status.PROCESSING), state(Status.EXPIRED, 7), (EXPIRED,)),
        (
            state(Status.PENDING),
            state(Status.EXPIRED, 100, Reason.LATE_AFTER_GRACE),
            (EXPIRED, REVIEW),
        ),
        (state(Status.PENDING), state(Status.CANCELED), (CANCELED,)),
        (
            state(Status.PENDING, 7),
            state(Status.CANCELED, 7, Reason.PAID_AFTER_CANCEL),
            (CANCELED, REVIEW),
        ),
        (state(Status.PENDING), state(Status.FAILED), (EventType.FAILED,)),
        (state(Status.SETTLED, 100), state(Status.REFUNDED, 100), (EventType.REFUNDED,)),
        # Money without a change of status.
        (state(Status.PENDING), state(Status.PENDING, 7), (PARTIALLY_PAID,)),
        (state(Status.PROCESSING), state(Status.PROCESSING, 7), (PARTIALLY_PAID,)),
        (state(Status.EXPIRED), state(Status.EXPIRED, 7), (PARTIALLY_PAID,)),
        (
            state(Status.EXPIRED),
            state(Status.EXPIRED, 100, Reason.LATE_AFTER_GRACE),
            (REVIEW,),
        ),
        (
            state(Status.EXPIRED, 100, Reason.LATE_AFTER_GRACE),
            state(Status.EXPIRED, 200, Reason.LATE_AFTER_GRACE),
            (REVIEW,),
        ),
        (
            state(Status.PROCESSING, 100, Reason.BOOKS),
            state(Status.PROCESSING, 200, Reason.BOOKS),
            (REVIEW,),
        ),
        (
            state(Status.CANCELED),
            state(Status.CANCELED, 7, Reason.PAID_AFTER_CANCEL),
            (REVIEW,),
        ),
        (
            state(Status.CANCELED, 7, Reason.PAID_AFTER_CANCEL),
            state(Status.CANCELED, 107, Reason.PAID_AFTER_CANCEL),
            (REVIEW,),
        ),
        (state(Status.SETTLED, 100), state(Status.SETTLED, 101), ()),
        (state(Status.SETTLED, 100), state(Status.SETTLED, 200, Reason.PAID_AGAIN), (REVIEW,)),
        # A new reason, and nothing else; an old one that went away is no news.
        (state(Status.PENDING), state(Status.PENDING, 0, Reason.ALREADY_ALLOCATED), (REVIEW,)),
        (
            state(Status.PENDING, 0, Reason.BOOKS),
            state(Status.PENDING, 0, Reason.BOOKS, Reason.DEBITED),
            (REVIEW,),
        ),
        (state(Status.EXPIRED, 7, Reason.BOOKS), state(Status.EXPIRED, 7), ()),
        (state(Status.PENDING), state(Status.PENDING), ()),
    ],
)
def test_what_a_change_publishes(before: State, after: State, types: tuple[EventType, ...]) -> None:
    assert types_of(before, after) == types


def test_events_of_one_change_are_numbered_within_its_version() -> None:
    after = replace(PAYMENT, state=state(Status.SETTLED, 200, Reason.PAID_AGAIN), version=5)

    published = of_change(PAYMENT, after, 1_234, signature="paying")

    assert published == tuple(
        Event(
            type=type_,
            payment_id=PAYMENT.terms.id,
            version=5,
            ordinal=ordinal,
            created_at=1_234,
            data={"payment": public_state(after), "signature": "paying"},
        )
        for ordinal, type_ in enumerate([SETTLED, REVIEW])
    )


def test_what_no_transaction_caused_names_none() -> None:
    event = created(PAYMENT, 1_234)

    assert (event.type, event.version, event.ordinal) == (EventType.CREATED, 4, 0)
    assert event.created_at == 1_234
    assert event.data == {"payment": public_state(PAYMENT), "signature": None}


def test_the_public_state_is_the_whole_payment_and_none_of_the_merchants_notes() -> None:
    paid = replace(
        PAYMENT,
        state=State(
            status=Status.SETTLED,
            paid=Paid.OVER,
            late=True,
            review=(Reason.PAID_AGAIN,),
            received=2**65,
            settled_at=CREATED_AT + 1,
        ),
    )

    public = json.loads(json.dumps(public_state(paid)))

    assert public == {
        "id": PAYMENT.terms.id,
        "provider": "solana",
        "status": "settled",
        "paid": "over",
        "late": True,
        "review": ["paid_again"],
        "amount": "1.5",
        "amount_base_units": "1500000",
        "token": {"symbol": "USDC", "mint": USDC, "decimals": 6},
        "received": "36893488147419.103232",
        "received_base_units": "36893488147419103232",
        "recipient": SHOP,
        "reference": ORDER,
        "memo": "1",
        "label": "Shop",
        "message": "Thanks",
        "created_at": format_time(CREATED_AT),
        "expires_at": format_time(EXPIRES_AT),
        "settled_at": format_time(CREATED_AT + 1),
        "version": 4,
    }


def test_what_has_not_happened_is_null() -> None:
    public = public_state(Payment(terms=in_sol()))

    assert [public[name] for name in ("settled_at", "memo", "label", "message")] == [None] * 4
    assert public["token"]["mint"] is None


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (951_826_154, "2000-02-29T12:09:14Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_utc_to_the_second(unix_s: int, text: str) -> None:
    assert format_time(unix_s) == text
