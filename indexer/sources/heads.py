"""How far each endpoint has come, compared with the others: who is late, and what stands still.

A node can answer quickly and be minutes behind. It cannot know that itself, and nor can we from
its answers alone: only another node's finalized slot shows it. So all of them are asked at the
same moments. Who is late is asked last until it has caught up. When nobody moves, it is the chain
that stands still, and no endpoint is to blame.

Slots are turned into seconds by the time that they take now, which is measured: it differs
between clusters and has changed before.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from indexer.errors import SourceError
from indexer.sources.endpoint import Endpoint
from indexer.sources.rpc import Rpc


#: Seconds between two questions to each endpoint.
INTERVAL_S: Final = 2.0

#: An endpoint that is later than this, in seconds, is asked last, until it is less late than that
#: in so many answers in a row: the nodes behind one address may take turns.
BEHIND_S_MAX: Final = 10.0
CAUGHT_UP_S_MAX: Final = 5.0
CAUGHT_UP_ANSWERS: Final = 3

#: When no endpoint's finalized slot has risen for this long, in seconds, the chain stands still.
STALL_S_MIN: Final = 30.0

#: An answer older than this, in seconds, says nothing of the present.
ANSWER_KEPT_S: Final = 10.0

#: An endpoint that is further ahead of all others than this, in seconds, may as well be mistaken:
#: nothing is concluded from it.
LEAD_S_MAX: Final = 3_600.0

#: Answers of one endpoint, about 30 s of them, that a slot must exceed to have risen.
ANSWERS_KEPT: Final = 15

#: Taken for the time of a slot until it was measured, and its bounds, in seconds.
SLOT_S_ASSUMED: Final = 0.4
SLOT_S_MIN: Final = 0.01
SLOT_S_MAX: Final = 2.0

_log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Head:
    """The finalized slot of one endpoint, as it moves. Times are those of the event loop.

    Attributes:
        slot: its last word; -1 before the first.
        answered_at: when that was.
        behind_s: how late it is.
    """

    endpoint: Endpoint
    slot: int = -1
    answered_at: float = float("-inf")
    behind_s: float = 0.0
    _answers: deque[int] = field(default_factory=lambda: deque(maxlen=ANSWERS_KEPT))
    _slot_at: float = float("-inf")  # when it named `slot` first
    _passed_at: float | None = None  # since when another is further, and it stands still
    _timely: int = 0  # answers in a row

    def slot_s(self, slot: int, now: float) -> float | None:
        """The time of a slot between its last word and this one; None when that says nothing."""
        took_s, slots = now - self._slot_at, slot - self.slot
        if slots <= 0 or not INTERVAL_S / 2 <= took_s <= ANSWER_KEPT_S:
            return None
        return min(max(took_s / slots, SLOT_S_MIN), SLOT_S_MAX)

    def heard(self, slot: int, now: float) -> bool:
        """Takes an answer in; whether it is higher than all that are remembered."""
        has_risen = slot > max(self._answers, default=-1)
        if slot > self.slot:
            self._passed_at = None
        if slot != self.slot:
            self._slot_at = now
        self.slot, self.answered_at = slot, now
        self._answers.append(slot)
        return has_risen

    def measure(self, reference: int, highest: int, highest_at: float, slot_s: float) -> None:
        """How late it is: by its distance, and by how long it stands where others do not.

        Args:
            reference: the slot that it should have reached.
            highest: the highest that anybody named.
            highest_at: when that was named first.
            slot_s: the time of a slot; 0 until it was measured.
        """
        if self.slot >= highest:
            self._passed_at = None
        elif self._passed_at is None:
            self._passed_at = highest_at
        stands_s = 0.0 if self._passed_at is None else highest_at - self._passed_at
        self.behind_s = max(stands_s, (reference - self.slot) * slot_s)

    def judge(self) -> None:
        """Decides whether it is asked last; once for each of its answers."""
        self._timely = self._timely + 1 if self.behind_s < CAUGHT_UP_S_MAX else 0
        endpoint = self.endpoint
        if not endpoint.behind and self.behind_s > BEHIND_S_MAX:
            endpoint.behind = True
            _log.warning(
                "endpoint.behind",
                endpoint=endpoint.name,
                slot=self.slot,
                behind_s=round(self.behind_s, 1),
            )
        elif endpoint.behind and self._timely >= CAUGHT_UP_ANSWERS:
            endpoint.behind = False
            _log.info("endpoint.caught_up", endpoint=endpoint.name, slot=self.slot)


class Heads:
    """Follows the finalized slots of all endpoints.

    Attributes:
        heads: one of each endpoint, in the same order.
        slot_s: the measured time of a slot, in seconds.
    """

    def __init__(self, rpc: Rpc) -> None:
        self.heads = tuple(Head(endpoint) for endpoint in rpc.endpoints)
        self.slot_s = SLOT_S_ASSUMED
        self._quorum = rpc.quorum
        self._highest = -1
        self._highest_at = float("-inf")
        self._rose_at = float("inf")
        self._is_measured = False
        self._is_stalled = False

    async def run(self) -> None:
        """Asks for ever, all endpoints at the same moments; one that is slow misses some."""
        async with asyncio.TaskGroup() as group:
            for head in self.heads:
                group.create_task(self._follow(head), name="head")

    def problems(self) -> dict[str, str | None]:
        """What ops should know of each endpoint (`rpc:0`, …) and of the `chain`; None: all well."""
        return self._problems(asyncio.get_running_loop().time())

    def _problems(self, now: float) -> dict[str, str | None]:
        present = self._present(now)
        told = {f"rpc:{n}": self._problem(head, present) for n, head in enumerate(self.heads)}
        return {**told, "chain": self._stall(present, now)}

    async def _follow(self, head: Head) -> NoReturn:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            if not head.endpoint.health.rest_s(loop.time()):
                try:
                    slot = await head.endpoint.finalized_slot(at_least=head.slot + 1)
                except SourceError:
                    pass  # `health` knows, and tells
                else:
                    self._heard(head, slot, loop.time())
            missed = (loop.time() - next_at) // INTERVAL_S
            next_at += INTERVAL_S * (1 + missed)
            await asyncio.sleep(next_at - loop.time())

    def _heard(self, head: Head, slot: int, now: float) -> None:
        slot_s = head.slot_s(slot, now)
        if head.heard(slot, now):
            self._rose_at = now
        self._tell_of_stall(now)
        present = self._present(now)
        if self._leader(present) is not None:
            return
        slots = sorted(each.slot for each in present)
        if slots[-1] != self._highest:
            self._highest, self._highest_at = slots[-1], now
        if slot_s is not None and slot == self._highest:
            self._measured(slot_s)
        # As many as must agree on a transaction must have come that far, where there are others.
        reference = slots[-min(self._quorum, max(1, len(slots) - 1))]
        for each in present:
            each.measure(
                reference,
                self._highest,
                self._highest_at,
                self.slot_s if self._is_measured else 0.0,
            )
        head.judge()

    def _measured(self, slot_s: float) -> None:
        weight = 1 / 8 if self._is_measured else 1
        self.slot_s += (slot_s - self.slot_s) * weight
        self._is_measured = True

    def _present(self, now: float) -> list[Head]:
        """Those whose last word is of now."""
        return [head for head in self.heads if now - head.answered_at <= ANSWER_KEPT_S]

    def _leader(self, present: Sequence[Head]) -> Head | None:
        """One that is too far ahead of all others to be believed."""
        if len(present) < 2:
            return None
        second, first = sorted(present, key=lambda head: head.slot)[-2:]
        return first if (first.slot - second.slot) * self.slot_s > LEAD_S_MAX else None

    def _problem(self, head: Head, present: Sequence[Head]) -> str | None:
        name, slot = head.endpoint.name, head.slot
        if len(self.heads) == 1:
            return None  # there is nothing to compare it with
        if head not in present:
            return head.endpoint.health.problem
        if head is self._leader(present):
            return (
                f"{name} names the finalized slot {slot}, more than {LEAD_S_MAX:.0f} s ahead of "
                "all others: nothing is concluded from it"
            )
        if head.endpoint.behind:
            highest = max(each.slot for each in present)
            return (
                f"{name} is {head.behind_s:.0f} s behind (finalized slot {slot}, another endpoint "
                f"names {highest}): it is asked last until it has caught up"
            )
        return None

    def _stall(self, present: Sequence[Head], now: float) -> str | None:
        stalled_s = now - self._rose_at
        if not present or stalled_s < STALL_S_MIN:
            return None
        highest = max(head.slot for head in present)
        what = f"no finalized slot after {highest} for {stalled_s:.0f} s"
        if len(self.heads) == 1:
            return (
                f"{what}: with one endpoint, nobody can tell whether it or the chain stands still"
            )
        agreeing = sum(head.slot == highest for head in present)
        return (
            f"{what}: the chain stands still, say {agreeing} of {len(self.heads)} endpoints "
            f"({len(present)} answer)"
        )

    def _tell_of_stall(self, now: float) -> None:
        problem = self._stall(self._present(now), now)
        if (problem is not None) == self._is_stalled:
            return
        self._is_stalled = problem is not None
        if problem is not None:
            _log.error("chain.stalled", problem=problem)
        else:
            _log.info("chain.moves")
