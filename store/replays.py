"""Runs of `axiompay replay`: what was asked for, how far it came, and what it found.

How far a run came is written together with what it stored, or after it, so that it can be
resumed where it was killed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core.ranges import Slots
from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


#: Unfinished runs that are looked through, the newest first, for one to be resumed.
UNFINISHED_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that did not finish.

    Attributes:
        strategy: `signatures` or `blocks`.
        keys: whose transactions are looked for, sorted.
        done_to: everything up to this slot is stored; None: nothing is, or slots do not tell.
        report: what its own code noted.
        started_at: unix seconds.
    """

    id: int
    strategy: str
    keys: tuple[str, ...]
    slots: Slots
    done_to: int | None
    report: Mapping[str, Any]
    started_at: int


async def begin(
    database: Database,
    strategy: str,
    keys: Sequence[str],
    slots: Slots,
    report: Mapping[str, Any],
    now: int,
) -> int:
    """Notes that a run begins; returns its number."""
    values = (strategy, json_text(sorted(keys)), slots.first, slots.last, json_text(report), now)
    [[(number,)]] = await database.write([Statement(QUERIES["replay_begin"], values)])
    return int(number)


def progress(run: int, done_to: int | None, report: Mapping[str, Any], now: int) -> Statement:
    """Everything up to `done_to` is stored."""
    return Statement(QUERIES["replay_progress"], (run, done_to, json_text(report), now))


def finish(run: int, done_to: int, report: Mapping[str, Any], now: int) -> Statement:
    """Everything that was asked for is stored."""
    return Statement(QUERIES["replay_finish"], (run, done_to, json_text(report), now))


async def unfinished(database: Database, strategy: str, slots: Slots) -> list[Run]:
    """Runs of that strategy over exactly these slots that did not finish, the newest first."""
    values = (strategy, slots.first, slots.last, UNFINISHED_MAX)
    [found] = await database.read([Statement(QUERIES["replays_unfinished"], values)])
    return [
        Run(
            id=id_,
            strategy=strategy,
            keys=tuple(msgspec.json.decode(keys, type=list[str])),
            slots=slots,
            done_to=done_to,
            report=msgspec.json.decode(report, type=dict[str, Any]),
            started_at=started_at,
        )
        for id_, keys, done_to, report, started_at in found
    ]
