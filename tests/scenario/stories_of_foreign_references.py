"""Payments whose URL was made elsewhere: nothing but their own reference leads to them."""

from solders.keypair import Keypair

from indexer.core.types import Paid, Status
from store import cursors
from tests.scenario.ending import EXPIRED, SETTLED, Ending, clean, settled
from tests.scenario.market import AMOUNT, Market
from tests.scenario.story import Stories, Told


OF_FOREIGN_REFERENCES = Stories()


@OF_FOREIGN_REFERENCES.add
async def a_foreign_reference_settles(market: Market) -> Told:
    payment = await market.ask(reference=Keypair().pubkey())
    assert payment.terms.watch_key is None
    return payment, settled(await market.pays(payment), amount=AMOUNT)


@OF_FOREIGN_REFERENCES.add
async def a_foreign_reference_in_tokens_settles(market: Market) -> Told:
    payment = await market.ask(market.usdc, reference=Keypair().pubkey())
    return payment, settled(await market.pays(payment, market.usdc), amount=AMOUNT)


@OF_FOREIGN_REFERENCES.add
async def a_reference_that_was_paid_before_we_were_told_of_it_settles(market: Market) -> Told:
    merchant, reference = Keypair().pubkey(), Keypair().pubkey()
    url = f"solana:{merchant}?amount=0.01&reference={reference}"
    signature = await market.lands(await market.buyer.pay(url))
    payment = await market.ask(to=merchant, reference=reference)
    return payment, settled(signature, amount=AMOUNT)


@OF_FOREIGN_REFERENCES.add
async def a_reference_among_those_of_others_settles(market: Market) -> Told:
    """The URL names three keys, for three who watch; ours is the second of them."""
    keys = [Keypair().pubkey() for _ in range(3)]
    payment = await market.ask(reference=keys[1])
    query = "&".join(["amount=0.01", *(f"reference={key}" for key in keys)])
    signature = await market.buyer.pay(f"solana:{payment.terms.recipient}?{query}")
    return payment, settled(signature, amount=AMOUNT)


@OF_FOREIGN_REFERENCES.add
async def a_foreign_reference_expires_by_a_frontier_of_its_own_and_may_be_paid_late(
    market: Market,
) -> Told:
    payment = await market.ask(reference=Keypair().pubkey(), expires_in_s=1)
    await market.deployment.until(payment, Status.EXPIRED)
    frontier = await cursors.get(market.deployment.database, payment.terms.reference)
    assert frontier is not None
    assert (frontier.block_time or 0) > payment.terms.expires_at
    signature = await market.pays(payment)
    return payment, Ending(
        status=Status.SETTLED,
        paid=Paid.EXACT,
        late=True,
        received=AMOUNT,
        verdicts={signature: clean(AMOUNT)},
        events=(*EXPIRED, *SETTLED),
    )
