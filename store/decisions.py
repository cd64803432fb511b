"""What persons said of single transactions: written once, and read with the payment."""

from collections.abc import Iterable
from typing import Any

from indexer.core.types import DecisionKind
from indexer.core.verdict import Decision
from store.database import Rows, Statement
from store.queries import QUERIES


def insert(decision: Decision) -> Statement:
    """Stores a decision; one that is there already refuses the whole batch.

    Belongs into the batch that changes the payment: a decision is an input of its state.
    """
    values = (
        decision.payment_id,
        decision.signature,
        decision.kind,
        decision.note,
        decision.decided_at,
    )
    return Statement(QUERIES["decision_insert"], values)


def by_payment(rows: Rows) -> dict[str, tuple[Decision, ...]]:
    """Rows of `decisions_by_ids`, by payment, sorted by signature."""
    found: dict[str, list[Decision]] = {}
    for decision in sorted(map(_decision, rows), key=lambda decision: decision.signature):
        found.setdefault(decision.payment_id, []).append(decision)
    return {payment_id: tuple(each) for payment_id, each in found.items()}


def signatures(decisions: Iterable[Decision], *kinds: DecisionKind) -> frozenset[str]:
    """The signatures that were decided in one of these ways."""
    return frozenset(decision.signature for decision in decisions if decision.kind in kinds)


def _decision(row: tuple[Any, ...]) -> Decision:
    payment_id, signature, kind, note, decided_at = row
    return Decision(
        payment_id=payment_id,
        signature=signature,
        kind=DecisionKind(kind),
        note=note,
        decided_at=decided_at,
    )
