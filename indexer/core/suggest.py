"""Which payment a transfer without a reference may be meant for: a guess, for a person to judge.

Some wallets and all exchanges leave references out. What they send still arrives at the
recipient, in the right asset, mostly with the right amount, sometimes with a memo that says what
it is for. Where amount or memo fit a payment that waits for money, it is suggested. That is all:
nothing here is ever credited, and no state changes. Anybody can send any amount with any memo.

A memo names a payment when it is the payment's own memo, or has the payment's id, its reference
or the merchant's order number in it as a word.

Source: SPL Memo, whose instruction data is the text, in UTF-8.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import base58

from indexer.core.legs import DATA_LENGTH_MAX, read_ledger
from indexer.core.payment import Payment, Terms
from indexer.core.transaction import Transaction
from indexer.core.types import MEMO_PROGRAMS
from indexer.core.verdict import CreditedLeg
from indexer.core.verify import arrivals


#: Seconds that a payment may be younger than the block: the two clocks differ a little.
CREATED_MARGIN_S: Final = 60
#: Payments that one transfer is suggested for: those that the memo names, then the youngest.
SUGGESTIONS_PER_LEG_MAX: Final = 10
#: Amounts of one transaction that payments are looked for by.
AMOUNTS_MAX: Final = 32
#: Characters of a transaction's memos that are read and kept, and what of them is looked up.
MEMO_CHARS_MAX: Final = 1_024
LINES_MAX: Final = 8
WORDS_MAX: Final = 64

#: What people put around a number: "order #1042," means 1042.
_AROUND_WORDS: Final = "#.,;:!?()[]{}<>\"'`"


class Why(StrEnum):
    """What speaks for a suggestion."""

    AMOUNT = "amount"
    MEMO = "memo"
    AMOUNT_AND_MEMO = "amount_and_memo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A transfer that names no payment and may pay one all the same.

    Attributes:
        outer, inner, sub: the leg's place, as in `CreditedLeg`.
        amount: base units that arrived.
        memo: what the transaction's memos say; None when there are none.
        block_time: unix seconds.
        found_at: unix seconds.
    """

    signature: str
    outer: int
    inner: int | None
    sub: int | None
    payment_id: str
    why: Why
    source: str
    destination: str
    amount: int
    memo: str | None
    slot: int
    block_time: int | None
    found_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clues:
    """What payments are to be looked for by, for one transaction.

    Attributes:
        amounts: base units; one of them is what arrived, if anything did. Sorted.
        lines: of its memos; one may be a payment's own memo.
        words: that may be an id, a reference or an order number, in the memo's order.
    """

    amounts: tuple[int, ...]
    lines: tuple[str, ...]
    words: tuple[str, ...]


def clues(transaction: Transaction, destination: str) -> Clues | None:
    """What one transaction tells of the payment that it is for; None when nothing arrived.

    Args:
        transaction: finalized.
        destination: the wallet (for SOL) or the token account that payments go to.
    """
    if transaction.failed:
        return None
    amounts = {amount for amount in _amounts(transaction, destination) if amount > 0}
    if not amounts:
        return None
    memo = memo_of(transaction)
    return Clues(
        amounts=tuple(sorted(amounts))[:AMOUNTS_MAX], lines=_lines(memo), words=_words(memo)
    )


def suggestions(
    payments: Iterable[Payment], transaction: Transaction, *, block_time: int | None, now: int
) -> list[Suggestion]:
    """The payments that the transaction's transfers may be meant for.

    Args:
        payments: that wait for money, of any recipient and asset.
        transaction: finalized, and known to carry the reference of no payment.
        block_time: unix seconds; without it nothing is suggested.
        now: unix seconds.
    """
    if block_time is None or transaction.failed:
        return []
    memo = memo_of(transaction)
    lines, words = frozenset(_lines(memo)), frozenset(_words(memo))
    groups: dict[tuple[str, str | None], list[Payment]] = {}
    for payment in payments:
        if may_take(payment.terms, block_time):
            terms = payment.terms
            groups.setdefault((terms.recipient, terms.asset.mint), []).append(payment)
    found = []
    for group in groups.values():
        for leg in arrivals(group[0].terms, transaction):
            for payment, why in _fitting(group, leg.net, lines, words):
                found.append(_suggestion(payment, why, leg, transaction, memo, block_time, now))
    return found


def may_take(terms: Terms, block_time: int) -> bool:
    """Whether money of a block of that time could have been meant for the payment."""
    return terms.created_at - CREATED_MARGIN_S <= block_time <= terms.expires_at + terms.grace_s


def memo_of(transaction: Transaction) -> str | None:
    """The text of the transaction's memos, one on each line; None when there are none.

    Written by anybody: it may hold anything that UTF-8 can.
    """
    texts = [
        text
        for instruction in transaction.instructions
        if instruction.program in MEMO_PROGRAMS and len(instruction.data) <= DATA_LENGTH_MAX
        if (text := _text(instruction.data)).strip()
    ]
    return "\n".join(texts)[:MEMO_CHARS_MAX] or None


def _text(data: str) -> str:
    try:
        raw = base58.b58decode(data)
    except ValueError:
        return ""
    # SQLite ends a text at a zero byte where some read it.
    return raw.decode(errors="replace").replace("\0", "\ufffd")


def _lines(memo: str | None) -> tuple[str, ...]:
    """The whole, and each line of it, with and without the space around; each once."""
    if memo is None:
        return ()
    lines = [each for line in (memo, *memo.splitlines()) for each in (line, line.strip())]
    return tuple(dict.fromkeys(filter(None, lines)))[:LINES_MAX]


def _words(memo: str | None) -> tuple[str, ...]:
    """What may be a name: each line, and each word without what stands around it; each once."""
    words = (memo or "").split()
    parts = [part for word in words for part in (word, *re.split(r"[=/|:,;]+", word))]
    bare = (part.strip(_AROUND_WORDS) for part in parts)
    return tuple(dict.fromkeys((*_lines(memo), *filter(None, bare))))[:WORDS_MAX]


def _amounts(transaction: Transaction, destination: str) -> Iterator[int]:
    """What may have arrived: more than did, because whoever asks compares again."""
    for movement in read_ledger(transaction).movements:
        if movement.transfer and movement.destination == destination:
            yield movement.amount
            yield movement.amount - (movement.fee or 0)
    before = {row.account: row.amount for row in transaction.pre_tokens}
    for row in transaction.post_tokens:
        if row.account == destination:
            yield row.amount - before.get(destination, 0)


def _fitting(
    group: Sequence[Payment], amount: int, lines: frozenset[str], words: frozenset[str]
) -> list[tuple[Payment, Why]]:
    """Those that the amount or the memo fits, the likeliest first."""
    found = [
        (payment, why)
        for payment in group
        if (why := _why(payment, amount, lines, words)) is not None
    ]
    # Of equal ones the youngest: whoever was shown a payment pays it soon.
    found.sort(
        key=lambda each: (each[1] is Why.AMOUNT, -each[0].terms.created_at, each[0].terms.id)
    )
    return found[:SUGGESTIONS_PER_LEG_MAX]


def _why(payment: Payment, amount: int, lines: frozenset[str], words: frozenset[str]) -> Why | None:
    is_amount, is_named = amount == payment.terms.amount, _is_named(payment, lines, words)
    if is_amount and is_named:
        return Why.AMOUNT_AND_MEMO
    if is_named:
        return Why.MEMO
    return Why.AMOUNT if is_amount else None


def _is_named(payment: Payment, lines: frozenset[str], words: frozenset[str]) -> bool:
    names = {payment.terms.id, payment.terms.reference}
    names |= {payment.order_id} if payment.order_id is not None else set()
    if not words.isdisjoint(names):
        return True
    return payment.memo is not None and payment.memo in lines


def _suggestion(
    payment: Payment,
    why: Why,
    leg: CreditedLeg,
    transaction: Transaction,
    memo: str | None,
    block_time: int,
    now: int,
) -> Suggestion:
    return Suggestion(
        signature=transaction.signature,
        outer=leg.outer,
        inner=leg.inner,
        sub=leg.sub,
        payment_id=payment.terms.id,
        why=why,
        source=leg.source,
        destination=leg.destination,
        amount=leg.net,
        memo=memo,
        slot=transaction.slot,
        block_time=block_time,
        found_at=now,
    )
