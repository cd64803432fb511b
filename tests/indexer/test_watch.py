"""Which keys are watched, and whose turn it is."""

import asyncio
from pathlib import Path

import pytest

from indexer import watch as watch_module
from indexer.errors import StoreUnavailable
from indexer.watch import SUBSCRIPTIONS_MAX, SWEPT_PER_ROUND, Watched
from store.watching import LISTED_LATE_S
from tests.chain import key
from tests.indexer.stage import AMOUNT, EXPIRES_AT, FINAL_SLOT, GRACE_S, WATCH_KEY, Stage, stage


def watched(it: Stage) -> Watched:
    return Watched(it.database, [WATCH_KEY], clock=it.clock)


async def foreign(it: Stage, number: int) -> list[str]:
    """References of payments whose URL lacks the watch key, the newest first."""
    made = [
        await it.expect(name=f"foreign {n}", watch_key=None, created_at=n + 1)
        for n in range(number)
    ]
    return [each.terms.reference for each in reversed(made)]


async def test_the_watch_key_is_always_watched(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        keys = watched(it)

        assert keys.to_subscribe() == keys.next_to_sweep() == (WATCH_KEY,)
        assert not await keys.refresh()
        await it.expect()
        assert not await keys.refresh(), "it carries the watch key"
        assert keys.to_subscribe() == keys.next_to_sweep() == (WATCH_KEY,)


async def test_a_reference_without_watch_key_is_watched_while_money_may_count(
    tmp_path: Path,
) -> None:
    async with stage(tmp_path) as it:
        keys, order = watched(it), await it.expect(watch_key=None)
        reference = order.terms.reference

        assert await keys.refresh()
        assert keys.to_subscribe() == keys.next_to_sweep() == (WATCH_KEY, reference)
        assert not await keys.refresh()

        await it.settle(it.pay(order))
        assert await keys.refresh()
        assert keys.to_subscribe() == (WATCH_KEY,)


async def test_an_expired_one_is_watched_until_its_grace_is_over(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        keys, order = watched(it), await it.expect(watch_key=None)
        it.chain.block_times[FINAL_SLOT] = EXPIRES_AT + 1
        await it.sweeper(order.terms.reference).sweep(order.terms.reference)
        assert await it.events(order) == ["created", "expired"]

        # The clock says nothing of what was paid in time and is not final yet.
        it.clock.now = EXPIRES_AT + GRACE_S + LISTED_LATE_S + 100
        await keys.refresh()
        assert keys.to_subscribe() == (WATCH_KEY, order.terms.reference)

        seen_to = EXPIRES_AT + GRACE_S + LISTED_LATE_S
        await it.advance(FINAL_SLOT + 1, seen_to, watched=order.terms.reference)
        assert not await keys.refresh()

        await it.advance(FINAL_SLOT + 2, seen_to + 1, watched=order.terms.reference)
        assert await keys.refresh()
        assert keys.to_subscribe() == (WATCH_KEY,)


async def test_the_keys_of_before_a_rotation_are_watched_as_long(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect(watch_key=key("old watch key"))
        keys = watched(it)

        await it.expect(name="foreign", watch_key=None)
        assert await keys.refresh()
        assert keys.shared() == tuple(sorted([WATCH_KEY, key("old watch key")]))
        assert keys.to_subscribe()[:2] == keys.next_to_sweep()[:2] == keys.shared()

        await it.settle(it.pay(order))
        assert await keys.refresh()
        assert keys.shared() == (WATCH_KEY,)


async def test_the_newest_are_subscribed_to_and_all_are_swept_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        references = await foreign(it, SUBSCRIPTIONS_MAX + 5)
        keys = watched(it)
        await keys.refresh()

        assert keys.to_subscribe() == (WATCH_KEY, *references[:SUBSCRIPTIONS_MAX])
        rounds = [keys.next_to_sweep() for _ in range(-(-len(references) // SWEPT_PER_ROUND))]
        assert all(turn[0] == WATCH_KEY for turn in rounds)
        assert all(len(turn) == 1 + SWEPT_PER_ROUND for turn in rounds)
        assert {reference for turn in rounds for reference in turn} == {WATCH_KEY, *references}


async def test_what_is_watched_at_all_has_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        monkeypatch.setattr(watch_module, "FOREIGN_MAX", 3)
        references = await foreign(it, 5)
        keys = watched(it)

        await keys.refresh()

        assert keys.next_to_sweep() == (WATCH_KEY, *references[:3])


async def test_the_list_is_kept_fresh_and_a_store_that_fails_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage(tmp_path) as it:
        keys, changes, waits = watched(it), list[int](), asyncio.Queue[float]()
        failures = [StoreUnavailable("locked")]
        read = it.database.read

        async def wait(seconds: float) -> None:
            await waits.put(seconds)
            await asyncio.sleep(0.005)

        async def fail_first(batch: object) -> object:
            if failures:
                raise failures.pop()
            return await read(batch)  # type: ignore[arg-type]  # passed on as it came

        monkeypatch.setattr(it.database, "read", fail_first)
        task = asyncio.create_task(keys.run(changed=lambda: changes.append(1), wait=wait))
        try:
            for _ in range(3):
                assert await asyncio.wait_for(waits.get(), 30) == watch_module.REFRESH_INTERVAL_S
            assert changes == []
            order = await it.expect(AMOUNT, watch_key=None)
            async with asyncio.timeout(90):
                while order.terms.reference not in keys.to_subscribe():
                    await waits.get()
            assert changes == [1]
        finally:
            task.cancel()
