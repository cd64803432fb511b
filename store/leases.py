"""Which indexers there are, and who does which work.

An indexer says that it is there by counting up a number of its own; others watch whether the
number changes. Work changes hands by one statement that is true or false as a whole: from nobody,
or from one whose number is still the one that was seen too often. Each time its token grows, so
that a write of the one before can be refused (see `guard`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from store.connection import Rows
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Holder of what was given back.
NOBODY: Final = ""
#: No unit: its row keeps the highest token of all that were deleted.
DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One start of one indexer.

    Attributes:
        id: names it among all that use the database.
        version: of the release that it runs.
        machine: the same for processes that can see each other; empty when unknown.
        process: which one there.
        started_at: unix seconds.
        beats: how often it said that it is there.
        seen_at: when it last did, by its own clock; unix seconds.
    """

    id: str
    version: str
    machine: str
    process: str
    started_at: int
    beats: int = 0
    seen_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who does one unit of work; `NOBODY` when it was given back."""

    name: str
    holder: str
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """How all of it stands.

    Attributes:
        instances: by id.
        leases: by name.
    """

    instances: Mapping[str, Instance]
    leases: Mapping[str, Lease]


# ------------------------------------------------------------------------------------- writing


def beat(instance: Instance, now: int) -> Statement:
    """Says that it is there, once more or for the first time."""
    values = (
        instance.id, instance.version, instance.machine, instance.process, instance.started_at, now
    )  # fmt: skip
    return Statement(QUERIES["instance_beat"], values)


def take(names: Collection[str], taker: str, absent: Mapping[str, int]) -> Statement:
    """Takes those of the units that nobody does, or only somebody who is gone.

    Args:
        names: of the units.
        taker: who takes them.
        absent: who is taken to be gone, with the number that did not change. Somebody whose
            number is another by now keeps what it has.
    """
    values = (json_text(sorted(names)), taker, json_text(dict(absent)))
    return Statement(QUERIES["leases_take"], values)


def give_back(names: Collection[str], holder: str) -> Statement:
    """Gives back units, so that anybody may take them at once."""
    return Statement(QUERIES["leases_give_back"], (json_text(sorted(names)), holder))


def delete(names: Collection[str]) -> list[Statement]:
    """Deletes units that are no work any more, where nobody does them.

    Whoever takes one after all, such as who has not heard of its end yet, gets a higher token than
    it ever had.
    """
    values = (json_text(sorted(names)),)
    statements = ("leases_delete_mark", "leases_delete")
    return [Statement(QUERIES[each], values) for each in statements]


def leave(holder: str) -> list[Statement]:
    """The end of an indexer, in order: it has no work any more, and is not there."""
    return [
        Statement(QUERIES["leases_give_back_all"], (holder,)),
        Statement(QUERIES["instance_leave"], (holder,)),
    ]


def forget(absent: Mapping[str, int]) -> Statement:
    """Deletes indexers that are gone, with the number that did not change, and have no work."""
    return Statement(QUERIES["instances_forget"], (json_text(dict(absent)),))


def guard(lease: Lease) -> Statement:
    """Refuses the batch that it stands in when the work has changed hands since.

    Raises (when it is written):
        Conflict: it has.
    """
    return Statement(QUERIES["lease_guard"], (lease.name, lease.holder, lease.token))


# ------------------------------------------------------------------------------------- reading


def look() -> tuple[Statement, Statement]:
    """What `board` is made of; may stand at the end of a batch that writes."""
    return Statement(QUERIES["instances_all"]), Statement(QUERIES["leases_all"])


def board(instances: Rows, leases: Rows) -> Board:
    """How all of it stands, from what `look` returned."""
    return Board(
        instances={row[0]: _instance(*row) for row in instances},
        leases={
            name: Lease(name=name, holder=holder, token=token)
            for name, holder, token in leases
            if name != DELETED
        },
    )


async def read(database: Database) -> Board:
    """How all of it stands, for whoever only looks."""
    return board(*await database.read(list(look())))


def _instance(*row: Any) -> Instance:
    id_, version, machine, process, started_at, beats, seen_at = row
    return Instance(
        id=id_,
        version=version,
        machine=machine,
        process=process,
        started_at=started_at,
        beats=beats,
        seen_at=seen_at,
    )
