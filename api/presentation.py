"""A stored payment as it is shown: to everyone, or to its merchant."""

from typing import assert_never

from msgspec import UNSET

from api.schema import ChargeBody, PaymentBody, TokenBody, TransferBody
from indexer.core.amounts import format_amount
from indexer.core.creation import solana_pay_url
from indexer.core.events import format_time, public_state
from indexer.core.payment import Payment
from indexer.core.types import Commitment
from store.cards import CardRecord
from store.everything import AnyRecord
from store.payments import Record


def payment_body(record: AnyRecord, *, private: bool) -> PaymentBody:
    """The payment as JSON will say it.

    Args:
        record: the payment and what the chain, or the acquirer, said of it.
        private: with `order_id`, `metadata` and `charges`, which are the merchant's own.
    """
    payment = record.payment
    state = public_state(payment)
    token = TokenBody(**state.pop("token"))
    return PaymentBody(
        **state,
        token=token,
        url=solana_pay_url(record.payment) if isinstance(record, Record) else None,
        checkout_url=record.checkout_url if isinstance(record, CardRecord) else None,
        order_id=payment.order_id if private else UNSET,
        metadata=dict(payment.metadata) if private else UNSET,
        transfers=_transfers(record) if isinstance(record, Record) else [],
        charges=_charges(record) if private and isinstance(record, CardRecord) else UNSET,
    )


def url_to_pay(record: AnyRecord) -> str | None:
    """What a code shows to whoever pays: the Solana Pay URL, or the acquirer's page.

    None: the page is not known, and nobody can pay.
    """
    match record:
        case Record():
            return solana_pay_url(record.payment)
        case CardRecord():
            return record.checkout_url
        case other:
            assert_never(other)


def _charges(record: CardRecord) -> list[ChargeBody]:
    decimals = record.payment.terms.asset.decimals
    return [
        ChargeBody(
            id=str(charge.id),
            state=charge.state.value,
            amount=format_amount(charge.amount, decimals),
            amount_base_units=str(charge.amount),
            refunded=format_amount(charge.refunded, decimals),
            paid_at=None if charge.paid_at is None else format_time(charge.paid_at),
        )
        for charge in record.charges
    ]


def _transfers(record: Record) -> list[TransferBody]:
    """What pays, final or only seen, in the chain's order; each signature once."""
    final = [verdict for verdict in record.verdicts if verdict.credit > 0]
    examined = {verdict.signature for verdict in record.verdicts}
    seen = [sighting for sighting in record.sightings if sighting.signature not in examined]
    bodies = [
        _transfer(record.payment, v.signature, v.slot, v.credit, v.block_time, Commitment.FINALIZED)
        for v in sorted(final, key=lambda verdict: verdict.order)
    ]
    bodies += [
        _transfer(record.payment, s.signature, s.slot, s.credit, None, Commitment.CONFIRMED)
        for s in sorted(seen, key=lambda sighting: (sighting.slot, sighting.signature))
    ]
    return sorted(bodies, key=lambda body: body.slot)


def _transfer(
    payment: Payment,
    signature: str,
    slot: int,
    credit: int,
    block_time: int | None,
    commitment: Commitment,
) -> TransferBody:
    return TransferBody(
        signature=signature,
        slot=slot,
        block_time=None if block_time is None else format_time(block_time),
        amount=format_amount(credit, payment.terms.asset.decimals),
        amount_base_units=str(credit),
        commitment=commitment.value,
    )
