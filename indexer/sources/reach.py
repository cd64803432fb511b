"""How far back each endpoint's history goes, and which of them may be asked for an old one.

A node forgets what is old and lists the rest as if there had never been more: its list ends in
the same way where history ends and where memory does. So whoever wants everything since some
slot, or some time, must first know who still has it. Where one endpoint forgot what another
keeps, the other one is asked; where an endpoint that is silent may have kept it, it is waited
for; where nobody has it, that is said, and never covered up.

Source: Solana JSON-RPC, getFirstAvailableBlock.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from indexer.errors import SourceError, SourceRejected, SourceUnavailable
from indexer.sources import wire
from indexer.sources.endpoint import Endpoint
from indexer.sources.rpc import Rpc


#: How long what an endpoint said is taken for true, in seconds: nodes forget more all the time.
KEPT_S: Final = 2.0
#: Seconds until one that refuses to say is asked again: its name may stand for another node.
UNSAID_KEPT_S: Final = 600.0
#: Where to look next for a block time when the oldest block is gone already, in slots after it.
LATER_SLOTS: Final = (64, 512)
#: How long an endpoint that says nothing is waited for, in seconds, before it counts as gone.
PATIENCE_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The oldest that one endpoint still has.

    Attributes:
        slot: nothing older is listed; None when it does not say, and then it is believed to
            keep all there is.
        time: that slot's block time, unix seconds; None when it was not asked for, or not said.
        said_at: the event loop's time.
    """

    slot: int | None
    time: int | None = None
    said_at: float

    def reaches(self, slot: int | None, time: int | None) -> bool:
        """Whether nothing is missing from that slot, or that block time, on."""
        if not self.slot:
            return True
        if slot is not None and self.slot > slot:
            return False
        return time is None or self.time is None or self.time <= time


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Whom to ask for a history, and what it will lack.

    Attributes:
        endpoints: only these; None when any of them will do.
        reaches: they have all that is wanted. Otherwise nobody has.
        first_slot: what is older than this is missing; None when they do not say.
        first_time: its block time; None when it is not known.
    """

    endpoints: Sequence[Endpoint] | None
    reaches: bool
    first_slot: int | None
    first_time: int | None


class Reach:
    """What the endpoints of one Rpc still have."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._kept: dict[Endpoint, Kept] = {}
        self._silent_since: dict[Endpoint, float] = {}
        self._asking = asyncio.Lock()

    async def choose(self, *, slot: int | None = None, time: int | None = None) -> Choice:
        """Who lists everything since that slot, and since that block time (unix seconds).

        Without either, nothing in particular is wanted, and whoever is there will do.

        Raises:
            SourceUnavailable: nobody who answers has it, and somebody who may have it is silent.
        """
        there = await self._ask_all(with_time=time is not None)
        fit = [endpoint for endpoint, kept in there.items() if kept.reaches(slot, time)]
        if len(fit) >= self._rpc.quorum:
            anyone = len(fit) == len(self._rpc.endpoints)
            return self._choice(fit, there, reaches=True, anyone=anyone)
        self._wait_for_the_silent(there)
        if len(there) < self._rpc.quorum:
            # They have had their time to say: as if they did not know the question.
            return Choice(endpoints=None, reaches=True, first_slot=None, first_time=None)
        deepest = sorted(there, key=lambda endpoint: there[endpoint].slot or 0)
        return self._choice(deepest[: self._rpc.quorum], there, reaches=False)

    async def again(self, choice: Choice) -> Choice:
        """The same endpoints, as far back as they go now: nodes forget while they are read.

        Raises:
            SourceUnavailable: one of the few that were chosen fell silent.
        """
        there = await self._ask_all(with_time=choice.first_time is not None)
        chosen = self._rpc.endpoints if choice.endpoints is None else choice.endpoints
        silent = [endpoint.name for endpoint in chosen if endpoint not in there]
        if silent and choice.endpoints is not None:
            raise SourceUnavailable(f"{silent} fell silent while the history was read")
        slots = [there[e].slot for e in chosen if e in there]
        first_slot = max([slot for slot in slots if slot is not None], default=0)
        if choice.first_slot is None or first_slot <= choice.first_slot:
            return choice
        times = [there[e].time for e in chosen if e in there and there[e].slot == first_slot]
        return replace(choice, first_slot=first_slot, first_time=times[0])

    def _choice(
        self,
        chosen: Sequence[Endpoint],
        there: dict[Endpoint, Kept],
        *,
        reaches: bool,
        anyone: bool = False,
    ) -> Choice:
        """Any of the chosen may give the list: it begins where the last of them begins."""
        slots = [there[endpoint].slot for endpoint in chosen]
        first_slot = None
        if slots and None not in slots:
            first_slot = max(slot for slot in slots if slot is not None)
        times = [there[e].time for e in chosen if first_slot and there[e].slot == first_slot]
        return Choice(
            endpoints=None if anyone else chosen,
            reaches=reaches,
            first_slot=first_slot,
            first_time=next((time for time in times if time is not None), None),
        )

    def _wait_for_the_silent(self, there: dict[Endpoint, Kept]) -> None:
        now = asyncio.get_running_loop().time()
        waited_for = [
            endpoint.name
            for endpoint in self._rpc.endpoints
            if endpoint not in there and now - self._silent_since[endpoint] < PATIENCE_S
        ]
        if waited_for:
            raise SourceUnavailable(
                f"what is wanted is older than what is kept by who answers, and {waited_for} "
                "may have kept it"
            )

    # ------------------------------------------------------------------------------- asking

    async def _ask_all(self, *, with_time: bool) -> dict[Endpoint, Kept]:
        """What those say that are awake and answer, in the order of preference."""
        loop = asyncio.get_running_loop()
        awake = await self._rpc.awake()
        async with self._asking:
            await asyncio.gather(*(self._ask(endpoint, with_time=with_time) for endpoint in awake))
            there = {e: self._kept[e] for e in awake if e in self._kept}
            for endpoint in self._rpc.endpoints:
                if endpoint in there:
                    self._silent_since.pop(endpoint, None)
                else:
                    self._silent_since.setdefault(endpoint, loop.time())
        return there

    async def _ask(self, endpoint: Endpoint, *, with_time: bool) -> None:
        """Makes what is known of an endpoint fresh; forgets it when there is no answer."""
        now = asyncio.get_running_loop().time()
        known = self._kept.get(endpoint)
        kept_s = UNSAID_KEPT_S if known is not None and known.slot is None else KEPT_S
        try:
            if known is None or now - known.said_at > kept_s:
                known = await self._newly(endpoint, known, now)
            if with_time and known.slot and known.time is None:
                known = replace(known, time=await _time_of(endpoint, known.slot))
        except SourceError:
            self._kept.pop(endpoint, None)
        else:
            self._kept[endpoint] = known

    async def _newly(self, endpoint: Endpoint, known: Kept | None, now: float) -> Kept:
        try:
            slot = await self._rpc.first_available_block(endpoint=endpoint)
        except SourceRejected:
            return Kept(slot=None, said_at=now)
        time = known.time if known is not None and known.slot == slot else None
        return Kept(slot=slot, time=time, said_at=now)


async def _time_of(endpoint: Endpoint, slot: int) -> int | None:
    """When an endpoint's oldest block was made, or a little later; None when it does not know.

    What was the oldest when it said so may be forgotten by now: then a later one bounds it.
    """
    for later in (0, *LATER_SLOTS):
        try:
            raw = await endpoint.call("getBlockTime", [slot + later])
        except SourceRejected as error:
            if error.code in wire.NOT_KEPT_CODES:
                continue
            return None
        time = endpoint.decode(raw, wire.UnixTime | None, "getBlockTime")  # type: ignore[arg-type]  # a union is no type to mypy
        if time is not None:
            return time
    return None
