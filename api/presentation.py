"""A stored payment as it is shown: to everyone, or to its merchant."""

from msgspec import UNSET

from api.schema import PaymentBody, TokenBody, TransferBody
from indexer.core.amounts import format_amount
from indexer.core.creation import solana_pay_url
from indexer.core.events import format_time, public_state
from indexer.core.payment import Payment
from indexer.core.types import Commitment
from store.payments import Record


def payment_body(record: Record, *, private: bool) -> PaymentBody:
    """The payment as JSON will say it.

    Args:
        record: the payment and what the chain said of it.
        private: with `order_id` and `metadata`, which are the merchant's own.
    """
    payment = record.payment
    state = public_state(payment)
    token = TokenBody(**state.pop("token"))
    return PaymentBody(
        **state,
        token=token,
        url=solana_pay_url(payment),
        checkout_url=None,
        order_id=payment.order_id if private else UNSET,
        metadata=dict(payment.metadata) if private else UNSET,
        transfers=_transfers(record),
    )


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
