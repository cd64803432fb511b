"""Planted faults of the way to a libSQL server, which a world on a real one must find.

As in `faults`; they show where answers are lost, so their worlds lose many.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from store.libsql_writer import LibsqlWriter
from tests.simulation.planting import Edit, Fault
from tests.simulation.profile import Profile


def _with_lost_answers(profile: Profile) -> Profile | None:
    """With a provider: a webhook that is taken in twice is counted twice."""
    if profile.provider is None:
        return None
    return replace(profile, write_fails=0.6, read_fails=0.0, crashes=0, daemons=1, payments=3)


SERVER_FAULTS: Final[Sequence[Fault]] = (
    Fault(
        name="a write whose answer was lost is sent again blindly",
        shows_in=21,
        edits=[
            Edit(
                where=LibsqlWriter._commit,
                old="return await self._resolved(jobs, numbers, error, again=again)",
                new="return await self._once_more(jobs, again=again)",
            )
        ],
        world=_with_lost_answers,
    ),
    Fault(
        name="a write whose answer was lost counts as done",
        edits=[
            Edit(
                where=LibsqlWriter._commit,
                old="return await self._resolved(jobs, numbers, error, again=again)",
                new="return [[] for _ in jobs]",
            )
        ],
        world=_with_lost_answers,
    ),
    Fault(
        name="a number that is not there is not taken away",
        shows_in=9,
        edits=[
            Edit(
                where=LibsqlWriter._applied,
                old="self._abandon(numbers), ",
                new="Statement('SELECT 1'), ",
            )
        ],
        world=_with_lost_answers,
    ),
)
