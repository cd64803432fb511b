"""Shops that ask for payments at a steady rate, and customers who pay them, well and badly.

Every request for a payment has an Idempotency-Key of its own and is repeated with it, at the other
API, until one of them answers: there must be one payment in the end, whatever was killed meanwhile.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from solders.hash import Hash

from indexer.demo.cluster import Cluster
from indexer.demo.wallet import Wallet
from indexer.errors import AxiomError


AMOUNT: Final = 10_000_000
_ASKED: Final = "0.01"
#: Of payments that nobody pays.
_EXPIRES_IN_S: Final = 2

#: What most customers pay, transfer by transfer; in lamports.
_PAYING: Final[tuple[tuple[int, ...], ...]] = (
    *((AMOUNT,) for _ in range(8)),
    (AMOUNT // 2, AMOUNT - AMOUNT // 2),
    *((AMOUNT,) for _ in range(8)),
    (AMOUNT + 7,),
    *((AMOUNT,) for _ in range(4)),
    (1, AMOUNT),
    (AMOUNT, AMOUNT),
)
#: All of them, in turn; the last one pays nothing.
HABITS: Final = (*_PAYING, *_PAYING, ())

#: One payer alone becomes slow as his history grows.
WALLETS: Final = 250
_WALLET_LAMPORTS: Final = 100 * 10**9
_REQUEST_TIMEOUT_S: Final = 15.0
_PATIENCE_S: Final = 90.0
_PAUSE_S: Final = 0.25
_BLOCKHASH_S: Final = 0.5
_PAUSE_S_MAX: Final = 2.0
#: What a shop repeats: too early, too often, or not our fault.
_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


class Line(Cluster):
    """All customers' line to the runtime, which has enough to do: one blockhash serves many."""

    def __init__(self, rpc_url: str) -> None:
        super().__init__(rpc_url)
        self._blockhash: Hash | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def blockhash(self) -> Hash:
        """One that is half a second old at most."""
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if self._blockhash is None or clock() - self._asked_at > _BLOCKHASH_S:
                self._blockhash, self._asked_at = await super().blockhash(), clock()
            return self._blockhash


class CrowdError(AxiomError):
    """A payment could not be made at all."""


@dataclass(slots=True, kw_only=True)
class Order:
    """One payment that a shop wants.

    Attributes:
        habit: lamports of each transfer of its customer.
        id, reference: of the payment; empty: there is none yet.
        tries: requests that it took.
        asked_at, made_at: loop time of the first request, and of the answer.
        signatures: what the customer sent.
    """

    number: int
    habit: tuple[int, ...]
    id: str = ""
    reference: str = ""
    tries: int = 0
    asked_at: float = 0.0
    made_at: float = 0.0
    signatures: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its number at the shop."""
        return f"order-{self.number}"

    @property
    def will_settle(self) -> bool:
        """Its customer pays all of it."""
        return sum(self.habit) >= AMOUNT


class Crowd:
    """Everyone who buys.

    Attributes:
        orders: all that were begun.
        failures: what requests for payments came to that did not succeed.
        on_made: is told of each payment that there is.
        replayed: answers that the API had given before, to a request that was lost.
    """

    def __init__(
        self,
        rpc_url: str,
        apis: Sequence[str],
        key: str,
    ) -> None:
        self.orders: list[Order] = []
        self.failures: Counter[str] = Counter()
        self.replayed = 0
        self.on_made: Callable[[Order], object] = lambda _: None
        self._rpc_url = rpc_url
        self._apis = apis
        self._key = key
        self._wallets: itertools.cycle[Wallet] = itertools.cycle(())

    async def shop(self, rate: float, seconds: float) -> None:
        """Buys at that rate for so long; returns once everything is made and sent.

        Raises:
            CrowdError: no API made a payment for a minute and a half.
            SurfnetError: the runtime took no transaction.
        """
        clock = asyncio.get_running_loop().time
        habits = itertools.cycle(HABITS)
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        headers = {"Authorization": f"Bearer {self._key}"}
        async with (
            Line(self._rpc_url) as line,
            aiohttp.ClientSession(headers=headers, timeout=timeout) as http,
            asyncio.TaskGroup() as group,
        ):
            wallets = min(WALLETS, max(1, int(rate * seconds)))
            self._wallets = itertools.cycle(await Wallet.many(line, wallets, _WALLET_LAMPORTS))
            began = clock()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - clock()))
                order = Order(number=number, habit=next(habits), asked_at=clock())
                self.orders.append(order)
                group.create_task(self._buy(http, order), name=order.name)

    async def _buy(self, http: aiohttp.ClientSession, order: Order) -> None:
        payment = await self._made(http, order)
        order.id, order.reference = payment["id"], payment["reference"]
        order.made_at = asyncio.get_running_loop().time()
        self.on_made(order)
        wallet = next(self._wallets)
        for amount in order.habit:
            order.signatures.append(await wallet.pay(payment["url"], amount=amount))

    async def _made(self, http: aiohttp.ClientSession, order: Order) -> dict[str, Any]:
        """The payment, once an API has answered; each try goes to the next one."""
        pause_s = _PAUSE_S
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while (payment := await self._try(http, order)) is None:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _PAUSE_S_MAX)
        except TimeoutError:
            raise CrowdError(
                f"{order.name} could not be made in {_PATIENCE_S:g} s: {dict(self.failures)}"
            ) from None
        return payment

    async def _try(self, http: aiohttp.ClientSession, order: Order) -> dict[str, Any] | None:
        """One request for it; None when it is to be repeated."""
        api = self._apis[(order.number + order.tries) % len(self._apis)]
        order.tries += 1
        body: dict[str, Any] = {"amount": _ASKED, "token": "SOL", "order_id": order.name}
        if not order.habit:
            body["expires_in_s"] = _EXPIRES_IN_S
        once = {"Idempotency-Key": order.name}
        try:
            async with http.post(f"{api}/api/pay", json=body, headers=once) as answer:
                if answer.status == 201:
                    self.replayed += "Idempotent-Replayed" in answer.headers
                    payment: dict[str, Any] = await answer.json()
                    return payment
                self.failures[str(answer.status)] += 1
                if answer.status not in _AGAIN:
                    raise CrowdError(
                        f"{order.name} is refused: {answer.status} {await answer.text()}"
                    )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failures[type(error).__name__] += 1
        return None
