"""Tells many stories at once to one running deployment, and looks how each of them ended.

A story lets somebody pay, or try to, and returns the payment with the ending that it must have;
one about several payments returns several. All of them run at the same time, as in life, over
one daemon: what one does must not show in another. They are looked at when every transaction
has been examined twice, by whoever was told first and by a sweep that has passed them all.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from indexer.core.payment import Payment
from store.payments import Record
from tests.scenario.ending import Ending
from tests.scenario.market import Market


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
        return Ending.of(self.record, self.events)


async def tell(market: Market, stories: Stories) -> dict[str, list[Outcome] | Exception]:
    """Runs them all, and returns the outcomes of each, or what it broke on."""
    results = await asyncio.gather(*(_tell(market, stories[name]) for name in stories))
    await market.deployment.swept_past(await market.cluster.slot())
    told: dict[str, list[Outcome] | Exception] = {}
    for name, result in zip(stories, results, strict=True):
        if isinstance(result, Exception):
            told[name] = result
        else:
            told[name] = [await _outcome(market, *each) for each in result]
    return told


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
