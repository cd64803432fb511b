"""Planted faults: bugs that somebody might write, and that the simulator must find.

    with planted(fault):
        objections = judge(World(seed).run())

None of them may be left out because its words are not in the source any more: these are the
proof that the simulator can see.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from indexer import pipeline
from indexer.core import events, settle, verify
from indexer.expiry import Expiry
from indexer.live import Live
from indexer.parked import Parked
from indexer.pipeline import Pipeline
from indexer.references import References
from indexer.sources import history, truth
from indexer.sources.rpc import Rpc
from indexer.survey import Surveyor
from indexer.sweep import Sweeper
from tests.simulation.planting import Edit, Fault, Kind, any_world
from tests.simulation.profile import Profile


# ------------------------------------------------ kinds of worlds


def _in_all_nodes(profile: Profile, **troubles: Any) -> Profile:
    return replace(profile, tempers=[replace(temper, **troubles) for temper in profile.tempers])


def _without_doorbells(profile: Profile) -> Profile:
    return replace(profile, lines=[replace(line, loses=1.0) for line in profile.lines])


def _with_a_slow_store(profile: Profile) -> Profile:
    return replace(profile, store_latency_s=0.5)


def _with_a_failing_store(profile: Profile) -> Profile:
    return replace(_without_doorbells(profile), read_fails=0.1, write_fails=0.1)


def _with_nulls(profile: Profile) -> Profile:
    return _in_all_nodes(profile, nulls=0.9, latency_s=0.05)


def _with_nodes_that_ignore_commitment(profile: Profile) -> Profile | None:
    if not profile.pace.depth:
        return None
    forking = replace(profile.pace, fork=0.6)
    return replace(_in_all_nodes(profile, ignores_commitment=True), pace=forking)


def _with_a_liar(profile: Profile) -> Profile | None:
    return profile if any(temper.lies for temper in profile.tempers) else None


def _with_late_lists(profile: Profile) -> Profile:
    return _in_all_nodes(_without_doorbells(profile), late_index=0.9)


def _with_nodes_behind(profile: Profile) -> Profile | None:
    return profile if any(t.behind or t.spells for t in profile.tempers) else None


def _with_short_pages(profile: Profile) -> Profile:
    return _in_all_nodes(profile, short_pages=True)


def _with_lost_places(profile: Profile) -> Profile:
    """Short pages, after which a node is silent about having lost its place."""
    return _in_all_nodes(
        _without_doorbells(profile),
        short_pages=True,
        is_silent_about_before=True,
        loses_place=0.5,
    )


def _with_forks_and_crashes(profile: Profile) -> Profile | None:
    if not profile.pace.depth:
        return None
    return replace(profile, crashes=4, pace=replace(profile.pace, fork=0.6, lands_again=0.0))


def _one(
    name: str,
    *,
    where: Callable[..., Any] | str,
    old: str,
    new: str,
    world: Kind = any_world,
    shows_in: int = 0,
) -> Fault:
    edits = (Edit(where=where, old=old, new=new),)
    return Fault(name=name, edits=edits, world=world, shows_in=shows_in)


FAULTS: Final[Sequence[Fault]] = (
    # ------------------------------------------------ what is written, and when
    _one(
        "the cursor moves before the signatures are settled",
        where=Sweeper.sweep,
        old="""        survey = await self._surveyor.look(
            key, known, finalized, partial(self._examine_new, key), created_at=oldest
        )
        frontier, now = survey.frontier, int(self._clock())
        batch = [""",
        new="""        later = []
        async def keep(rows):
            later.append(rows)
        survey = await self._surveyor.look(key, known, finalized, keep, created_at=oldest)
        frontier, now = survey.frontier, int(self._clock())
        await self._database.write([cursors.advance(frontier)])
        for rows in later:
            await self._examine_new(key, rows)
        batch = [""",
    ),
    _one(
        "events are written after the state",
        shows_in=3,
        where=Pipeline.change,
        old="await self._database.write(batch)",
        new="""await self._database.write([s for s in batch if "INTO events" not in s.sql])
                await self._database.write([s for s in batch if "INTO events" in s.sql])""",
    ),
    _one(
        "each statement is a write of its own",
        where=Pipeline.change,
        old="await self._database.write(batch)",
        new="[await self._database.write([statement]) for statement in batch]",
    ),
    _one(
        "a write that was refused counts as done",
        shows_in=49,
        where=Pipeline.change,
        old="continue",
        new="return True",
        world=_with_a_slow_store,
    ),
    _one(
        "a write whose fate is unknown is repeated without its condition",
        where=Pipeline.change,
        old="await self._database.write(batch)",
        new="""try:
                    await self._database.write(batch)
                except Exception:
                    plain = [s for s in batch if "UPDATE payments" not in s.sql]
                    await self._database.write(plain)""",
        world=_with_a_failing_store,
    ),
    _one(
        "a signature is remembered before it is stored",
        where=Sweeper._examine_new,
        old="""await self._pipeline.settle([Found.listed(row, key) for row in batch])
            self._remember(batch)""",
        new="""self._remember(batch)
            await self._pipeline.settle([Found.listed(row, key) for row in batch])""",
        world=_with_a_failing_store,
    ),
    # ------------------------------------------------ what null is taken for
    _one(
        "what no node has is not parked",
        where=Pipeline.keep,
        old="if park and unread:",
        new="if park and [each for each in unread if each.reason != 'not_found']:",
        world=_with_nulls,
    ),
    _one(
        "what is parked does not hold back expiry",
        shows_in=8,
        where=Expiry.expire_before,
        old="if await dead_letters.holding(self._database):",
        new="if False:",
        world=_with_nulls,
    ),
    _one(
        "a letter is given up at once",
        where=pipeline._letter,
        old="None if is_given_up else now + delay_s",
        new="None",
        world=_with_nulls,
    ),
    # ------------------------------------------------ what is taken for true
    _one(
        "the commitment of an answer is believed",
        shows_in=4,
        where=truth._ask,
        old="if not isinstance(answer, Transaction) or answer.slot <= final_slot:",
        new="if True:",
        world=_with_nodes_that_ignore_commitment,
    ),
    _one(
        "a sighting settles",
        where=Pipeline.sight,
        old="self._sighting",
        new="self._settlement",
    ),
    _one(
        "the first answer is enough for any quorum",
        where=truth._read,
        old="rpc.quorum if commitment is Commitment.FINALIZED else 1",
        new="1",
        world=_with_a_liar,
    ),
    _one(
        "one endpoint's word is enough for the time of a block",
        where=Rpc.block_time,
        old="(self._block_time(slot) if self.quorum == 1 else self._agreed_time(slot))",
        new="self._block_time(slot)",
        world=_with_a_liar,
    ),
    _one(
        "one endpoint's word is enough for what is finalized",
        where=Rpc.finalized_slot,
        old="return slots[-self.quorum]",
        new="return slots[-1]",
        world=_with_a_liar,
    ),
    _one(
        "one endpoint's list is enough for any quorum",
        shows_in=54,
        where=history.history,
        old="if complete == rpc.quorum:",
        new="if complete == 1:",
        world=_with_a_liar,
    ),
    # ------------------------------------------------ what a list is taken for
    _one(
        "the finalized slot is read after paging",
        shows_in=4,
        where=Surveyor.look,
        old="""        choice = await self._still(choice, wanted, finalized)
""",
        new="""        choice = await self._still(choice, wanted, finalized)
        finalized = await self.finalized_after(known)
""",
    ),
    _one(
        "a sweep begins where the last one ended",
        where=Surveyor.look,
        old="max(0, known.slot - OVERLAP_SLOTS)",
        new="known.slot + 1",
        world=_with_late_lists,
    ),
    _one(
        "a node that is behind is believed",
        shows_in=9,
        where=history._Walk._page,
        old="min_context_slot=self._last_slot",
        new="min_context_slot=None",
        world=_with_nodes_behind,
    ),
    _one(
        "an empty page is the end of the list",
        shows_in=29,
        where=history._Walk._page_below,
        old="""if not page:
                break""",
        new="""if not page:
                return page""",
        world=_with_lost_places,
    ),
    _one(
        "a short page is the end of the list",
        shows_in=13,
        where=history._Walk._from_the_top,
        old="is_last = not page or",
        new="is_last = len(page) < PAGE_SIZE or",
        world=_with_short_pages,
    ),
    _one(
        "only the oldest signature of a reference counts",
        where=Pipeline._settlement,
        old="if new else []",
        new="if new and not known else []",
    ),
    # ------------------------------------------------ what it means
    _one(
        "a failed transaction is judged like any other",
        shows_in=9,
        where=verify.verify,
        old="if transaction.failed:",
        new="if False:",
    ),
    Fault(
        name="a sighting is taken back on one null",
        edits=(
            Edit(where=Live._missed, old="if awaited.misses < MISSES_MIN:", new="if False:"),
            Edit(
                where=Live._missed,
                old="if finalized - awaited.slot < DROPPED_AFTER_BLOCKS:",
                new="if False:",
            ),
            Edit(
                where=Live._missed,
                old="""await self._is_too_old_to_land(slot, finalized) and (
                await self._is_forgotten(signature, slot)
            )""",
                new="True",
            ),
        ),
        world=_with_nulls,
    ),
    _one(
        "a transfer pays every payment of its transaction",
        shows_in=14,
        where=verify._allocate,
        old="for key in movement.references:",
        new="for key in by_reference:",
    ),
    _one(
        "there is no end to the grace time",
        where=settle._is_after_grace,
        old="_block_time(verdict) > terms.expires_at + terms.grace_s",
        new="False",
    ),
    _one(
        "late money never settles",
        shows_in=5,
        where=settle._is_after_grace,
        old="terms.expires_at + terms.grace_s",
        new="terms.expires_at",
    ),
    _one(
        "verdicts are folded in the order of their size",
        shows_in=4,
        where=settle._Facts.of,
        old="key=lambda v: v.order",
        new="key=lambda v: -v.credit",
    ),
    # ------------------------------------------------ when it is too late
    Fault(
        name="the daemon's clock says what has expired",
        edits=(
            Edit(
                where=Expiry.expire_before,
                old="block_time=frontier.block_time, limit=EXPIRY_BATCH",
                new="block_time=int(self._clock()), limit=EXPIRY_BATCH",
            ),
            Edit(
                where=Expiry.expire_before,
                old="complete_to=min(frontier.block_time, times[record.payment.terms.reference]),",
                new="complete_to=now,",
            ),
        ),
    ),
    Fault(
        name="a payment expires without a last look at its reference",
        edits=(
            Edit(
                where=Expiry.expire_before,
                old="min(frontier.block_time, times[record.payment.terms.reference])",
                new="frontier.block_time",
            ),
            Edit(
                where="ids_of_expirable",
                old="AND EXISTS (SELECT 1 FROM cursors WHERE key = payments.reference "
                "AND block_time > expires_at)",
                new="",
            ),
        ),
    ),
    _one(
        "nobody looks at references that stand alone",
        where=References.check_due,
        old="due = await self._due()",
        new="due = []",
    ),
    # ------------------------------------------------ what is forgotten
    _one(
        "sightings are forgotten at a restart",
        where=Live._restore,
        old="sighted = await self._sighted()",
        new="sighted = []",
        world=_with_forks_and_crashes,
    ),
    _one(
        "parked letters are never tried again",
        shows_in=4,
        where=Parked.retry_due,
        old="if not due:",
        new="if True:",
        world=_with_nulls,
    ),
    _one(
        "gaps are never closed",
        where="gaps_close_up_to",
        old="last_slot <= ?2",
        new="last_slot < 0",
    ),
    _one(
        "coverage claims what nobody examined",
        where=Surveyor.look,
        old="covered=Slots(min(begin, finalized), finalized)",
        new="covered=Slots(min(begin, finalized), finalized + 100)",
    ),
    _one(
        "a payment that does not change is stored anew",
        where=settle.advance,
        old="if state == payment.state:",
        new="if False:",
    ),
    _one(
        "the money that comes after the payment is told as well",
        shows_in=5,
        where=events._main_type,
        old="case Status.PENDING | Status.PROCESSING | Status.EXPIRED if grew:",
        new="case _ if grew:",
    ),
)
