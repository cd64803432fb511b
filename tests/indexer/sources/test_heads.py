"""Who is late, what stands still, and that one is told from the other."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from indexer.errors import SourceUnavailable
from indexer.sources import heads as heads_module
from indexer.sources.endpoint import Bounds
from indexer.sources.heads import (
    ANSWER_KEPT_S,
    BEHIND_S_MAX,
    CAUGHT_UP_ANSWERS,
    CAUGHT_UP_S_MAX,
    INTERVAL_S,
    STALL_S_MIN,
    Heads,
)
from indexer.sources.rpc import Rpc
from tests.servers.fake_rpc import FakeChain, FakeNode, eventually, http


class Watched:
    """Endpoints whose answers are made up, in a time that is made up too."""

    def __init__(self, endpoints: int, *, quorum: int = 1) -> None:
        urls = [f"http://127.0.0.1:{9 + n}" for n in range(endpoints)]
        self.rpc = Rpc(urls, quorum=quorum)
        self.heads = Heads(self.rpc)
        self.now = 1_000.0

    def round(self, *slots: int | None) -> None:
        """One answer of each, None for one that gives none."""
        self.now += INTERVAL_S
        for head, slot in zip(self.heads.heads, slots, strict=True):
            if slot is not None:
                self.heads._heard(head, slot, self.now)

    def rounds(self, *each: Sequence[int | None]) -> None:
        for slots in each:
            self.round(*slots)

    @property
    def behind(self) -> list[bool]:
        return [endpoint.behind for endpoint in self.rpc.endpoints]

    @property
    def problems(self) -> dict[str, str | None]:
        return self.heads._problems(self.now)


def at_pace(slot_s: float, *, rounds: int, lag: int = 0, start: int = 1_000) -> list[int]:
    """What a node answers that follows a chain of that slot time, so many slots late."""
    return [start + int(n * INTERVAL_S / slot_s) - lag for n in range(rounds)]


# --------------------------------------------------------------------------- who is late


async def test_endpoints_that_go_along_are_all_well() -> None:
    watched = Watched(3)
    for slot in at_pace(0.4, rounds=30):
        watched.round(slot, slot - 3, slot + 1)

    assert watched.behind == [False] * 3
    assert watched.problems == {"rpc:0": None, "rpc:1": None, "rpc:2": None, "chain": None}


@pytest.mark.parametrize("slot_s", [0.05, 0.2, 0.4])
async def test_late_is_told_in_seconds_whatever_a_slot_takes(slot_s: float) -> None:
    late, timely = int(1.5 * BEHIND_S_MAX / slot_s), int(0.5 * BEHIND_S_MAX / slot_s)
    watched = Watched(3)
    for slot in at_pace(slot_s, rounds=60, start=10_000):
        watched.round(slot, slot - late, slot - timely)
        assert not watched.behind[2], "also before the time of a slot was measured"

    assert watched.heads.slot_s == pytest.approx(slot_s, rel=0.1)
    assert watched.behind == [False, True, False]
    assert watched.heads.heads[1].behind_s == pytest.approx(1.5 * BEHIND_S_MAX, rel=0.15)
    assert "s behind" in str(watched.problems["rpc:1"])


async def test_one_that_stands_still_is_late_after_a_while_though_it_answers() -> None:
    watched = Watched(2)
    seen = []
    with capture_logs() as logs:
        for slot in at_pace(0.4, rounds=20):
            watched.round(1_000, slot)
            seen.append(watched.behind[0])

    assert seen.index(True) == int(BEHIND_S_MAX / INTERVAL_S) + 2
    assert seen[-1]
    assert watched.problems["chain"] is None
    assert "finalized slot 1000" in str(watched.problems["rpc:0"])
    assert [entry["event"] for entry in logs] == ["endpoint.behind"]


async def test_one_that_stands_still_is_late_however_few_slots_the_chain_makes() -> None:
    """Slots that come slowly are few; the time is the same."""
    watched = Watched(2)
    for n in range(20):
        watched.round(1_000, 1_000 + n // 4)

    assert watched.behind == [True, False]


async def test_it_comes_back_when_it_has_caught_up_for_good() -> None:
    watched = Watched(2)
    for slot in at_pace(0.4, rounds=20):
        watched.round(1_000, slot)
    start = at_pace(0.4, rounds=20)[-1]

    seen = []
    with capture_logs() as logs:
        for n in range(1, 10):
            slot = start + 5 * n
            watched.round(slot if n != 2 else 1_000, slot)
            seen.append(watched.behind[0])

    assert seen == [True, True, *[True] * (CAUGHT_UP_ANSWERS - 1), *[False] * 5]
    assert watched.problems["rpc:0"] is None
    assert [entry["event"] for entry in logs] == ["endpoint.caught_up"]


async def test_one_that_catches_up_slowly_is_late_until_it_has() -> None:
    watched = Watched(2)
    seen = []
    for n in range(60):
        watched.round(max(0, 1_000 + 5 * n - max(0, 100 - 2 * n)), 1_000 + 5 * n)
        seen.append((watched.heads.heads[0].behind_s, watched.behind[0]))
    late_s = [behind_s for behind_s, _ in seen]
    is_late = [is_behind for _, is_behind in seen]

    assert late_s[2] == pytest.approx(96 * 0.4)
    came_back = is_late.index(False, 2)
    assert is_late[2:came_back] == [True] * (came_back - 2)
    assert late_s[came_back - CAUGHT_UP_ANSWERS] >= CAUGHT_UP_S_MAX
    assert late_s[came_back] < CAUGHT_UP_S_MAX + INTERVAL_S
    assert not any(is_late[came_back:])


async def test_one_that_does_not_answer_is_not_judged() -> None:
    watched = Watched(2)
    watched.round(1_000, 1_000)
    for slot in at_pace(0.4, rounds=20):
        watched.round(None, slot)
    health = watched.rpc.endpoints[0].health
    health.failed(watched.now, watched.now, SourceUnavailable("getSlot at …: HTTP 500"))

    assert watched.behind == [False, False]
    assert watched.problems["rpc:0"] == "getSlot at …: HTTP 500"


async def test_who_does_not_answer_any_more_is_no_measure_for_others() -> None:
    watched = Watched(2)
    watched.round(1_000, 1_010)
    for _ in range(30):
        watched.round(1_000, None)

    assert watched.behind == [False, False]


async def test_the_endpoints_that_are_late_are_asked_last() -> None:
    rpc = Rpc([f"http://127.0.0.1:{n}" for n in (1, 2, 3)])
    a, b, c = rpc.endpoints
    assert await rpc.awake() == [a, b, c]

    a.behind = True

    assert await rpc.awake() == [b, c, a]
    b.behind = c.behind = True
    assert await rpc.awake() == [a, b, c]


async def test_one_alone_does_not_make_the_others_late_where_several_must_agree() -> None:
    watched = Watched(3, quorum=2)
    for slot in at_pace(0.4, rounds=20):
        watched.round(slot, slot, slot + 500)

    assert watched.behind == [False, False, False]


@pytest.mark.parametrize("slot", [10**6, 10**15, 2**63 - 1])
async def test_one_that_is_ahead_beyond_belief_changes_nothing(slot: int) -> None:
    watched = Watched(2)
    for n, other in enumerate(at_pace(0.4, rounds=30)):
        watched.round(other, slot + 5 * n)

    assert watched.behind == [False, False]
    assert watched.problems["rpc:0"] is None
    assert "nothing is concluded from it" in str(watched.problems["rpc:1"])


# ------------------------------------------------------------------------ what stands still


async def test_a_chain_that_stands_still_is_told_with_who_says_so() -> None:
    watched = Watched(3)
    watched.round(1_000, 1_000, None)
    rounds = int(STALL_S_MIN / INTERVAL_S)
    with capture_logs() as logs:
        watched.rounds(*[(1_000, 999, None)] * (rounds - 1))
        assert watched.problems["chain"] is None
        watched.round(1_000, 999, None)

    assert watched.problems == {
        "rpc:0": None,
        "rpc:1": None,
        "rpc:2": None,
        "chain": "no finalized slot after 1000 for 30 s: the chain stands still, "
        "say 1 of 3 endpoints (2 answer)",
    }
    assert watched.behind == [False] * 3
    assert [entry["event"] for entry in logs] == ["chain.stalled"]


async def test_when_it_moves_again_all_is_well_and_nobody_was_to_blame() -> None:
    watched = Watched(2)
    watched.rounds(*[(1_000, 1_000)] * 40)
    with capture_logs() as logs:
        watched.rounds(*[(slot, slot) for slot in at_pace(0.4, rounds=10, start=1_001)])

    assert watched.problems == {"rpc:0": None, "rpc:1": None, "chain": None}
    assert watched.heads.slot_s == pytest.approx(0.4, rel=0.1), "a stall is no slot time"
    assert [entry["event"] for entry in logs] == ["chain.moves"]


async def test_one_endpoint_cannot_tell_itself_from_the_chain() -> None:
    watched = Watched(1)
    watched.rounds(*[(1_000,)] * 40)

    assert watched.behind == [False]
    assert watched.problems["rpc:0"] is None
    assert "nobody can tell whether it or the chain stands still" in str(watched.problems["chain"])


async def test_nodes_of_one_address_that_take_turns_do_not_make_a_chain_move() -> None:
    watched = Watched(1)
    watched.rounds(*[(1_000,), (990,)] * 20)

    assert watched.problems["chain"] is not None


async def test_a_chain_that_was_set_back_moves_again() -> None:
    watched = Watched(1)
    watched.rounds((1_000_000,), *[(slot,) for slot in at_pace(0.4, rounds=30)])

    assert watched.problems["chain"] is None


async def test_a_jump_of_the_chain_is_no_slot_time() -> None:
    watched = Watched(1)
    watched.rounds(*[(slot,) for slot in at_pace(0.4, rounds=20)])
    watched.round(1_000_000)

    assert watched.heads.slot_s > 0.3


async def test_nothing_is_said_before_the_first_answer_or_long_after_the_last() -> None:
    watched = Watched(2)
    quiet = {"rpc:0": None, "rpc:1": None, "chain": None}
    assert watched.problems == quiet

    watched.rounds(*[(1_000, 1_000)] * 40)
    watched.now += ANSWER_KEPT_S + 1

    assert watched.problems == quiet


# ---------------------------------------------------------------------------- real endpoints


async def test_real_endpoints_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "INTERVAL_S", 0.02)
    monkeypatch.setattr(heads_module, "BEHIND_S_MAX", 0.5)
    monkeypatch.setattr(heads_module, "CAUGHT_UP_S_MAX", 0.3)
    chain = FakeChain(finalized=10_000)
    async with FakeNode(chain) as a, FakeNode(chain) as b:
        urls, bounds = [a.url, b.url], Bounds(rate=0, timeout_s=5)
        async with Rpc(urls, bounds=bounds, draw=lambda: 0.0) as rpc, chain.ticking(0.01):
            heads = Heads(rpc)
            task = asyncio.create_task(heads.run())
            a.behind = 5_000
            await eventually(lambda: rpc.endpoints[0].behind, timeout_s=90)
            assert [endpoint.behind for endpoint in await rpc.awake()] == [False, True]

            b.fail("getSlot", http(500), times=3)
            a.behind = 0
            await eventually(lambda: not rpc.endpoints[0].behind, timeout_s=90)

            assert heads.slot_s < 0.4
            task.cancel()
            await asyncio.wait([task], timeout=30)

    assert task.cancelled()
