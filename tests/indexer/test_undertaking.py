"""A replay that is killed goes on, stores everything once, and ends as if nothing had been."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from indexer import replay as replay_module
from indexer.core.outcome import Outcome
from indexer.core.types import Status
from indexer.errors import SourceUnavailable
from indexer.sources import history as history_module
from indexer.sources.rpc import Rpc
from indexer.undertaking import Strategy
from store import coverage
from tests.indexer.replaying import BOTH, SLOTS, Crash, contents, counts, replay_of, run, staged
from tests.indexer.stage import (
    WATCH_KEY,
)


# ----------------------------------------------------------------------------- killed and resumed


def dying(times: int) -> Callable[[Rpc], None]:
    """Lets an Rpc die at its so-manieth block."""

    def arm(rpc: Rpc) -> None:
        block = rpc.block
        left = times

        async def once(slot: int, **rest: Any) -> bytes:
            nonlocal left
            left -= 1
            if left < 0:
                raise SourceUnavailable("gone")
            return await block(slot, **rest)

        rpc.block = once  # type: ignore[method-assign]  # replaced for this test

    return arm


async def test_it_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_SLOTS", 10)
    async with staged(tmp_path) as it:
        orders = [await it.expect(name=f"{slot}") for slot in (905, 915, 945)]
        for order, slot in zip(orders, (905, 915, 945), strict=True):
            it.pay(order, slot=slot)
        healthy = it.rpc.block
        dying(25)(it.rpc)
        replay = replay_of(it)
        with pytest.raises(SourceUnavailable):
            await replay.slots(SLOTS, Strategy.BLOCKS, dry_run=False, resume=False)
        it.rpc.block = healthy  # type: ignore[method-assign]  # replaced for this test
        half = await contents(it)
        before = it.node.count("getBlock")

        report = await run(it, resume=True)

        asked = [c.params[0] for c in it.node.calls if c.method == "getBlock"][before:]
        status = {(await it.record(order)).payment.state.status for order in orders}
        assert await coverage.of(it.database, WATCH_KEY) == [SLOTS]
        [row] = await it.table("replays", "id, done_to, finished_at IS NULL")
    assert replay.report is not None
    assert (replay.report.done_to, half["coverage"]) == (919, [])
    assert min(asked) == 920
    assert status == {Status.SETTLED}
    assert report.resumed
    assert report.run == row[0]
    assert row[1:] == (950, 0)
    assert (report.tally.slots, report.tally.blocks) == (len(SLOTS), len(SLOTS))
    assert counts(report) == {Outcome.WOULD_CREDIT: 3}


async def test_without_being_told_to_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_SLOTS", 10)
    async with staged(tmp_path) as it:
        healthy = it.rpc.block
        dying(25)(it.rpc)
        with pytest.raises(SourceUnavailable):
            await run(it)
        it.rpc.block = healthy  # type: ignore[method-assign]  # replaced for this test

        report = await run(it)

        rows = await it.table("replays", "id, finished_at IS NULL")
    assert not report.resumed
    assert report.tally.blocks == len(SLOTS)
    assert sorted(is_open for _, is_open in rows) == [0, 1]


@BOTH
async def test_where_nothing_was_interrupted_it_begins(strategy: Strategy, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)

        first = await run(it, strategy, resume=True)
        second = await run(it, strategy, resume=True)

    assert (first.resumed, second.resumed) == (False, False)
    assert second.tally.examined == 1


@BOTH
async def test_killed_at_any_write_it_ends_the_same(strategy: Strategy, tmp_path: Path) -> None:
    """However often; each event is there once."""
    whole = await life(tmp_path / "whole", strategy, None)
    for count in range(100):
        killed = await life(tmp_path / f"{count}", strategy, count)
        assert killed == whole, count
        if count > 0 and not DIED:
            return
    raise AssertionError("it never came to its end")


DIED: list[int] = []


async def life(folder: Path, strategy: Strategy, count: int | None) -> Any:
    """A replay that dies before its so-manieth write, and another that goes on."""
    folder.mkdir()
    DIED.clear()
    async with staged(folder) as it:
        orders = [await it.expect(name=name) for name in ("a", "b", "c")]
        for slot, order in zip((905, 925, 945), orders, strict=True):
            it.pay(order, slot=slot)
        write = it.database.write
        left = count

        async def dying_write(batch: Any) -> Any:
            nonlocal left
            if left == 0:
                DIED.append(1)
                raise Crash
            left = None if left is None else left - 1
            return await write(batch)

        it.database.write = dying_write  # type: ignore[method-assign]  # replaced for this test
        replay_module.CHUNK_SLOTS, chunk = 10, replay_module.CHUNK_SLOTS  # type: ignore[misc]  # a smaller one
        try:
            try:
                await run(it, strategy)
            except (Crash, BaseExceptionGroup):
                it.database.write = write  # type: ignore[method-assign]  # replaced for this test
                await run(it, strategy, resume=True)
        finally:
            replay_module.CHUNK_SLOTS = chunk  # type: ignore[misc]  # a smaller one
        logs = [await it.events(order) for order in orders]
        tables = await contents(it)
        runs = tables.pop("replays")
        tables["events"] = [row[1:] for row in sorted(tables["events"], key=lambda r: r[1:4])]
        assert sum(row[-1] is not None for row in runs) == 1
        return logs, tables


@pytest.mark.parametrize("slots", [range(910, 920), [910] * 10], ids=["many slots", "one slot"])
async def test_listing_goes_on_below_what_was_stored(
    slots: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long list is stored from the newest on."""
    monkeypatch.setattr(history_module, "PAGE_SIZE", 2)
    monkeypatch.setattr(history_module, "CHUNK_PAGES_MAX", 1)
    async with staged(tmp_path) as it:
        order = await it.expect()
        for number, slot in enumerate(slots):
            it.pay(order, slot=slot, amount=1, name=f"{number}", index=number)
        page = it.rpc.signatures_for_address
        left = 3

        async def once(*args: Any, **rest: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise SourceUnavailable("gone")
            return await page(*args, **rest)

        it.rpc.signatures_for_address = once  # type: ignore[method-assign]  # replaced for this test
        with pytest.raises(SourceUnavailable):
            await run(it, Strategy.SIGNATURES)
        half = it.fetched()
        it.rpc.signatures_for_address = page  # type: ignore[method-assign]  # replaced for this test

        report = await run(it, Strategy.SIGNATURES, resume=True)

        record = await it.record(order)
        again = it.fetched()[len(half) :]
    assert len(half) >= 4
    assert record.payment.state.received == 10
    # Only the oldest slot that was reached is looked at twice: more of it may have come.
    assert len(set(slots)) == 1 or len(set(half) & set(again)) <= 1
    assert report.resumed
