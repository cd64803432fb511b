"""Values with defaults that satisfy each other: a test names only what it is about.

    payment = make_payment(amount=5_000)
    verdict = make_verdict(payment, credit=2_000)

A number tells payments apart, a name tells transactions apart; everything else follows from them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from indexer.core.events import Event, public_state
from indexer.core.payment import AnyPayment, Asset, Offer, Payment, State, Terms
from indexer.core.types import TOKEN_PROGRAM, EventType, Paid, Reason, Status
from indexer.core.verdict import CreditedLeg, Evidence, Sighting, Verdict
from tests.instructions import ata, key, signature


NOW: Final = 1_795_377_600  # 2026-11-22T20:00:00Z
EXPIRES_IN_S: Final = 900
GRACE_S: Final = 86_400
AMOUNT: Final = 1_000_000
SLOT: Final = 100

MERCHANT: Final = key("merchant")
CUSTOMER: Final = key("customer")
WATCH_KEY: Final = key("watch key")

SOL: Final = Asset(symbol="SOL", mint=None, decimals=9, token_program=None)
USDC: Final = Asset(symbol="USDC", mint=key("usdc"), decimals=6, token_program=TOKEN_PROGRAM)


def make_terms(
    number: int = 1,
    *,
    asset: Asset = SOL,
    amount: int = AMOUNT,
    watch_key: str | None = WATCH_KEY,
    created_at: int = NOW,
    expires_in_s: int = EXPIRES_IN_S,
    grace_s: int = GRACE_S,
) -> Terms:
    """What payment `number` asks for."""
    token_account = None
    if asset.mint is not None and asset.token_program is not None:
        token_account = ata(MERCHANT, asset.mint, asset.token_program)
    return Terms(
        id=f"pay_{number:026d}",
        asset=asset,
        recipient=MERCHANT,
        token_account=token_account,
        amount=amount,
        reference=key(f"reference {number}"),
        watch_key=watch_key,
        created_at=created_at,
        expires_at=created_at + expires_in_s,
        grace_s=grace_s,
    )


def make_state(status: Status = Status.PENDING, *, terms: Offer, **changes: Any) -> State:
    """A state that a payment of that status may have; paid in full once it is settled."""
    facts: dict[str, Any] = {"status": status}
    if status in {Status.SETTLED, Status.REFUNDED}:
        facts |= {"paid": Paid.EXACT, "received": terms.amount, "settled_at": terms.created_at + 1}
    if status is Status.CANCELED:
        facts |= {"canceled_at": terms.created_at + 1}
    return State(**(facts | changes))


def make_payment(
    number: int = 1,
    *,
    status: Status = Status.PENDING,
    state: Mapping[str, Any] | None = None,
    version: int = 1,
    order_id: str | None = None,
    label: str | None = None,
    message: str | None = None,
    memo: str | None = None,
    metadata: Mapping[str, str] | None = None,
    **terms: Any,
) -> Payment:
    """A payment; `terms` are those of `make_terms`, `state` overrides what `status` implies."""
    its_terms = make_terms(number, **terms)
    return Payment(
        terms=its_terms,
        state=make_state(status, terms=its_terms, **(state or {})),
        version=version,
        order_id=order_id,
        label=label,
        message=message,
        memo=memo,
        metadata=metadata or {},
    )


def make_leg(
    payment: Payment,
    *,
    amount: int | None = None,
    net: int | None = None,
    outer: int = 0,
    inner: int | None = None,
    sub: int | None = None,
) -> CreditedLeg:
    """A transfer from the customer that pays the whole amount, at top level."""
    amount = payment.terms.amount if amount is None else amount
    return CreditedLeg(
        outer=outer,
        inner=inner,
        sub=sub,
        source=CUSTOMER,
        destination=payment.terms.token_account or payment.terms.recipient,
        amount=amount,
        net=amount if net is None else net,
    )


def make_verdict(
    payment: Payment,
    *,
    name: str = "paid",
    credit: int | None = None,
    slot: int = SLOT,
    index: int | None = 0,
    block_time: int | None = None,
    clean: bool = True,
    reasons: Sequence[Reason] = (),
    legs: Sequence[CreditedLeg] | None = None,
) -> Verdict:
    """What the transaction `name` means for the payment: it pays all, in time, by one leg."""
    credit = payment.terms.amount if credit is None else credit
    if legs is None:
        legs = (make_leg(payment, amount=credit),) if credit else ()
    return Verdict(
        payment_id=payment.terms.id,
        signature=signature(name),
        slot=slot,
        index=index,
        block_time=payment.terms.created_at + 1 if block_time is None else block_time,
        credit=credit,
        clean=clean,
        reasons=tuple(reasons),
        evidence=Evidence(bound=credit, delta=credit),
        legs=tuple(legs),
    )


def make_sighting(
    payment: Payment, *, name: str = "paid", slot: int = SLOT, credit: int | None = None
) -> Sighting:
    """The transaction `name`, seen at `confirmed`."""
    return Sighting(
        payment_id=payment.terms.id,
        signature=signature(name),
        slot=slot,
        credit=payment.terms.amount if credit is None else credit,
    )


def make_event(
    payment: AnyPayment,
    type_: EventType = EventType.CREATED,
    *,
    ordinal: int = 0,
    created_at: int = NOW,
    signature: str | None = None,
) -> Event:
    """An event of the payment's present version."""
    return Event(
        type=type_,
        payment_id=payment.terms.id,
        version=payment.version,
        ordinal=ordinal,
        created_at=created_at,
        data={"payment": public_state(payment), "signature": signature},
    )
