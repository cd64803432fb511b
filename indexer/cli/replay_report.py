"""What a replay came to, as `replay` prints it."""

from typing import Any, Final

from indexer.cli.output import print_fields, print_table, say
from indexer.core.outcome import Outcome, Preview
from indexer.undertaking import Report, Strategy


#: Lines of a table; `--json` has more.
_SHOWN_MAX: Final = 200


def what_is_left(report: Report, failure: BaseException | None) -> str:
    """What is stored when not all is well, and what to do next."""
    if report.dry_run:
        return "nothing was written; some of it could not be examined"
    if failure is None:
        unread = report.tally.outcomes[Outcome.UNREADABLE]
        return f"{unread} transactions could not be read and are kept: see `axiompay dlq list`"
    if report.run is None:
        return f"{report.tally.examined} transactions were examined; the same command begins anew"
    stored = f"{report.tally.examined} transactions"
    if report.done_to is not None:
        stored = f"everything up to slot {report.done_to}"
    return (
        f"run {report.run} is incomplete; {stored} examined and stored; "
        "the same command with --resume goes on"
    )


def show(report: Report, seconds: float) -> None:
    """The report as a table, for a person."""
    if report.dry_run:
        _show_named(report)
    counts = {name: count for name, count in _outcomes(report).items() if count}
    fields = [
        ("strategy", f"{report.strategy}{' (dry run)' if report.dry_run else ''}"),
        ("slots", f"{report.slots.first} to {report.slots.last}"),
        ("examined", str(report.tally.examined)),
        *((name, str(count)) for name, count in counts.items()),
    ]
    if report.strategy is Strategy.BLOCKS:
        fields.insert(2, ("blocks", f"{report.tally.blocks}"))
        fields.insert(3, ("transactions", f"{report.tally.transactions}"))
    for key, slots in report.coverage.items():
        complete = report.frontiers.get(key)
        to = "" if complete is None else f", complete to slot {complete}"
        fields.append(("covered", f"{key} {slots.first} to {slots.last}{to}"))
    print_fields([*fields, ("seconds", f"{seconds:.1f}")])


def _show_named(report: Report) -> None:
    if not report.named:
        return
    rows = [
        (
            each.signature,
            "-" if each.slot is None else str(each.slot),
            each.outcome,
            " ".join(f"{id_}:{credit}" for id_, credit in each.credits.items()) or "-",
            ", ".join(filter(None, (*each.reasons, each.detail))) or "-",
        )
        for each in report.named[:_SHOWN_MAX]
    ]
    print_table(("signature", "slot", "outcome", "credits", "reasons"), rows)
    if report.tally.examined > len(rows):
        say(f"{report.tally.examined - len(rows)} more are only counted; --json has more of them")
    print()


def _outcomes(report: Report) -> dict[str, int]:
    """Counts by outcome; what would be credited was credited, unless it is a dry run."""
    counts = {str(name): count for name, count in report.tally.outcomes.items()}
    if not report.dry_run:
        counts = {"credited": counts.pop(Outcome.WOULD_CREDIT), **counts}
    return counts


def as_json(report: Report, seconds: float, failure: BaseException | None) -> dict[str, Any]:
    """All of it, for a machine; `failure` is what ended the run early, if anything did."""
    return {
        "run": report.run,
        "strategy": report.strategy,
        "dry_run": report.dry_run,
        "resumed": report.resumed,
        "complete": failure is None and report.complete,
        "failure": None if failure is None else str(failure) or type(failure).__name__,
        "first_slot": report.slots.first,
        "last_slot": report.slots.last,
        "done_to": report.done_to,
        "keys": list(report.keys),
        "slots": report.tally.slots,
        "blocks": report.tally.blocks,
        "transactions": report.tally.transactions,
        "examined": report.tally.examined,
        "outcomes": _outcomes(report),
        "coverage": [
            {"key": key, "first_slot": slots.first, "last_slot": slots.last}
            for key, slots in report.coverage.items()
        ],
        "frontiers": report.frontiers,
        "seconds": seconds,
        "named": [_named_json(each) for each in report.named] if report.dry_run else [],
    }


def _named_json(preview: Preview) -> dict[str, Any]:
    credits_ = [
        {"payment_id": id_, "credit_base_units": str(credit)}
        for id_, credit in preview.credits.items()
    ]
    return {
        "signature": preview.signature,
        "slot": preview.slot,
        "outcome": preview.outcome,
        "credits": credits_,
        "reasons": list(preview.reasons),
        "detail": preview.detail or None,
    }
