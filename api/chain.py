"""What the API asks of the chain: the accounts that a new payment names, and nothing else.

The API does not know the chain side. It says here what it needs, and the entry point passes
something that has it.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from api.limits import CHAIN_TIMEOUT_S, MINT_CACHE_S
from indexer.core.account import Account
from indexer.errors import SourceUnavailable


class Chain(Protocol):
    """Reads accounts. Raises SourceError when nothing can be said."""

    async def account(self, key: str) -> Account | None:
        """What the chain says of an account; None when there is none."""
        ...

    async def rent_exempt_minimum(self) -> int:
        """Lamports that an account without data must hold."""
        ...


class Accounts:
    """Reads accounts through a chain, and remembers for a while what hardly ever changes.

    Mints of the allow list are remembered, and the rent: so the memory is bounded by the list.
    Recipients and references are asked for each time.
    """

    def __init__(
        self, chain: Chain, mints: Collection[str], monotonic: Callable[[], float]
    ) -> None:
        self._chain = chain
        self._mints = frozenset(mints)
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, Account]] = {}
        self._rent: tuple[float, int] | None = None

    async def read(self, keys: Collection[str]) -> Mapping[str, Account | None]:
        """What the chain says of each key.

        Raises:
            SourceError: any of them could not be read, or not in time.
        """
        try:
            async with asyncio.timeout(CHAIN_TIMEOUT_S):
                accounts = await asyncio.gather(*(self._account(key) for key in keys))
        except TimeoutError:
            raise _too_slow() from None
        return dict(zip(keys, accounts, strict=True))

    async def rent_exempt_minimum(self) -> int:
        """Lamports that an account without data must hold.

        Raises:
            SourceError: it could not be read, or not in time.
        """
        if self._rent is None or self._monotonic() - self._rent[0] >= MINT_CACHE_S:
            asked_at = self._monotonic()
            try:
                async with asyncio.timeout(CHAIN_TIMEOUT_S):
                    self._rent = (asked_at, await self._chain.rent_exempt_minimum())
            except TimeoutError:
                raise _too_slow() from None
        return self._rent[1]

    async def _account(self, key: str) -> Account | None:
        remembered = self._known.get(key)
        if remembered is not None and self._monotonic() - remembered[0] < MINT_CACHE_S:
            return remembered[1]
        asked_at = self._monotonic()
        account = await self._chain.account(key)
        if account is not None and key in self._mints:
            self._known[key] = (asked_at, account)
        return account


def _too_slow() -> SourceUnavailable:
    return SourceUnavailable(f"the chain did not answer within {CHAIN_TIMEOUT_S:g} s")
