"""Whoever sees a payment's URL can send transactions that carry its reference.

However many, of whatever kind, before the real one or after it: the payment settles, once.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer.core.payment import Payment
from indexer.core.types import EventType, Paid, Reason, Status
from indexer.demo.instructions import memo, sol_transfer
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.scenario.ending import SETTLED, Ending, Says, clean
from tests.scenario.market import AMOUNT, Market, bound, mention
from tests.scenario.story import Outcomes, Stories, Story, Told, outcomes, tell


#: Transactions of garbage before the good one, and as many after it.
COUNT = 15

Garbage = Callable[[Market, Payment, Pubkey], list[Instruction]]


def dust(market: Market, payment: Payment, sender: Pubkey) -> list[Instruction]:
    return _transfer(market, payment, sender, 1)


def failure(market: Market, payment: Payment, sender: Pubkey) -> list[Instruction]:
    """It pays what was asked for, and then something that nobody can afford."""
    return [
        *_transfer(market, payment, sender, AMOUNT),
        sol_transfer(sender, market.buyer.key, 2**63),
    ]


def wrong_mint(market: Market, payment: Payment, sender: Pubkey) -> list[Instruction]:
    token = market.lookalike
    return [market.tokens(payment, token, 1, by=sender)]


def wrong_recipient(market: Market, payment: Payment, sender: Pubkey) -> list[Instruction]:
    return [bound(sol_transfer(sender, Keypair().pubkey(), AMOUNT), payment)]


def mere_mention(market: Market, payment: Payment, sender: Pubkey) -> list[Instruction]:
    return [mention(payment)]


#: Each kind, and what is to be said of it.
SAID: dict[Garbage, Says | None] = {
    dust: clean(1),
    failure: None,
    wrong_mint: clean(0, Reason.WRONG_MINT),
    wrong_recipient: clean(0, Reason.WRONG_RECIPIENT),
    mere_mention: clean(0, Reason.NOT_BOUND),
}


def buried_in(*kinds: Garbage, in_tokens: bool) -> Story:
    """The story of one good payment between two heaps of garbage of these kinds, in turn."""

    async def story(market: Market) -> Told:
        token = market.usdc if in_tokens else None
        sender, merchant = await market.wallet(sol=10), await market.wallet()
        payment = await market.ask(token, to=merchant.key)
        await market.stock(market.usdc, sender.key, COUNT * AMOUNT)
        await market.stock(market.lookalike, sender.key)
        await market.stock(market.lookalike, merchant.key)
        await market.stock(market.usdc, merchant.key)

        before = await _heap(market, payment, sender, kinds, "before")
        good = await market.lands(await market.pays(payment, token))
        after = await _heap(market, payment, sender, kinds, "after")
        received = AMOUNT + sum(says.credit for says in (*before.values(), *after.values()))
        return payment, Ending(
            status=Status.SETTLED,
            paid=Paid.EXACT if received == AMOUNT else Paid.OVER,
            received=received,
            verdicts={**before, good: clean(AMOUNT), **after},
            events=SETTLED,
        )

    return story


STORIES = Stories(
    {f"{kind.__name__} around SOL": buried_in(kind, in_tokens=False) for kind in SAID}
    | {"all of it around SOL": buried_in(*SAID, in_tokens=False)}
    | {"all of it around tokens": buried_in(*SAID, in_tokens=True)}
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(surfnet: Surfnet, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return await tell(surfnet, tmp_path_factory.mktemp("garbage"), STORIES)


@pytest.mark.parametrize("name", STORIES)
def test_settles_once(told: Outcomes, name: str) -> None:
    (outcome,) = outcomes(told, name)
    # Dust counts as a part: how many of the parts were stored together is nobody's business.
    events = [e for e in outcome.seen.events if e is not EventType.PARTIALLY_PAID]
    assert replace(outcome.seen, events=tuple(events)) == outcome.expected
    assert outcome.events[-1] == EventType.SETTLED
    assert outcome.faults == []


async def _heap(
    market: Market, payment: Payment, sender: Wallet, kinds: tuple[Garbage, ...], name: str
) -> dict[str, Says]:
    """Sends it, waits until it landed, and returns what must be said of it, by signature."""
    said = {}
    for number in range(COUNT):
        garbage = kinds[number % len(kinds)]
        different = memo(f"{name} {number}")
        signature = await sender.send(*garbage(market, payment, sender.key), different)
        if (says := SAID[garbage]) is not None:
            said[signature] = says
    await market.lands(signature)
    return said


def _transfer(market: Market, payment: Payment, sender: Pubkey, amount: int) -> list[Instruction]:
    if payment.terms.asset.mint is None:
        return [market.sol(payment, amount, by=sender)]
    return [market.tokens(payment, market.usdc, amount, by=sender)]
