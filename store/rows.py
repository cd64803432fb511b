"""Between rows and core values: the only place that knows the order of columns."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from indexer.core.payment import AnyPayment, Asset, CardPayment, Offer, Payment, State, Terms
from indexer.core.types import Paid, Provider, Reason, Status
from indexer.core.verdict import CreditedLeg, Evidence, Sighting, Verdict
from indexer.errors import StoreBroken
from store.database import Parameter


#: Stands in a key column, which may not be NULL, for "not there".
NOWHERE: Final = -1

_strings = msgspec.json.Decoder(list[str])
_evidence = msgspec.json.Decoder(Evidence)


def json_text(value: Any) -> str:
    """Compact JSON, as text."""
    return msgspec.json.encode(value).decode()


def payment_values(payment: AnyPayment) -> tuple[Parameter, ...]:
    """The columns of `payment_insert`; those of the chain are NULL for a card."""
    terms, state = payment.terms, payment.state
    chain = payment.terms if isinstance(payment, Payment) else None
    return (
        terms.id,
        payment.provider,
        terms.asset.symbol,
        terms.asset.mint,
        terms.asset.decimals,
        terms.asset.token_program,
        None if chain is None else chain.recipient,
        None if chain is None else chain.token_account,
        str(terms.amount),
        None if chain is None else chain.reference,
        None if chain is None else chain.watch_key,
        payment.order_id,
        payment.label,
        payment.message,
        payment.memo,
        terms.created_at,
        terms.expires_at,
        terms.grace_s,
        *state_values(state),
        payment.version,
    )


def state_values(state: State) -> tuple[Parameter, ...]:
    """The columns of a state: status, paid, late, review, received, settled_at, canceled_at."""
    return (
        state.status,
        state.paid,
        int(state.late),
        json_text(list(state.review)),
        str(state.received),
        state.settled_at,
        state.canceled_at,
    )


def payment(row: Sequence[Any], metadata: Mapping[str, str]) -> Payment | CardPayment:
    """A row of `payments_by_ids`.

    Raises:
        StoreBroken: nobody can have written it but a person.
    """
    with _as_written(f"payment {row[0]}"):
        return _payment(row, metadata)


def _payment(row: Sequence[Any], metadata: Mapping[str, str]) -> Payment | CardPayment:
    (
        id_, provider, symbol, mint, decimals, token_program, recipient, token_account, amount,
        reference, watch_key, order_id, label, message, memo, created_at, expires_at, grace_s,
        *state, version,
    ) = row  # fmt: skip
    offer: dict[str, Any] = {
        "id": id_,
        "asset": Asset(symbol=symbol, mint=mint, decimals=decimals, token_program=token_program),
        "amount": int(amount),
        "created_at": created_at,
        "expires_at": expires_at,
        "grace_s": grace_s,
    }
    common: dict[str, Any] = {
        "state": _state(state),
        "version": version,
        "order_id": order_id,
        "label": label,
        "message": message,
        "memo": memo,
        "metadata": metadata,
    }
    match Provider(provider):
        case Provider.PAYMOB:
            return CardPayment(terms=Offer(**offer), **common)
        case Provider.SOLANA:
            terms = Terms(
                recipient=recipient,
                token_account=token_account,
                reference=reference,
                watch_key=watch_key,
                **offer,
            )
            return Payment(terms=terms, **common)


def _state(row: Sequence[Any]) -> State:
    status, paid, late, review, received, settled_at, canceled_at = row
    return State(
        status=Status(status),
        paid=Paid(paid),
        late=bool(late),
        review=tuple(_strings.decode(review)),
        received=int(received),
        settled_at=settled_at,
        canceled_at=canceled_at,
    )


def verdict_values(verdict: Verdict) -> tuple[Parameter, ...]:
    """The columns of `verdict_insert`."""
    return (
        verdict.signature,
        verdict.payment_id,
        verdict.slot,
        verdict.index,
        verdict.block_time,
        str(verdict.credit),
        int(verdict.clean),
        json_text(verdict.reasons),
        json_text(verdict.evidence),
    )


def verdict(row: Sequence[Any], legs: tuple[CreditedLeg, ...]) -> Verdict:
    """A row of `verdicts_by_ids`.

    Raises:
        StoreBroken: nobody can have written it but a person.
    """
    with _as_written(f"the verdict on {row[0]} for {row[1]}"):
        return _verdict(row, legs)


def _verdict(row: Sequence[Any], legs: tuple[CreditedLeg, ...]) -> Verdict:
    signature, payment_id, slot, index, block_time, credit, clean, reasons, evidence = row
    return Verdict(
        payment_id=payment_id,
        signature=signature,
        slot=slot,
        index=index,
        block_time=block_time,
        credit=int(credit),
        clean=bool(clean),
        reasons=tuple(Reason(reason) for reason in _strings.decode(reasons)),
        evidence=_evidence.decode(evidence),
        legs=legs,
    )


def leg_values(signature: str, payment_id: str, leg: CreditedLeg) -> tuple[Parameter, ...]:
    """The columns of `transfer_insert`."""
    return (
        signature,
        leg.outer,
        NOWHERE if leg.inner is None else leg.inner,
        NOWHERE if leg.sub is None else leg.sub,
        payment_id,
        leg.source,
        leg.destination,
        str(leg.amount),
        str(leg.net),
    )


def legs(rows: Iterable[Sequence[Any]]) -> dict[tuple[str, str], tuple[CreditedLeg, ...]]:
    """Rows of `transfers_by_ids`, by signature and payment."""
    found: dict[tuple[str, str], list[CreditedLeg]] = defaultdict(list)
    for signature, payment_id, outer, inner, sub, source, destination, amount, net in rows:
        leg = CreditedLeg(
            outer=outer,
            inner=None if inner == NOWHERE else inner,
            sub=None if sub == NOWHERE else sub,
            source=source,
            destination=destination,
            amount=int(amount),
            net=int(net),
        )
        found[signature, payment_id].append(leg)
    return {key: tuple(each) for key, each in found.items()}


def sighting(row: Sequence[Any]) -> Sighting:
    """A row of `sightings_by_ids` or `sightings_oldest`."""
    payment_id, signature, slot, credit = row
    return Sighting(payment_id=payment_id, signature=signature, slot=slot, credit=int(credit))


@contextmanager
def _as_written(what: str) -> Iterator[None]:
    """Names the row that holds what this code never wrote; the schema lets such JSON pass."""
    try:
        yield
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreBroken(
            f"{what} cannot be read ({error}): its row was changed by hand or by another release; "
            "put a backup in the database's place, and run `axiompay replay`"
        ) from error
