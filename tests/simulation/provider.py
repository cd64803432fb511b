"""A provider that tells of confirmed transactions by webhook: late, twice, in any order, untruly.

What it sends is authentic, as if its secret had leaked: the door lets everything in, and what
comes out of it decides nothing. It goes into the store as the door puts it there.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.core.types import WebhookSource
from indexer.errors import StoreUnavailable
from store import webhook_events
from store.database import Database
from store.webhook_events import Arrived
from tests.simulation.chain import Placement, Sent
from tests.simulation.loop import VirtualLoop
from tests.simulation.outcome import Told


#: How often it tries to get rid of one webhook, and the longest pause between two tries.
TRIES_MAX: Final = 4
PAUSE_S: Final = 6.0
#: The longest that it waits with a webhook, and that it gathers what goes into one.
DELAY_S: Final = 25.0
GATHERED_S: Final = 3.0
#: Webhooks that are sent once more when it believes that none of them arrived.
AGAIN_MAX: Final = 50

#: Bodies that tell of nothing, or in no way that anybody could read.
_GARBAGE: Final = (
    b"[]",
    b"{}",
    b"[null, 7, true]",
    b'{"signature": 7, "slot": "yes"}',
    b'[{"signature": "not base58: 0OIl", "accountData": {}}]',
    b'{"webhookType": "ping", "data": [[[[[]]]]]}',
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """What is wrong with a provider. Chances from 0 to 1, each for one transaction.

    Attributes:
        loses, doubles, delays: as they say.
        gathers: that it waits for more, and tells of all of them in one webhook.
        lies: that it tells of something else as well that is not true.
        repeats: that it sends its last webhooks once more, all at once.
        is_waited_for: the world does not end before all that it sent has its end; else only what
            is true.
        is_enhanced: it writes its own form instead of that of a node, and leaves out what failed.
    """

    loses: float = 0.0
    doubles: float = 0.0
    delays: float = 0.0
    gathers: float = 0.0
    lies: float = 0.0
    repeats: float = 0.0
    is_waited_for: bool = False
    is_enhanced: bool = False


class Provider:
    """The provider, and the door that it knocks at.

    Attributes:
        told: every webhook that it sent, in the order of the first try.
        is_calm: nothing goes wrong any more.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        manners: Manners,
        database: Database,
        clock: Callable[[], float],
        *,
        watch_keys: Sequence[str],
        wake: Callable[[], bool],
    ) -> None:
        """Sends nothing before `run`.

        Args:
            loop: of the world.
            rng: its own.
            manners: its own.
            database: the door's.
            clock: unix seconds.
            watch_keys: it tells of transactions that name one.
            wake: what a door does after a commit; False when nobody is there who opens it.
        """
        self.is_calm = False
        self.told: list[Told] = []
        self._loop = loop
        self._rng = rng
        self._manners = manners
        self._database = database
        self._clock = clock
        self._watch_keys = watch_keys
        self._wake = wake
        self._gathered: list[Placement] = []
        self._to_send: asyncio.Queue[tuple[Told, bytes, float]] = asyncio.Queue()
        self._bodies: dict[str, bytes] = {}
        self._under_way = 0

    def is_done(self, waiting: Collection[str], finalized: Callable[[str], bool]) -> bool:
        """All was told, or given up, and nothing that should have an end still waits.

        Args:
            waiting: dedupe keys of what waits in the store.
            finalized: says of a signature whether it is.
        """
        if self._gathered or self._under_way:
            return False
        return not any(
            each.dedupe_key in waiting
            and (self._manners.is_waited_for or all(map(finalized, each.signatures)))
            for each in self.told
        )

    async def run(self) -> None:
        """Sends for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                told, body, delay_s = await self._to_send.get()
                group.create_task(self._bring(told, body, delay_s), name="webhook")

    # ----------------------------------------------------------------------------- hearing

    def on_confirmed(self, placements: Sequence[Placement]) -> None:
        """These were confirmed just now."""
        for placement in placements:
            if not set(self._watch_keys).intersection(placement.keys):
                if self._chance(self._manners.lies):
                    self._tell_of_strangers(placement)
                continue
            if self._chance(self._manners.loses):
                continue
            if self._chance(self._manners.gathers):
                self._gathered.append(placement)
                if len(self._gathered) == 1:
                    self._loop.call_later(GATHERED_S * self._rng.random(), self._tell_gathered)
            else:
                self._tell_of([placement])
        if placements and self._chance(self._manners.lies):
            self._tell_lies(placements[0])
        if placements and self._chance(self._manners.repeats):
            self._tell_again()

    def invent(self, sent: Sent) -> None:
        """Tells of a transaction that never was, if it lies."""
        if self._chance(self._manners.lies):
            element = {**sent.body, "slot": 5_000, "blockTime": int(self._clock())}
            self._send(msgspec.json.encode([element]), [sent.signature], is_true=False)

    # ----------------------------------------------------------------------------- telling

    def _tell_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._tell_of(gathered)

    def _tell_of(self, placements: Sequence[Placement]) -> None:
        if self._manners.is_enhanced:
            placements = [placement for placement in placements if not placement.failed]
            elements = [msgspec.json.encode(_enhanced(placement)) for placement in placements]
        else:
            elements = [placement.raw for placement in placements]
        if elements:
            is_bare = len(elements) == 1 and self._chance(0.1)
            body = elements[0] if is_bare else b"[" + b",".join(elements) + b"]"
            self._send(body, [placement.signature for placement in placements], is_true=True)

    def _tell_of_strangers(self, placement: Placement) -> None:
        """As if a transaction of somebody else had named the watch key."""
        keys = [*placement.keys, self._watch_keys[0]]
        body = msgspec.json.encode([_enhanced(placement, keys)])
        self._send(body, [placement.signature], is_true=False)

    def _tell_lies(self, placement: Placement) -> None:
        """About money that is ten times as much, or failed and did not; or about nothing at all."""
        sent, lie = placement.sent, self._rng.randrange(3)
        if lie == 0 or sent.inflated is None:
            self._send(self._rng.choice(_GARBAGE), [], is_true=False)
            return
        lied = sent.inflated() if lie == 1 else {**sent.body, "meta": {"err": None}}
        element = {**lied, "slot": placement.slot + self._rng.randrange(40)}
        self._send(msgspec.json.encode([element]), [sent.signature], is_true=False)

    def _tell_again(self) -> None:
        for told in self.told[-AGAIN_MAX:]:
            self._to_send.put_nowait((told, self._bodies[told.dedupe_key], 0.0))
            self._under_way += 1

    def _send(self, body: bytes, signatures: Sequence[str], *, is_true: bool) -> None:
        key = hashlib.sha256(body).hexdigest()
        told = next((each for each in self.told if each.dedupe_key == key), None)
        if told is None:
            told = Told(dedupe_key=key, signatures=tuple(signatures), is_true=is_true)
            self.told.append(told)
            self._bodies[key] = body
        for _ in range(2 if self._chance(self._manners.doubles) else 1):
            delay_s = DELAY_S * self._rng.random() if self._chance(self._manners.delays) else 0.3
            self._to_send.put_nowait((told, body, delay_s))
            self._under_way += 1

    async def _bring(self, told: Told, body: bytes, delay_s: float) -> None:
        """One webhook to the door, until it is taken in."""
        await asyncio.sleep(delay_s * self._rng.random())
        arrived = Arrived(
            source=WebhookSource.HELIUS,
            kind="transactions",
            dedupe_key=told.dedupe_key,
            nonce=None,
            body=body,
            headers={"content-type": "application/json"},
            address="192.0.2.1",
        )
        for _ in range(TRIES_MAX):
            if self._wake():
                told.tried += 1
                try:
                    await self._database.write(
                        [webhook_events.receive(arrived, int(self._clock()))]
                    )
                except StoreUnavailable:
                    pass  # a 503: it tries again
                else:
                    told.accepted += 1
                    self._wake()
                    break
            await asyncio.sleep(PAUSE_S * self._rng.random())
        self._under_way -= 1

    def _chance(self, of: float) -> bool:
        return of > 0 and not self.is_calm and self._rng.random() < of


def _enhanced(placement: Placement, keys: Sequence[str] | None = None) -> Mapping[str, Any]:
    """What Helius makes of a transaction; with other keys than it has, if given."""
    return {
        "accountData": [
            {"account": key, "nativeBalanceChange": 0, "tokenBalanceChanges": []}
            for key in keys or placement.keys
        ],
        "description": "",
        "events": {},
        "fee": 5_000,
        "feePayer": placement.keys[0],
        "instructions": [],
        "nativeTransfers": [],
        "signature": placement.signature,
        "slot": placement.slot,
        "source": "SYSTEM_PROGRAM",
        "timestamp": placement.block_time,
        "tokenTransfers": [],
        "transactionError": None,
        "type": "TRANSFER",
    }
