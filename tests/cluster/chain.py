"""What the chain itself says, read over raw RPC without any code of the product.

`Times` notes when each slot was confirmed and when it was final; `receipts` what a recipient got.
"""

import asyncio
import bisect
from collections.abc import Sequence
from typing import Any, Final

from indexer.demo.cluster import Cluster
from indexer.demo.surfnet.install import SurfnetError


_SAMPLE_PAUSE_S: Final = 0.1
_AT_ONCE: Final = 16
_FINALITIES: Final = ("confirmed", "finalized")


class Times:
    """When slots reached a commitment, by loop time, to some 100 ms."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._slots: dict[str, list[int]] = {name: [] for name in _FINALITIES}
        self._times: dict[str, list[float]] = {name: [] for name in _FINALITIES}

    async def run(self) -> None:
        """Looks for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            for name in _FINALITIES:
                slot = await self._cluster.slot(name)
                slots = self._slots[name]
                if not slots or slot > slots[-1]:
                    slots.append(slot)
                    self._times[name].append(clock())
            await asyncio.sleep(_SAMPLE_PAUSE_S)

    def of(self, slot: int, commitment: str) -> float | None:
        """When the slot had reached it; None: it was not seen."""
        place = bisect.bisect_left(self._slots[commitment], slot)
        times = self._times[commitment]
        return times[place] if place < len(times) else None


async def receipts(
    cluster: Cluster, references: Sequence[str], recipient: str
) -> dict[str, dict[str, tuple[int, int]]]:
    """For each reference, what the recipient got by each transaction that names it.

    Returns:
        reference -> signature -> slot and lamports; failed transactions are left out.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(reference: str) -> dict[str, tuple[int, int]]:
        async with gate:
            found: dict[str, tuple[int, int]] = {}
            for row in await cluster.call("getSignaturesForAddress", reference):
                landed = await cluster.transaction(row["signature"])
                if landed is None:
                    raise SurfnetError(f"the runtime lists {row['signature']} and has it not")
                if landed["meta"]["err"] is None:
                    found[row["signature"]] = landed["slot"], _got(landed, recipient)
            return found

    return dict(zip(references, await asyncio.gather(*map(one, references)), strict=True))


def _got(landed: Any, recipient: str) -> int:
    """Lamports by which the recipient is richer after a transaction than before it."""
    place = landed["transaction"]["message"]["accountKeys"].index(recipient)
    meta = landed["meta"]
    return int(meta["postBalances"][place]) - int(meta["preBalances"][place])
