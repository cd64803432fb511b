"""One outcome of a simulated world, with what several of the judge's rules need of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from tests.simulation.outcome import Change, Landed, Move, Outcome
from tests.simulation.reckoning import Reckoning


Row = Mapping[str, Any]

T = TypeVar("T")


class Case:
    """One outcome, with what several rules need of it."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.truth = Reckoning(outcome)

    @cached_property
    def payments(self) -> Mapping[str, Row]:
        """Id -> row."""
        return {row["id"]: row for row in self.outcome.rows["payments"]}

    @cached_property
    def verdicts(self) -> Mapping[tuple[str, str], Row]:
        """(signature, payment id) -> row."""
        rows = self.outcome.rows["verdicts"]
        return {(row["signature"], row["payment_id"]): row for row in rows}

    @cached_property
    def found(self) -> Mapping[str, frozenset[str]]:
        """Payment id -> the signatures that were judged for it."""
        found: dict[str, set[str]] = defaultdict(set)
        for signature, payment_id in self.verdicts:
            found[payment_id].add(signature)
        return {id_: frozenset(found[id_]) for id_ in self.truth.terms}

    @cached_property
    def unplaced(self) -> frozenset[str]:
        """Signatures of which no node said where in their slot they are."""
        rows = self.outcome.rows["verdicts"]
        return frozenset(row["signature"] for row in rows if row["transaction_index"] is None)

    @cached_property
    def changes(self) -> Mapping[str, Sequence[Change]]:
        """Payment id -> its versions, in the order in which they were stored."""
        return grouped(self.outcome.changes, lambda change: change.payment_id)

    @cached_property
    def events(self) -> Mapping[str, Sequence[Row]]:
        """Payment id -> its events, by seq."""
        return grouped(self.outcome.events, lambda event: event["payment_id"])

    @cached_property
    def moves(self) -> Mapping[str, Sequence[Move]]:
        """Watched key -> the movements of its frontier, in order."""
        return grouped(self.outcome.moves, lambda move: move.key)

    @cached_property
    def finalized(self) -> Mapping[str, Landed]:
        """Signature -> where it landed for good."""
        return {landed.signature: landed for landed in self.outcome.finalized}


#: Says what breaks it, in sentences.
Rule = Callable[[Case], Iterator[str]]


def grouped(values: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """The values by key, in their order."""
    groups: dict[str, list[T]] = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    return groups
