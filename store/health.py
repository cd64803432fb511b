"""What each part of the indexer says of itself, for whoever asks whether all is well.

Several processes may have the same parts. Then the worst of what those say who are still there is
what is told: a part that does not work anywhere is one to look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from store.database import Database, Statement
from store.queries import QUERIES


#: Seconds after the last report of a process from which on a part of it is gone that was silent.
SILENT_S: Final = 30
#: Seconds for which the last words of processes that are gone are kept.
KEPT_S: Final = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The last word of one part.

    Attributes:
        problem: a sentence; None when it is well.
        since: unix seconds, when `problem` last changed.
        updated_at: unix seconds of the report; an old one means that the part is not running.
    """

    component: str
    problem: str | None
    since: int
    updated_at: int


def report(component: str, problem: str | None, now: int, *, instance: str = "") -> Statement:
    """Writes a report over the one before it.

    Args:
        component: the part.
        problem: a sentence; None when it is well.
        now: unix seconds.
        instance: names the process; empty where there is but one.
    """
    return Statement(QUERIES["health_report"], (instance, component, problem, now))


def forget(now: int, *, instance: str) -> Statement:
    """Deletes what processes said that are gone, for a process that is there."""
    return Statement(QUERIES["health_forget"], (now - KEPT_S, instance))


async def last_report(database: Database, component: str, *, machine: str) -> int | None:
    """When a part was last heard of from a machine, unix seconds; None: never.

    Args:
        database: migrated.
        component: the part.
        machine: its host name, with which the names of its processes begin.
    """
    [[[updated_at]]] = await database.read(
        [Statement(QUERIES["health_of_machine"], (component, machine))]
    )
    found: int | None = updated_at
    return found


async def all_of(database: Database) -> list[Report]:
    """The last word on each part that ever made a report, over all processes."""
    [found] = await database.read([Statement(QUERIES["health_all"])])
    said = [
        _Said(
            report=Report(component=component, problem=problem, since=since, updated_at=updated_at),
            instance=instance,
            is_there=bool(is_there),
        )
        for component, problem, since, updated_at, instance, is_there in found
    ]
    last: dict[str, int] = {}
    for each in said:
        last[each.instance] = max(last.get(each.instance, 0), each.report.updated_at)
    parts = groupby(said, key=lambda each: each.report.component)
    return [_worst(list(of_part), last) for _, of_part in parts]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A report, and the process that made it; `is_there`: nobody has taken it to be gone."""

    report: Report
    instance: str
    is_there: bool


def _worst(said: Sequence[_Said], last: Mapping[str, int]) -> Report:
    """What to tell of one part.

    Args:
        said: by each process.
        last: when each process reported anything for the last time.
    """
    present = _present(said, last)
    troubled = [each for each in present if each.problem is not None]
    longest = min(troubled or present, key=lambda each: each.since)
    return Report(
        component=longest.component,
        problem=longest.problem,
        since=longest.since,
        updated_at=max(each.updated_at for each in present),
    )


def _present(said: Sequence[_Said], last: Mapping[str, int]) -> list[Report]:
    """What is still said. No two clocks are compared, as long as a process is there.

    Who is there, the indexers know of each other (see `leases`); whether such a one still speaks
    of the part, what it says of others tells. Of those that are gone the last one counts.
    """
    there = [each for each in said if each.is_there]
    if there:
        speaking = [
            each.report
            for each in there
            if last[each.instance] - each.report.updated_at <= SILENT_S
        ]
        return speaking or [each.report for each in there]
    reports = [each.report for each in said]
    latest = max(each.updated_at for each in reports)
    return [each for each in reports if latest - each.updated_at <= SILENT_S]
