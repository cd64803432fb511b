"""A queue that is bounded, rings once, and never drops in silence."""

import asyncio

from indexer.sources.doorbells import Doorbell, Doorbells


async def test_doorbells_come_out_in_the_order_of_ringing() -> None:
    doorbells = Doorbells()
    for number in range(5):
        assert doorbells.ring(f"s{number}", 100 + number)

    assert await doorbells.take(3) == [Doorbell(f"s{n}", 100 + n) for n in range(3)]
    assert await doorbells.take(10) == [Doorbell("s3", 103), Doorbell("s4", 104)]
    assert len(doorbells) == 0


async def test_taking_waits_for_the_first() -> None:
    doorbells = Doorbells()
    taking = asyncio.create_task(doorbells.take(10))
    await asyncio.sleep(0)
    assert not taking.done()

    doorbells.ring("s", 1)

    assert await asyncio.wait_for(taking, 30) == [Doorbell("s", 1)]


async def test_two_takers_get_each_doorbell_once() -> None:
    doorbells = Doorbells()
    takers = [asyncio.create_task(doorbells.take(1)) for _ in range(2)]
    await asyncio.sleep(0)

    doorbells.ring("a")
    doorbells.ring("b")

    taken = await asyncio.wait_for(asyncio.gather(*takers), 30)
    assert sorted(bell.signature for (bell,) in taken) == ["a", "b"]


async def test_a_cancelled_taker_loses_nothing() -> None:
    doorbells = Doorbells()
    taking = asyncio.create_task(doorbells.take(1))
    await asyncio.sleep(0)
    doorbells.ring("a")
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)

    assert await asyncio.wait_for(doorbells.take(1), 30) == [Doorbell("a", 0)]


async def test_the_second_source_does_not_ring() -> None:
    doorbells = Doorbells()

    assert doorbells.ring("s", 7)  # the logs of one endpoint
    assert not doorbells.ring("s", 7)  # the logs of the other
    await doorbells.take(1)
    assert not doorbells.ring("s", 7)  # late, after it was answered
    assert not doorbells.ring("s")  # a source that does not know the slot
    assert len(doorbells) == 0


async def test_a_slot_that_is_learned_later_does_not_ring_again() -> None:
    doorbells = Doorbells()
    doorbells.ring("s")

    assert not doorbells.ring("s", 7)
    assert not doorbells.ring("s", 7)


async def test_a_transaction_that_landed_again_rings_again() -> None:
    """Its first block was dropped by a fork; in the second one it may stand elsewhere."""
    doorbells = Doorbells()
    doorbells.ring("s", 7)

    assert doorbells.ring("s", 9)
    assert not doorbells.ring("s", 9)


async def test_whatever_does_not_fit_is_told_and_what_waits_is_kept() -> None:
    missed: list[int] = []
    doorbells = Doorbells(waiting_max=2, on_overflow=missed.append)

    rung = [doorbells.ring(name, slot) for slot, name in enumerate("abcd", start=10)]

    assert rung == [True, True, False, False]
    assert missed == [12, 13]
    assert [bell.signature for bell in await doorbells.take(10)] == ["a", "b"]


async def test_what_did_not_fit_can_ring_later() -> None:
    doorbells = Doorbells(waiting_max=1)
    doorbells.ring("a")
    doorbells.ring("b")
    await doorbells.take(1)

    assert doorbells.ring("b")


async def test_the_memory_is_bounded_and_keeps_what_rang_last() -> None:
    doorbells = Doorbells(waiting_max=2, remembered_max=2)
    doorbells.ring("a", 1)
    doorbells.ring("b", 1)
    await doorbells.take(2)
    doorbells.ring("a", 1)  # known, and used just now

    doorbells.ring("c", 1)
    await doorbells.take(1)

    assert not doorbells.ring("a", 1)
    assert doorbells.ring("b", 1)  # forgotten
