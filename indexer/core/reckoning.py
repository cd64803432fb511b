"""A payment reckoned anew from the chain, beside what is stored of it.

What the chain says is judged by the same rule and folded by the same fold as ever; what is
compared is everything that follows: the verdicts, the legs behind them, the state. Three things
are no work of the chain and are taken as they are stored: when the merchant canceled, what a
person decided, and that something was sighted which is not final yet.

Three answers are possible, and they are kept apart: the store *differs*; the store *has not come
so far* and will (which is no fault); nothing *can be said* of something.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from indexer.core.judge import LegName, Read, holders_of, name_of, without_taken
from indexer.core.match import mentioned
from indexer.core.payment import State, Terms
from indexer.core.types import Reason, Status
from indexer.core.verdict import CreditedLeg, Verdict
from indexer.core.verify import verify, verify_matched


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is stored otherwise than it should be.

    Attributes:
        payment_id: whose; empty when it is of the store as a whole.
        what: table and column, such as `verdict.credit`; a table alone when all of it is meant.
        where: signature, number of an event, or empty.
        stored: what the store has, ready for JSON; None: nothing.
        chain: what it should be; None: nothing.
    """

    payment_id: str
    what: str
    where: str = ""
    stored: Any = None
    chain: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the chain says of one payment.

    Attributes:
        verdicts: signature -> what that finalized transaction means.
        excused: signature -> why the store need not know it yet.
        unread: signature -> why nothing is known of it now.
        time: block time (unix seconds) of a finalized slot, up to which everything was listed;
            None when nobody knows it.
    """

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    excused: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    time: int | None = None


#: The columns of a verdict that follow from the transaction alone.
_VERDICT_FIELDS: Final = ("slot", "block_time", "credit", "clean", "reasons", "evidence")
_LEG_FIELDS: Final = ("source", "destination", "amount", "net")
_STATE_FIELDS: Final = ("status", "paid", "late", "review", "received", "settled_at")


# ------------------------------------------------------------------------------------ verdicts


def recomputed(
    payments: Sequence[Terms],
    read: Read,
    stored: Mapping[str, Verdict],
    *,
    matched: Sequence[Terms] = (),
) -> dict[str, Verdict]:
    """The verdicts of one transaction, by payment, as they came to be one after another.

    Whose a leg is that names several payments depends on which of them existed when it was
    judged: that is history, not on the chain. Of the histories that the ages of the payments
    allow, it is the one that explains what is stored; the one in which all of them existed, when
    none does.

    Args:
        payments: all whose reference the transaction may carry.
        read: the transaction, finalized.
        stored: payment id -> what is stored of this transaction.
        matched: payments that it does not name and to which a person gave it.
    """
    named = mentioned(payments, read.transaction)
    ages = sorted({terms.created_at for terms in named}, reverse=True)
    first: dict[str, Verdict] | None = None
    for steps in _histories(ages):
        for verdicts in _in_steps(named, read, steps, matched):
            if all(_is_same(stored.get(id_), verdict) for id_, verdict in verdicts.items()):
                return verdicts
            first = first or verdicts
    return first or {}


def _histories(ages: Sequence[int]) -> Iterator[Sequence[int]]:
    """Moments at which the transaction may have been judged: all payments that existed then.

    All at once; or first the older ones, and the younger ones together, or one after another.
    """
    youngest = ages[0] if ages else 0
    yield (youngest,)
    for age in ages[1:]:
        yield (age, youngest)
        yield tuple(sorted(each for each in ages if each >= age))


def _in_steps(
    named: Sequence[Terms], read: Read, steps: Sequence[int], matched: Sequence[Terms]
) -> Iterator[dict[str, Verdict]]:
    """The verdicts, where the transaction was judged at each of these moments.

    A person's word may have come after all of them, or before the last.
    """
    for said_after in (len(steps), len(steps) - 1) if matched else (len(steps),):
        verdicts: dict[str, Verdict] = {}
        for number, moment in enumerate(steps):
            if number == said_after:
                _match(verdicts, matched, read)
            there = [terms for terms in named if terms.created_at <= moment]
            _take(verdicts, verify(there, read.transaction, block_time=read.block_time))
        if said_after == len(steps):
            _match(verdicts, matched, read)
        yield verdicts


def _match(verdicts: dict[str, Verdict], matched: Sequence[Terms], read: Read) -> None:
    for terms in matched:
        verdict = verify_matched(terms, read.transaction, block_time=read.block_time)
        _take(verdicts, [verdict])


def _take(verdicts: dict[str, Verdict], more: Sequence[Verdict]) -> None:
    """Adds verdicts of payments that have none yet; legs stay with who has them."""
    holders = holders_of(verdicts.values())
    for verdict in more:
        held = holders.get(verdict.signature, {})
        verdicts.setdefault(verdict.payment_id, without_taken(verdict, held))


def _is_same(stored: Verdict | None, verdict: Verdict) -> bool:
    return stored is None or not list(_of_verdict(stored, verdict))


def differing_verdicts(
    payment_id: str, stored: Mapping[str, Verdict], said: Said
) -> Iterator[Difference]:
    """Where the stored verdicts and legs of a payment are not those of the chain."""
    for signature in sorted(stored.keys() | said.verdicts.keys()):
        ours, true = stored.get(signature), said.verdicts.get(signature)
        if ours is not None and true is not None:
            yield from _of_verdict(ours, true)
        elif ours is not None and signature not in said.unread:
            yield _of_whole(payment_id, ours, is_stored=True)
        elif true is not None and signature not in said.excused and not _is_failed(true):
            yield _of_whole(payment_id, true, is_stored=False)


def _is_failed(verdict: Verdict) -> bool:
    """A failed transaction moved nothing: sweeps pass it by, and only a doorbell stores it."""
    return Reason.FAILED_TRANSACTION in verdict.reasons


def _of_whole(payment_id: str, verdict: Verdict, *, is_stored: bool) -> Difference:
    shown = {"credit": str(verdict.credit), "slot": verdict.slot, "reasons": list(verdict.reasons)}
    return Difference(
        payment_id=payment_id,
        what="verdict",
        where=verdict.signature,
        stored=shown if is_stored else None,
        chain=None if is_stored else shown,
    )


def _of_verdict(stored: Verdict, true: Verdict) -> Iterator[Difference]:
    fields = [*_VERDICT_FIELDS]
    if None not in (stored.index, true.index):
        fields.append("index")  # older nodes leave it out
    if _is_failed(true) and None in (stored.block_time, true.block_time):
        fields.remove("block_time")  # nobody needs the time of what moved nothing
    for name in fields:
        ours, chain = getattr(stored, name), getattr(true, name)
        if ours != chain:
            column = {"index": "transaction_index"}.get(name, name)
            yield Difference(
                payment_id=stored.payment_id,
                what=f"verdict.{column}",
                where=stored.signature,
                stored=_plain(ours),
                chain=_plain(chain),
            )
    yield from _of_legs(stored, true)


def _of_legs(stored: Verdict, true: Verdict) -> Iterator[Difference]:
    ours = {name_of(leg): leg for leg in stored.legs}
    theirs = {name_of(leg): leg for leg in true.legs}
    for name in sorted(ours.keys() | theirs.keys(), key=_shown_name):
        where = f"{stored.signature} {_shown_name(name)}"
        leg, true_leg = ours.get(name), theirs.get(name)
        if leg is None or true_leg is None:
            yield Difference(
                payment_id=stored.payment_id,
                what="transfer",
                where=where,
                stored=_plain_leg(leg),
                chain=_plain_leg(true_leg),
            )
            continue
        for column in _LEG_FIELDS:
            if getattr(leg, column) != getattr(true_leg, column):
                yield Difference(
                    payment_id=stored.payment_id,
                    what=f"transfer.{column}",
                    where=where,
                    stored=_plain(getattr(leg, column)),
                    chain=_plain(getattr(true_leg, column)),
                )


def _shown_name(name: LegName) -> str:
    return "/".join("-" if part is None else str(part) for part in name)


def _plain_leg(leg: CreditedLeg | None) -> Any:
    if leg is None:
        return None
    return {column: _plain(getattr(leg, column)) for column in _LEG_FIELDS}


# --------------------------------------------------------------------------------------- state


def expected(status: Status, folded: State) -> State:
    """What a payment that stands at `status` should say, when the fold says that.

    One that expired, and whose full but doubtful money became readable only afterwards, stays
    expired (see `settle.advance`).
    """
    if (status, folded.status) == (Status.EXPIRED, Status.PROCESSING):
        return replace(folded, status=status)
    return folded


def differing_state(payment_id: str, stored: State, true: State) -> Iterator[Difference]:
    """Where the stored state is not what the facts add up to."""
    for name in _STATE_FIELDS:
        ours, chain = getattr(stored, name), getattr(true, name)
        if ours != chain:
            yield Difference(
                payment_id=payment_id,
                what=f"payment.{name}",
                stored=_plain(ours),
                chain=_plain(chain),
            )


def _plain(value: Any) -> Any:
    """As JSON has it: amounts as text, because many readers of JSON round large numbers."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(each) for name, each in asdict(value).items()}
    return str(value)
