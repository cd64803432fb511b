"""Tells many stories at once to one running deployment, and looks how each of them ended.

A story lets somebody pay, or try to, and returns the payment with the ending that it must have;
one about several payments returns several. All of them run at the same time, as in life, over
one daemon: what one does must not show in another. They are looked at when every transaction
has been examined twice, by whoever was told first and by a sweep that has passed them all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from indexer import sweep
from indexer.core.payment import Payment
from indexer.core.types import EventType, Status
from indexer.demo.surfnet.launcher import Surfnet
from store.payments import Record
from tests.scenario.ending import Ending
from tests.scenario.market import Market


#: Seconds between sweeps: the last one is what everything waits for.
SWEEP_INTERVAL_S = 0.3

Told: TypeAlias = tuple[Payment, Ending]
Story: TypeAlias = Callable[[Market], Awaitable[Told | list[Told]]]


class Stories(dict[str, Story]):
    """Stories by name, which is the fact that they show."""

    def add(self, story: Story) -> Story:
        """Registers a function under its own name."""
        name = story.__name__
        assert name not in self, name
        self[name] = story
        return story


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one payment ended, beside how it had to.

    Attributes:
        events: the types, in order.
    """

    expected: Ending
    record: Record
    events: list[str]

    @property
    def seen(self) -> Ending:
        """What is stored."""
        return Ending.of(self.record, self.events)

    @property
    def faults(self) -> list[str]:
        """What does not hold and always must, whatever the story."""
        state, verdicts = self.record.payment.state, self.record.verdicts
        is_settled = state.status is Status.SETTLED
        settling = [v.block_time for v in verdicts if v.credit and v.clean]
        credited = sum(verdict.credit for verdict in verdicts)
        detected = self.events.count(EventType.DETECTED)
        checks = {
            "nothing is left sighted": not self.record.sightings,
            "received is the sum of the credits": state.received == credited,
            "no credit is more than its legs": all(
                v.credit <= sum(leg.net for leg in v.legs) for v in verdicts
            ),
            "settled when a clean credit came": state.settled_at in settling
            if is_settled
            else state.settled_at is None,
            "created first and once": self.events.index(EventType.CREATED) == 0
            and self.events.count(EventType.CREATED) == 1,
            "settled at most once": self.events.count(EventType.SETTLED) == int(is_settled),
            "detected at most once a credit": detected <= sum(v.credit > 0 for v in verdicts),
        }
        return [fact for fact, holds in checks.items() if not holds]


Outcomes: TypeAlias = dict[str, list[Outcome] | Exception]


async def tell(surfnet: Surfnet, folder: Path, stories: Stories) -> Outcomes:
    """Opens a market, tells all of them there, and returns what came of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "SWEEP_INTERVAL_S", SWEEP_INTERVAL_S)
        async with Market.open(surfnet, folder) as market:
            results = await asyncio.gather(*(_tell(market, stories[name]) for name in stories))
            await market.deployment.swept_past(await market.cluster.slot())
            return {
                name: result
                if isinstance(result, Exception)
                else [await _outcome(market, *each) for each in result]
                for name, result in zip(stories, results, strict=True)
            }


def outcomes(told: Outcomes, name: str) -> list[Outcome]:
    """How the payments of that story ended; raises what it broke on."""
    found = told[name]
    if isinstance(found, Exception):
        raise found
    return found


async def _tell(market: Market, story: Story) -> list[Told] | Exception:
    try:
        told = await story(market)
        endings = told if isinstance(told, list) else [told]
        for payment, ending in endings:
            await _examined(market, payment, set(ending.verdicts))
    except Exception as error:  # noqa: BLE001 - one story that breaks must not end the others
        return error
    return endings


async def _examined(market: Market, payment: Payment, signatures: set[str]) -> None:
    """Waits until each of the transactions has its verdict."""

    def is_examined(record: Record) -> bool:
        return signatures <= {verdict.signature for verdict in record.verdicts}

    await market.deployment.until(payment, is_examined)


async def _outcome(market: Market, payment: Payment, ending: Ending) -> Outcome:
    record = await market.deployment.record(payment)
    return Outcome(ending, record, await market.deployment.events(payment))
