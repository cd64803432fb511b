"""`audit`: are the books right? Reckons everything anew from the chain and compares."""

from argparse import Namespace
from typing import Any, Final

from indexer.audit import Audit, Doubt, Remark, Report
from indexer.card_audit import CardReport, audit_cards
from indexer.cli import typed
from indexer.cli.command import Command, Commands, chain_of, clock, database_of
from indexer.cli.output import print_fields, print_json, print_table
from indexer.cli.progress import progress
from indexer.core.amounts import format_amount
from indexer.core.books import Account
from indexer.core.events import format_time
from indexer.core.reckoning import Difference
from indexer.errors import SourceError, SourceUnavailable
from indexer.settings import Settings


_TEXT = """
    Reckons every payment anew from the chain alone and compares it with the store: verdicts,
    transfers, state, events, and the sums of money. Changes nothing, may run beside the daemon,
    and waits for it where an endpoint takes only so many requests. Payments by card are reckoned
    from the charges that are stored: what became of those, only Paymob's own books can tell.

    exit code 0: nothing differs.
    exit code 1: something differs (listed), or something could not be told (listed too).
    What the store has not come to yet is listed as behind, and is no fault.

    examples:
      axiompay audit
      axiompay audit --since 2026-11-01T00:00:00Z --json
"""

#: Lines of one kind that a person is shown; `--json` has them all.
_SHOWN_MAX: Final = 200
#: What one cell of the table shows at most.
_CELL_MAX: Final = 120


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "audit", Command(_audit), "compare every payment with the chain", _TEXT, as_json=True
    )
    parser.add_argument(
        "--since",
        type=typed.unix_s,
        default=0,
        metavar="TIME",
        help="only payments created then or later; RFC 3339 with a zone (default: all)",
    )


async def _audit(arguments: Namespace, settings: Settings) -> int:
    report, failure = Report(since=arguments.since), None
    async with database_of(settings) as database, chain_of(settings, database) as rpc:
        by_card = await audit_cards(database, since=arguments.since, clock=clock)
        report.differences += by_card.differences
        with progress("payments") as tell:
            try:
                await Audit(database, rpc, report, clock=clock, progress=tell).run()
            except SourceError as error:
                failure = error
    if arguments.json:
        print_json(_as_json(report, by_card, failure))
    else:
        _show(report, by_card, is_complete=failure is None)
    if failure is not None:
        raise SourceUnavailable(
            f"nothing can be said of what was not compared: the chain side does not answer: "
            f"{failure}"
        ) from failure
    return 0 if report.is_clean else 1


# ------------------------------------------------------------------------------- for people


def _show(report: Report, by_card: CardReport, *, is_complete: bool) -> None:
    if report.differences:
        rows = [
            (each.payment_id, each.what, each.where, _cell(each.stored), _cell(each.chain))
            for each in report.differences[:_SHOWN_MAX]
        ]
        print_table(("payment", "what", "where", "stored", "should be"), rows)
        print()
    for title, remarks in (("behind", report.behind), ("not told", report.unproven)):
        if remarks:
            shown = [(each.payment_id, each.where, each.why) for each in remarks[:_SHOWN_MAX]]
            print_table((title, "where", "why"), shown)
            print()
    if report.doubtful:
        print_table(_DOUBT_HEADS, [_doubt_row(each) for each in report.doubtful[:_SHOWN_MAX]])
        print()
    if report.books.accounts:
        heads = ("token", "credits", "legs", "balances gained", "of it beside payments")
        print_table(heads, [_account_row(each) for each in report.books.accounts.values()])
        print()
    if by_card.payments:
        print(f"{by_card.payments} payments by card, reckoned from the charges that are stored")
        print()
    print_fields(
        [
            ("payments", str(report.payments)),
            ("transactions", str(report.transactions)),
            ("finalized slot", str(report.finalized_slot)),
            ("behind", str(len(report.behind))),
            ("doubtful", str(len(report.doubtful))),
            ("not told", str(len(report.unproven))),
            ("differences", str(len(report.differences)) if is_complete else "not known"),
        ]
    )


_DOUBT_HEADS: Final = ("doubtful", "signature", "credit", "debited", "gained", "reasons")


def _doubt_row(doubt: Doubt) -> tuple[str, ...]:
    verdict, evidence = doubt.verdict, doubt.verdict.evidence
    return (
        doubt.payment_id,
        verdict.signature,
        f"{format_amount(verdict.credit, doubt.decimals)} {doubt.symbol}",
        format_amount(evidence.debited, doubt.decimals),
        _signed(evidence.delta, doubt.decimals),
        ", ".join(verdict.reasons),
    )


def _account_row(account: Account) -> tuple[str, ...]:
    decimals = account.asset.decimals
    return (
        account.asset.symbol,
        format_amount(account.credits, decimals),
        format_amount(account.legs, decimals),
        _signed(account.moved, decimals),
        _signed(account.beside, decimals),
    )


def _signed(amount: int, decimals: int) -> str:
    return f"{'-' if amount < 0 else ''}{format_amount(abs(amount), decimals)}"


def _cell(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        value = ", ".join(f"{name} {each}" for name, each in value.items())
    elif isinstance(value, list):
        value = ", ".join(map(str, value)) or "nothing at all"
    text = str(value)
    return text if len(text) <= _CELL_MAX else f"{text[:_CELL_MAX]}…"


# ----------------------------------------------------------------------------- for machines


def _as_json(report: Report, by_card: CardReport, failure: Exception | None) -> dict[str, Any]:
    return {
        "since": format_time(report.since),
        "finalized_slot": report.finalized_slot,
        "complete": failure is None,
        "failure": None if failure is None else str(failure),
        "drift": bool(report.differences) if failure is None or report.differences else None,
        "payments": report.payments,
        "payments_by_card": by_card.payments,
        "transactions": report.transactions,
        "tokens": [_account_json(each) for each in report.books.accounts.values()],
        "differences": [_difference_json(each) for each in report.differences],
        "behind": [_remark_json(each) for each in report.behind],
        "unproven": [_remark_json(each) for each in report.unproven],
        "doubtful": [_doubt_json(each) for each in report.doubtful],
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "payment_id": difference.payment_id or None,
        "what": difference.what,
        "where": difference.where or None,
        "stored": difference.stored,
        "chain": difference.chain,
    }


def _remark_json(remark: Remark) -> dict[str, Any]:
    return {"payment_id": remark.payment_id, "where": remark.where or None, "why": remark.why}


def _account_json(account: Account) -> dict[str, Any]:
    return {
        "symbol": account.asset.symbol,
        "mint": account.asset.mint,
        "decimals": account.asset.decimals,
        "credits": str(account.credits),
        "legs": str(account.legs),
        "gained": str(account.moved),
        "beside": str(account.beside),
    }


def _doubt_json(doubt: Doubt) -> dict[str, Any]:
    verdict, evidence = doubt.verdict, doubt.verdict.evidence
    return {
        "payment_id": doubt.payment_id,
        "signature": verdict.signature,
        "symbol": doubt.symbol,
        "credit": str(verdict.credit),
        "bound": str(evidence.bound),
        "debited": str(evidence.debited),
        "delta": str(evidence.delta),
        "reasons": list(verdict.reasons),
    }
