"""What each part of the indexer says of itself, for whoever asks whether all is well."""

from dataclasses import dataclass

from store.database import Database, Statement
from store.queries import QUERIES


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


def report(component: str, problem: str | None, now: int) -> Statement:
    """Writes a report over the one before it."""
    return Statement(QUERIES["health_report"], (component, problem, now))


async def all_of(database: Database) -> list[Report]:
    """The reports of all parts that ever made one."""
    [found] = await database.read([Statement(QUERIES["health_all"])])
    return [
        Report(component=component, problem=problem, since=since, updated_at=updated_at)
        for component, problem, since, updated_at in found
    ]
