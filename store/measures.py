"""The last figures that each process told of itself, for whoever serves them to a monitor."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from store.database import Database, Statement
from store.queries import QUERIES


class Kind(StrEnum):
    """What a figure does over time."""

    COUNTER = "counter"  # grows, and begins anew with its process
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure.

    Attributes:
        name: as Prometheus wants it: unit last, `_total` at the end of a counter.
        labels: tell apart the figures of one name.
    """

    name: str
    kind: Kind
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def report(measures: Iterable[Measure], now: int) -> list[Statement]:
    """Writes the figures over those before them."""
    return [
        Statement(
            QUERIES["measure_report"],
            (each.name, json.dumps(each.labels, sort_keys=True), each.kind, str(each.value), now),
        )
        for each in measures
    ]


async def told_since(database: Database, since: int) -> list[Measure]:
    """The figures of processes that were alive then (unix seconds) or later, by name."""
    [found] = await database.read([Statement(QUERIES["measures_since"], (since,))])
    return [
        Measure(name=name, labels=json.loads(labels), kind=Kind(kind), value=float(value))
        for name, labels, kind, value in found
    ]
