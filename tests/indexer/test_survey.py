"""One look at a key: complete from where the last one ended, or it says what is missing."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from indexer.core.ranges import Slots
from indexer.errors import SourceUnavailable
from indexer.sources import history as history_module, reach as reach_module
from indexer.sources.rpc import SignatureRow
from indexer.survey import CREATED_MARGIN_S, OVERLAP_SLOTS, Survey, Surveyor
from store.cursors import Frontier
from tests.chain import BLOCK_TIME, key, sol_transfer
from tests.indexer.stage import BUYER, FINAL_SLOT, SHOP, Stage, stage
from tests.servers.fake_rpc import rpc_error


KEY = key("some key")


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "KEPT_S", -1.0)


def land(it: Stage, slot: int, *, block_time: int | None = None, name: str = "") -> str:
    landed = sol_transfer(BUYER, SHOP, 1, references=[KEY], name=f"{slot} {name}")
    return it.chain.add(landed, slot=slot, block_time=block_time or BLOCK_TIME + slot)


def known_at(slot: int, block_time: int = BLOCK_TIME) -> Frontier:
    return Frontier(key=KEY, slot=slot, block_time=block_time, updated_at=0)


async def look(
    it: Stage,
    known: Frontier | None = None,
    *,
    created_at: int | None = None,
    is_reference: bool = False,
) -> tuple[Survey, list[str]]:
    """The survey, and the signatures that were examined."""
    seen: list[str] = []

    async def examine(rows: Sequence[SignatureRow]) -> None:
        seen.extend(row.signature for row in rows)

    surveyor = Surveyor(it.rpc, clock=it.clock)
    finalized = await surveyor.finalized_after(known)
    survey = await surveyor.look(
        KEY, known, finalized, examine, created_at=created_at, is_reference=is_reference
    )
    return survey, seen


async def test_a_look_ends_at_what_was_final_when_it_began(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        names = [land(it, slot) for slot in (1, 500, FINAL_SLOT)]
        land(it, FINAL_SLOT + 1)
        it.chain.block_times[FINAL_SLOT] = BLOCK_TIME + 77

        survey, seen = await look(it)

        assert seen == names
        assert survey.frontier == Frontier(
            key=KEY, slot=FINAL_SLOT, block_time=BLOCK_TIME + 77, updated_at=int(it.clock())
        )
        assert (survey.covered, survey.hole) == (Slots(0, FINAL_SLOT), None)


async def test_a_later_look_begins_a_little_before_the_last_one_ended(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        known = FINAL_SLOT - 10
        land(it, known - OVERLAP_SLOTS - 1)
        names = [land(it, slot) for slot in (known - OVERLAP_SLOTS, known, FINAL_SLOT)]

        survey, seen = await look(it, known_at(known))

        assert seen == names
        assert survey.covered == Slots(known - OVERLAP_SLOTS, FINAL_SLOT)


async def test_a_blocks_time_that_steps_back_moves_no_frontier_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.chain.block_times[FINAL_SLOT] = BLOCK_TIME - 5
        survey, _ = await look(it, known_at(900, BLOCK_TIME))
        assert survey.frontier.block_time == BLOCK_TIME

        it.chain.block_times[FINAL_SLOT] = None
        survey, _ = await look(it, known_at(900, BLOCK_TIME))
        assert survey.frontier.block_time == BLOCK_TIME


async def test_a_node_far_behind_us_is_not_believed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        surveyor = Surveyor(it.rpc, clock=it.clock)
        known = known_at(FINAL_SLOT + OVERLAP_SLOTS)
        assert await surveyor.finalized_after(known) == FINAL_SLOT

        with pytest.raises(SourceUnavailable, match="far behind"):
            await surveyor.finalized_after(known_at(FINAL_SLOT + OVERLAP_SLOTS + 1))


async def test_a_node_that_keeps_nothing_final_gives_no_list(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.node.first_available = FINAL_SLOT + 1

        with pytest.raises(SourceUnavailable, match="nothing before"):
            await look(it)


async def test_a_node_that_claims_to_keep_nothing_stops_no_first_look(tmp_path: Path) -> None:
    async with stage(tmp_path, nodes=2) as it:
        it.nodes[0].first_available = 2**40
        name = land(it, 500)

        survey, seen = await look(it)

        assert (seen, survey.covered) == ([name], Slots(0, FINAL_SLOT))


@pytest.mark.parametrize(
    ("known", "created_at", "hole"),
    [
        (known_at(599), None, None),
        (known_at(598), None, Slots(599, 599)),
        (known_at(100), BLOCK_TIME + 1_000, Slots(101, 599)),
        (None, None, None),
        (None, BLOCK_TIME + 600, None),
        (None, BLOCK_TIME + 599, Slots(0, 599)),
    ],
)
async def test_what_should_have_been_listed_and_is_kept_by_nobody_is_a_hole(
    tmp_path: Path, known: Frontier | None, created_at: int | None, hole: Slots | None
) -> None:
    async with stage(tmp_path) as it:
        it.node.first_available = 600
        it.chain.block_times[600] = BLOCK_TIME + 600

        survey, _ = await look(it, known, created_at=created_at)

        assert (survey.hole, survey.covered) == (hole, Slots(600, FINAL_SLOT))


# ---------------------------------------------------------------------------- one reference


async def test_a_reference_is_looked_for_from_its_creation_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever chose it in advance may have filled it with anything."""
    monkeypatch.setattr(history_module, "PAGE_SIZE", 5)
    async with stage(tmp_path) as it:
        for slot in range(1, 100):
            land(it, slot, block_time=BLOCK_TIME - CREATED_MARGIN_S - 1)
        names = [land(it, slot, block_time=BLOCK_TIME - CREATED_MARGIN_S) for slot in (101, 102)]

        survey, seen = await look(it, created_at=BLOCK_TIME, is_reference=True)

        assert set(names) <= set(seen)
        assert len(seen) < 15
        assert survey.covered.first > 90, "only what was looked through"


async def test_any_other_key_is_listed_to_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "PAGE_SIZE", 5)
    async with stage(tmp_path) as it:
        names = [land(it, slot, block_time=BLOCK_TIME - 10**6) for slot in range(1, 50)]

        survey, seen = await look(it, created_at=BLOCK_TIME)

        assert sorted(seen) == sorted(names)
        assert survey.covered.first == 0


async def test_where_nobody_says_what_is_kept_only_what_was_listed_is_covered(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        it.node.fail("getFirstAvailableBlock", rpc_error(-32601), times=None)
        for slot in (700, 800):
            land(it, slot)

        assert (await look(it))[0].covered == Slots(700, FINAL_SLOT)
        assert (await look(it, known_at(990)))[0].covered == Slots(990 - OVERLAP_SLOTS, FINAL_SLOT)
