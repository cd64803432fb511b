"""The last figures that each process told of itself, for whoever serves them to a monitor."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from store.database import Database, Statement
from store.queries import QUERIES


#: Seconds for which the last figures of a process that is gone are kept.
KEPT_S: Final = 3_600


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


def of_writes(database: Database) -> Iterator[Measure]:
    """How this process writes: batches for each group say how well commits are shared."""
    figures = database.figures
    for name, value in (
        ("axiom_write_groups_total", figures.groups),
        ("axiom_write_batches_total", figures.batches),
        ("axiom_write_answers_lost_total", figures.answers_lost),
    ):
        yield Measure(name=name, kind=Kind.COUNTER, value=value)


def report(measures: Iterable[Measure], now: int, *, instance: str = "") -> list[Statement]:
    """Writes the figures over those before them, and deletes old ones of processes that are gone.

    Args:
        measures: of one process.
        now: unix seconds.
        instance: names the process; empty where there is but one.
    """
    told = [
        Statement(
            QUERIES["measure_report"],
            (
                instance,
                each.name,
                json.dumps(each.labels, sort_keys=True),
                each.kind,
                str(each.value),
                now,
            ),
        )
        for each in measures
    ]
    return [*told, Statement(QUERIES["measures_forget"], (now - KEPT_S,))]


async def told_since(database: Database, since: int) -> list[Measure]:
    """The figures of processes that were alive then (unix seconds) or later, by name.

    Where processes have names, each figure says by the label `process` whose it is.
    """
    [found] = await database.read([Statement(QUERIES["measures_since"], (since,))])
    return [
        Measure(
            name=name,
            labels=json.loads(labels) | ({"process": instance} if instance else {}),
            kind=Kind(kind),
            value=float(value),
        )
        for instance, name, labels, kind, value in found
    ]
