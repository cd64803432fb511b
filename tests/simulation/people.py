"""Merchants who ask for money, and wallets that pay it: rightly, wrongly, late, twice, in parts."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from indexer.core import events, ids, settle
from indexer.core.payment import Asset, Payment, Terms
from indexer.core.types import TOKEN_PROGRAM, Status
from indexer.errors import Conflict, StoreUnavailable
from store import payments, reference_checks
from store.database import Database
from tests.chain import TokenAccount, Version, holding, transaction
from tests.instructions import Ix, ata, checked_transfer, key, memo, signature, system_transfer
from tests.simulation.chain import Chain, Sent
from tests.simulation.loop import BEGINNING_S, VirtualLoop
from tests.simulation.outcome import Asked, Leg


#: Names of keys come from that many sets, which worlds share: making keys costs time.
NAME_SETS: Final = 32

FAILED: Final = {"InstructionError": [0, {"Custom": 1}]}
_VERSIONS: Final[tuple[Version, ...]] = ("legacy", 0, 1)
SOL: Final = Asset(symbol="SOL", mint=None, decimals=9, token_program=None)
USDC: Final = Asset(symbol="USDC", mint=key("usdc"), decimals=6, token_program=TOKEN_PROGRAM)
OTHER: Final = Asset(symbol="OTHER", mint=key("other"), decimals=6, token_program=TOKEN_PROGRAM)


class People:
    """Everybody who is not the daemon.

    Attributes:
        asked: payments that are stored, in the order of their creation.
        invent: told of each payment, for a node that lies.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        rng: random.Random,
        chain: Chain,
        database: Database,
        clock: Callable[[], float],
        *,
        busy_s: float,
        watch_keys: Sequence[str],
        seed: int,
    ) -> None:
        self.asked: list[Asked] = []
        self.invent: Callable[[Sent], None] = lambda _sent: None
        self.note: Callable[[str, str], None] = chain.note
        self._loop = loop
        self._rng = rng
        self._chain = chain
        self._database = database
        self._clock = clock
        self._busy_s = busy_s
        self._watch_keys = watch_keys
        self._names = seed % NAME_SETS
        self._sent = 0
        self._shops = [key(f"shop {n} {self._names}") for n in range(2)]

    # ---------------------------------------------------------------------------- merchants

    async def live_through(self, number: int) -> None:
        """One payment from the wish to the end, whatever that is."""
        rng = random.Random(f"{self._rng.random()} {number}")
        await asyncio.sleep(rng.random() * self._busy_s * 0.5)
        payment = self._wish(number, rng)
        if payment.terms.watch_key is None and rng.random() < 0.3:
            self._send(rng, [(payment.terms, payment.terms.amount)])  # paid before it was asked
            await asyncio.sleep(rng.random() * 20)
            payment = replace(payment, terms=self._dated(payment.terms))
        await self._store(payment)
        if rng.random() < 0.3:
            invented = self._signed(rng, [(payment.terms, payment.terms.amount)])
            self._loop.call_later(rng.random() * 20, self.invent, invented)
        plan = rng.choices(list(PLANS), list(PLANS.values()))[0]
        self.note("people", f"{payment.terms.id[:8]} {plan.__name__[1:]}")
        async with asyncio.TaskGroup() as group:
            if rng.random() < 0.1:
                group.create_task(self._cancel(payment, rng.random() * 20), name="cancel")
            if rng.random() < 0.2:
                group.create_task(self._look(payment, rng.random() * 40), name="look")
            await plan(self, payment.terms, rng)

    def _wish(self, number: int, rng: random.Random) -> Payment:
        asset = rng.choice((SOL, SOL, USDC))
        shop = rng.choice(self._shops)
        token_account = None if asset.mint is None else ata(shop, asset.mint)
        terms = Terms(
            id=ids.payment_id(rng.randbytes(16)),
            asset=asset,
            recipient=shop,
            token_account=token_account,
            amount=rng.randint(1_000, 3_000_000),
            reference=key(f"reference {number} {self._names}"),
            watch_key=None if rng.random() < 0.2 else self._watch_key(number),
            created_at=0,
            expires_at=rng.randint(8, 50),
            grace_s=rng.choice((0, 5, 20, 40)),
        )
        return Payment(terms=self._dated(terms), order_id=f"order {number}")

    def _watch_key(self, number: int) -> str:
        """The older one for one in three, also when it is retired: nobody told who makes them."""
        return self._watch_keys[0 if number % 3 else -1]

    def _dated(self, terms: Terms) -> Terms:
        """The same terms as of now."""
        now, lasts = int(self._clock()), terms.expires_at - terms.created_at
        return replace(terms, created_at=now, expires_at=now + lasts)

    async def _store(self, payment: Payment) -> None:
        """As the API does it, with a client who tries until it is sure."""
        created = events.created(payment, payment.terms.created_at)
        await self._surely(lambda: self._database.write(payments.insert(payment, created)))
        self.asked.append(Asked(terms=payment.terms, stored_at_s=self._loop.time() - BEGINNING_S))

    async def _surely(self, write: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await write()
            except StoreUnavailable:
                await asyncio.sleep(0.5)
            except Conflict:
                return  # the last try was stored after all
            else:
                return

    async def _cancel(self, payment: Payment, after_s: float) -> None:
        """The merchant takes the offer back, if it is still pending."""
        await asyncio.sleep(after_s)
        id_ = payment.terms.id
        for _ in range(20):
            try:
                record = await payments.get(self._database, id_)
                if record is None or record.payment.state.status is not Status.PENDING:
                    break
                before, now = record.payment, int(self._clock())
                after = settle.cancel(before, now)
                change = events.of_change(before, after, now)
                await self._database.write(payments.save(before, after, events=change, now=now))
            except (StoreUnavailable, Conflict):
                await asyncio.sleep(0.2)
        self.note("people", f"{id_[:8]} canceled, if it was pending")

    async def _look(self, payment: Payment, after_s: float) -> None:
        """Somebody asks for the status, which asks for a check of the reference."""
        await asyncio.sleep(after_s)
        ask = reference_checks.ask(payment.terms.id, int(self._clock()))
        await self._surely(lambda: self._database.write([ask]))

    # ------------------------------------------------------------------------------ wallets

    def references(self, terms: Terms) -> tuple[str, ...]:
        """The keys of the payment's URL."""
        return (terms.reference, *([terms.watch_key] if terms.watch_key else []))

    def _send(
        self,
        rng: random.Random,
        parts: Sequence[tuple[Terms, int]],
        *,
        references: tuple[str, ...] | None = None,
        failed: bool = False,
    ) -> None:
        sent = self._signed(rng, parts, references=references, failed=failed)
        amounts = [amount for _, amount in parts]
        self.note("people", f"{sent.signature[:6]} sent: {amounts}{' failing' * failed}")
        self._chain.submit(sent)

    def _signed(
        self,
        rng: random.Random,
        parts: Sequence[tuple[Terms, int]],
        *,
        references: tuple[str, ...] | None = None,
        failed: bool = False,
    ) -> Sent:
        """A transaction with one transfer for each part."""
        self._sent += 1
        name = f"transaction {self._sent} {self._names}"
        buyer = key(f"buyer {rng.randrange(3)}")
        version: Version = rng.choice(_VERSIONS)
        legs = tuple(
            _leg(terms, amount, buyer, self.references(terms) if references is None else references)
            for terms, amount in parts
        )

        def body(err: Any = None, times: int = 1) -> dict[str, Any]:
            transfers = [
                _transfer(leg, terms, times) for leg, (terms, _) in zip(legs, parts, strict=True)
            ]
            notes = [memo(f"order {self._sent}")] if self._sent % 4 == 0 else []
            return transaction(
                [*notes, *transfers],
                fee_payer=buyer,
                name=name,
                version=version,
                err=err,
                tokens=_holdings(legs, buyer),
            )

        fails = body(FAILED)
        return Sent(
            signature=signature(name),
            body=fails if failed else body(),
            legs=legs,
            failed_body=fails,
            inflated=lambda: body(times=10),
        )

    async def _until(self, unix_s: float) -> None:
        """Waits for that time by the cluster's clock."""
        await asyncio.sleep(max(0.0, unix_s - self._chain.time))

    # ------------------------------------------------------------------------------- plans

    async def _soon(self, terms: Terms, rng: random.Random) -> None:
        left_s = terms.expires_at - self._chain.time
        await asyncio.sleep(max(0.0, left_s) * rng.random() ** 2)

    async def _exact(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, terms.amount)])

    async def _under(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, rng.randrange(1, terms.amount))])

    async def _over(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, terms.amount + rng.randint(1, 1_000))])

    async def _twice(self, terms: Terms, rng: random.Random) -> None:
        await self._exact(terms, rng)
        await asyncio.sleep(rng.choice((0.0, 1.0, 20.0)) * rng.random())
        self._send(rng, [(terms, terms.amount)])

    async def _dust_first(self, terms: Terms, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 3)):
            self._send(rng, [(terms, 1)], failed=rng.random() < 0.3)
            await asyncio.sleep(rng.random() * 3)
        await self._exact(terms, rng)

    async def _in_parts(self, terms: Terms, rng: random.Random) -> None:
        count, left = rng.randint(2, 3), terms.amount
        for number in range(count):
            part = left if number == count - 1 else rng.randrange(1, left // 2)
            left -= part
            self._send(rng, [(terms, part)])
            await asyncio.sleep(rng.choice((0.0, 2.0, 15.0)) * rng.random())

    async def _late(self, terms: Terms, rng: random.Random) -> None:
        await self._until(terms.expires_at + rng.random() * (terms.grace_s + 2))
        self._send(rng, [(terms, terms.amount)])

    async def _too_late(self, terms: Terms, rng: random.Random) -> None:
        await self._until(terms.expires_at + terms.grace_s + rng.random() * 10)
        self._send(rng, [(terms, terms.amount)])

    async def _never(self, terms: Terms, rng: random.Random) -> None:
        pass

    async def _fails_first(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, terms.amount)], failed=True)
        await self._exact(terms, rng)

    async def _astray(self, terms: Terms, rng: random.Random) -> None:
        """To somebody else, or in another currency; and sometimes once more, rightly."""
        await self._soon(terms, rng)
        if rng.random() < 0.5:
            stranger = key(f"stranger {self._names}")
            mint = terms.asset.mint
            account = None if mint is None else ata(stranger, mint)
            wrong = replace(terms, recipient=stranger, token_account=account)
        else:
            asset = OTHER if terms.asset.mint is not None or rng.random() < 0.5 else USDC
            assert asset.mint is not None
            wrong = replace(terms, asset=asset, token_account=ata(terms.recipient, asset.mint))
        self._send(rng, [(wrong, terms.amount)])
        if rng.random() < 0.5:
            await self._exact(terms, rng)

    async def _without_watch_key(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, terms.amount)], references=(terms.reference,))

    async def _without_references(self, terms: Terms, rng: random.Random) -> None:
        await self._soon(terms, rng)
        self._send(rng, [(terms, terms.amount)], references=())

    async def _two_at_once(self, terms: Terms, rng: random.Random) -> None:
        """This payment and another one that is there, in one transaction."""
        await self._soon(terms, rng)
        others = [asked.terms for asked in self.asked if asked.terms.id != terms.id]
        parts = [(terms, terms.amount)]
        if others:
            other = rng.choice(others)
            parts.insert(rng.randrange(2), (other, other.amount))
        self._send(rng, parts)


Plan = Callable[[People, Terms, random.Random], Awaitable[None]]

#: What a wallet does, and how often.
PLANS: Final[dict[Plan, int]] = {
    People._exact: 6,
    People._under: 2,
    People._over: 2,
    People._twice: 2,
    People._dust_first: 3,
    People._in_parts: 3,
    People._late: 3,
    People._too_late: 2,
    People._never: 1,
    People._fails_first: 2,
    People._astray: 2,
    People._without_watch_key: 3,
    People._without_references: 1,
    People._two_at_once: 3,
}


def _leg(terms: Terms, amount: int, buyer: str, references: tuple[str, ...]) -> Leg:
    mint = terms.asset.mint
    return Leg(
        source=buyer if mint is None else ata(buyer, mint),
        destination=terms.token_account or terms.recipient,
        owner=terms.recipient,
        mint=mint,
        amount=amount,
        references=references,
    )


def _transfer(leg: Leg, terms: Terms, times: int) -> Ix:
    amount = leg.amount * times
    if leg.mint is None:
        return system_transfer(leg.source, leg.destination, amount, *leg.references)
    buyer = next(name for name in _BUYERS if ata(name, leg.mint) == leg.source)
    return checked_transfer(
        leg.source,
        leg.mint,
        leg.destination,
        buyer,
        amount,
        *leg.references,
        decimals=terms.asset.decimals,
    )


_BUYERS: Final = tuple(key(f"buyer {n}") for n in range(3))


def _holdings(legs: Sequence[Leg], buyer: str) -> list[TokenAccount]:
    """The balance rows of every token account that takes part."""
    owners = {
        account: (owner, leg.mint)
        for leg in legs
        if leg.mint is not None
        for account, owner in ((leg.source, buyer), (leg.destination, leg.owner))
    }
    return [holding(owner, mint) for owner, mint in owners.values()]
