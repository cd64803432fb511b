"""`review`: what waits for a person, and what the person decides."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from indexer.cli.command import (
    Command,
    Commands,
    add_limit,
    chain_of,
    clock,
    database_of,
    pipeline_of,
)
from indexer.cli.output import plain, print_json, print_table, say
from indexer.cli.payments import payment_id, print_record
from indexer.core.amounts import format_amount
from indexer.core.events import format_time
from indexer.core.payment import AnyPayment, Payment
from indexer.core.suggest import Suggestion
from indexer.core.verdict import Verdict
from indexer.errors import InvalidInput
from indexer.review import CannotDecide, Question, Review, Waiting
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from store.cards import CardRecord


_LIST_DEFAULT: Final = 100
_LIST_MAX: Final = 10_000

_LIST = """
    What waits for a person, the oldest first: money that is in doubt, with the numbers that
    say why, and transfers that name no payment and may be meant for one. And payments by card
    of which too much was paid or a part was refunded: these are put right at Paymob, and leave
    the list when nothing is left to decide.

    examples:
      axiompay review list
      axiompay review list --json | jq 'select(.kind == "suggestion")'
"""
_MATCH = """
    Gives a transfer that names no payment to one, once and for ever. The transaction is
    fetched again, proven final, and judged by the same rule as all others; it must pay the
    payment's recipient in its asset, and name or pay no other payment. What it brings counts
    however late it came. A part of the amount is a part, as always.

    example:
      axiompay review match <signature> pay_01jd0000000000000000000000 --note "mail of Tuesday"
"""
_ACCEPT = """
    Lets doubtful money count as if nothing were in doubt, however late it came. A payment that
    is paid by it is settled, unless it was canceled: then only the question is answered.

    examples:
      axiompay review accept pay_01jd0000000000000000000000
      axiompay review accept pay_01jd0000000000000000000000 --signature <signature>
"""
_REFUSE = """
    Lets doubtful money count for nothing, and dismisses suggestions: all of a payment's, or all
    of a transaction's. It stays where it is on the chain, and is shown as received.

    examples:
      axiompay review refuse pay_01jd0000000000000000000000 --note "sent back"
      axiompay review refuse <signature> <signature>
"""


def add_to(commands: Commands) -> None:
    """Adds the four commands."""
    listing = commands.add("list", Command(_list), "what waits for a decision", _LIST, as_json=True)
    add_limit(listing, _LIST_DEFAULT, _LIST_MAX, what="of each kind, at most")
    match = commands.add(
        "match", Command(_match), "give a transfer to a payment", _MATCH, as_json=True
    )
    match.add_argument("signature", metavar="SIGNATURE", help="of the transaction")
    match.add_argument("id", metavar="PAYMENT_ID", type=payment_id)
    accept = commands.add(
        "accept", Command(_accept), "let doubtful money count", _ACCEPT, as_json=True
    )
    accept.add_argument("id", metavar="PAYMENT_ID", type=payment_id)
    accept.add_argument("--signature", metavar="S", help="only this transaction")
    refuse = commands.add(
        "refuse", Command(_refuse), "let doubtful money count for nothing", _REFUSE, as_json=True
    )
    refuse.add_argument(
        "subjects", nargs="+", metavar="PAYMENT_ID|SIGNATURE", help="what it is about"
    )
    for parser in (match, accept, refuse):
        parser.add_argument("--note", metavar="TEXT", help="why; kept with the decision")


@asynccontextmanager
async def _review(settings: Settings, *, asks_chain: bool = False) -> AsyncIterator[Review]:
    """The decisions over the store; the chain is only asked where it must be."""
    async with database_of(settings) as database:
        if not asks_chain:
            rpc = Rpc(settings.rpc_urls)  # never opened
            yield Review(database, pipeline_of(database, rpc), clock=clock)
            return
        async with chain_of(settings, database) as rpc:
            yield Review(database, pipeline_of(database, rpc), clock=clock)


async def _list(arguments: Namespace, settings: Settings) -> int:
    async with _review(settings) as review:
        waiting = await review.waiting(arguments.limit)
    if arguments.json:
        for question in waiting.questions:
            print_json(_question(question))
        for suggestion, record in waiting.suggested:
            print_json(_suggestion(suggestion, record.payment))
        for by_card in waiting.by_card:
            print_json(_by_card(by_card))
    else:
        _print_tables(waiting)
    if not waiting.is_all:
        say("there is more; see --limit")
    return 0


async def _match(arguments: Namespace, settings: Settings) -> int:
    async with _review(settings, asks_chain=True) as review:
        record = await review.match(arguments.signature, arguments.id, note=arguments.note)
    print_record(record, as_json=arguments.json)
    return 0


async def _accept(arguments: Namespace, settings: Settings) -> int:
    async with _review(settings) as review:
        record = await review.accept(
            arguments.id, signature=arguments.signature, note=arguments.note
        )
    print_record(record, as_json=arguments.json)
    return 0


async def _refuse(arguments: Namespace, settings: Settings) -> int:
    """Each by itself: what cannot be refused keeps the others from nothing."""
    code = 0
    async with _review(settings) as review:
        for subject in dict.fromkeys(arguments.subjects):
            try:
                refusal = await review.refuse(subject, note=arguments.note)
            except (CannotDecide, InvalidInput) as error:
                say(str(error))
                code = max(code, 2 if isinstance(error, InvalidInput) else 1)
                continue
            if not arguments.json:
                print(f"{subject}: {refusal.refused} refused, {refusal.dismissed} dismissed")
            for record in refusal.payments:
                if arguments.json:
                    print_record(record, as_json=True)
                else:
                    print(f"{record.payment.terms.id} {_standing(record.payment)}")
    return code


# ------------------------------------------------------------------------------- for machines


def _question(question: Question) -> dict[str, Any]:
    payment = question.record.payment
    verdicts = {verdict.signature: verdict for verdict in question.record.verdicts}
    return {
        "kind": "question",
        **_payment(payment),
        "review": list(payment.state.review),
        "transactions": [
            _transaction(verdicts[signature], reasons, payment)
            for signature, reasons in question.asked.items()
        ],
    }


def _transaction(verdict: Verdict, reasons: tuple[str, ...], payment: Payment) -> dict[str, Any]:
    evidence = verdict.evidence
    return {
        "signature": verdict.signature,
        "reasons": list(reasons),
        "credit": format_amount(verdict.credit, payment.terms.asset.decimals),
        "credit_base_units": str(verdict.credit),
        "slot": verdict.slot,
        "block_time": _time(verdict.block_time),
        "evidence": {
            "bound": str(evidence.bound),
            "debited": str(evidence.debited),
            "delta": str(evidence.delta),
            "other_inflow": str(evidence.other_inflow),
            "fee_lamports": str(evidence.fee_lamports),
        },
    }


def _suggestion(suggestion: Suggestion, payment: Payment) -> dict[str, Any]:
    return {
        "kind": "suggestion",
        **_payment(payment),
        "signature": suggestion.signature,
        "why": suggestion.why,
        "arrived": format_amount(suggestion.amount, payment.terms.asset.decimals),
        "arrived_base_units": str(suggestion.amount),
        "source": suggestion.source,
        "destination": suggestion.destination,
        "memo": suggestion.memo,
        "slot": suggestion.slot,
        "block_time": _time(suggestion.block_time),
        "found_at": format_time(suggestion.found_at),
    }


def _by_card(record: CardRecord) -> dict[str, Any]:
    return {
        "kind": "by_card",
        **_payment(record.payment),
        "review": list(record.payment.state.review),
        "charges": [str(charge.id) for charge in record.charges if charge.paid_at is not None],
    }


def _payment(payment: AnyPayment) -> dict[str, Any]:
    terms, state = payment.terms, payment.state
    return {
        "payment_id": terms.id,
        "order_id": payment.order_id,
        "status": state.status,
        "paid": state.paid,
        "token": terms.asset.symbol,
        "amount": format_amount(terms.amount, terms.asset.decimals),
        "received": format_amount(state.received, terms.asset.decimals),
        "created_at": format_time(terms.created_at),
    }


def _time(unix_s: int | None) -> str | None:
    return None if unix_s is None else format_time(unix_s)


# --------------------------------------------------------------------------------- for people


def _print_tables(waiting: Waiting) -> None:
    if not (waiting.questions or waiting.suggested or waiting.by_card):
        print("nothing waits for a decision")
        return
    if waiting.questions:
        print("In doubt: accept or refuse")
        heads = ("payment", "status", "amount", "signature", "credit", "why", "numbers")
        print_table(heads, [row for each in waiting.questions for row in _question_rows(each)])
    if waiting.questions and waiting.suggested:
        print()
    if waiting.suggested:
        print("Suggested: match or refuse")
        columns = ("payment", "order", "amount", "arrived", "why", "at", "signature", "memo")
        print_table(columns, [_suggestion_row(each, r.payment) for each, r in waiting.suggested])
    if waiting.by_card and (waiting.questions or waiting.suggested):
        print()
    if waiting.by_card:
        print("By card: to be put right at Paymob")
        names = ("payment", "status", "amount", "received", "why", "transactions")
        print_table(names, [_card_row(each) for each in waiting.by_card])


def _card_row(record: CardRecord) -> list[str]:
    payment, state = record.payment, record.payment.state
    return [
        payment.terms.id,
        state.status,
        _amount(payment),
        format_amount(state.received, payment.terms.asset.decimals),
        ", ".join(state.review),
        " ".join(str(charge.id) for charge in record.charges if charge.paid_at is not None),
    ]


def _question_rows(question: Question) -> list[list[str]]:
    payment = question.record.payment
    decimals = payment.terms.asset.decimals
    verdicts = {verdict.signature: verdict for verdict in question.record.verdicts}
    rows = []
    for signature, reasons in question.asked.items():
        verdict = verdicts[signature]
        evidence = verdict.evidence
        rows.append(
            [
                payment.terms.id,
                payment.state.status,
                _amount(payment),
                signature,
                format_amount(verdict.credit, decimals),
                ", ".join(reasons),
                f"{evidence.bound} bound, {evidence.debited} debited, {evidence.delta} gained",
            ]
        )
    return rows


def _suggestion_row(suggestion: Suggestion, payment: Payment) -> list[str]:
    return [
        payment.terms.id,
        payment.order_id or "-",
        _amount(payment),
        format_amount(suggestion.amount, payment.terms.asset.decimals),
        suggestion.why.replace("_", " "),
        _time(suggestion.block_time) or "-",
        suggestion.signature,
        "-" if suggestion.memo is None else plain(suggestion.memo),
    ]


def _standing(payment: Payment) -> str:
    state = payment.state
    review = f", review: {', '.join(state.review)}" if state.review else ""
    return f"{state.status}, paid: {state.paid}{review}"


def _amount(payment: AnyPayment) -> str:
    terms = payment.terms
    return f"{format_amount(terms.amount, terms.asset.decimals)} {terms.asset.symbol}"
