"""The wallet's line to a local Solana runtime: sends transactions, and bends the world.

Deliberately not `indexer.sources.rpc`, so that no test of the product rests on the product's own
idea of the chain.
"""

import asyncio
import base64
import ipaddress
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from indexer.core.types import SYSTEM_PROGRAM, TOKEN_PROGRAM, Commitment
from indexer.demo.surfnet.install import SurfnetError


_REQUEST_TIMEOUT_S: Final = 30
_LANDING_TIMEOUT_S: Final = 30
_POLL_INTERVAL_S: Final = 0.05
_STATUSES_MAX: Final = 256  # of one getSignatureStatuses

_RANK: Final = {"processed": 0, "confirmed": 1, "finalized": 2}


@dataclass(frozen=True, slots=True)
class Landed:
    """A transaction that made it into a block.

    Attributes:
        error: what the runtime says went wrong; None when it succeeded.
    """

    signature: str
    slot: int
    error: Any


class Cluster:
    """JSON-RPC to one local runtime, for the length of an `async with` block.

    Refuses to speak to anything but this machine: wallets made here keep their keys in memory
    and sign whatever they are told.
    """

    def __init__(self, rpc_url: str) -> None:
        if not _is_loopback(urlsplit(rpc_url).hostname or ""):
            raise SurfnetError(f"{rpc_url} is not on this machine: only a local runtime is used")
        self.rpc_url = rpc_url
        self._stack = AsyncExitStack()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._http = None
        await self._stack.aclose()

    async def call(self, method: str, *params: Any) -> Any:
        """The `result` of one request.

        Raises:
            SurfnetError: when the runtime refuses, or does not answer.
        """
        if self._http is None:
            raise RuntimeError("use Cluster in an `async with` block")
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._http.post(self.rpc_url, json=request) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise SurfnetError(f"the Solana runtime does not answer {method}: {error!r}") from error
        if "error" in answer:
            raise SurfnetError(f"the Solana runtime refuses {method}: {answer['error']}")
        return answer["result"]

    async def blockhash(self) -> Hash:
        """A recent one; good for 150 slots."""
        answer = await self.call("getLatestBlockhash", {"commitment": "processed"})
        return Hash.from_string(answer["value"]["blockhash"])

    async def slot(self, commitment: str = "processed") -> int:
        """The newest slot at a commitment."""
        return int(await self.call("getSlot", {"commitment": commitment}))

    async def slot_after(self, slot: int) -> int:
        """The first processed slot after this one, once it is there."""
        async with asyncio.timeout(_LANDING_TIMEOUT_S):
            while (now := await self.slot()) <= slot:  # noqa: ASYNC110 - another process's clock
                await asyncio.sleep(_POLL_INTERVAL_S)
        return now

    async def rent_exempt_minimum(self, size: int = 0) -> int:
        """Lamports that an account of `size` bytes must hold."""
        return int(await self.call("getMinimumBalanceForRentExemption", size))

    async def send(self, transaction: VersionedTransaction) -> str:
        """Hands it in and returns its signature at once; a failing one lands, and fails."""
        wire = base64.b64encode(bytes(transaction)).decode()
        options = {"encoding": "base64", "skipPreflight": True}
        return str(await self.call("sendTransaction", wire, options))

    async def landed(
        self, signatures: Sequence[str], commitment: Commitment = Commitment.CONFIRMED
    ) -> list[Landed]:
        """Where they are, once all have reached the commitment.

        Raises:
            SurfnetError: when one has not after 30 s.
        """
        found: dict[str, Landed] = {}
        try:
            async with asyncio.timeout(_LANDING_TIMEOUT_S):
                while missing := [s for s in signatures if s not in found][:_STATUSES_MAX]:
                    found.update(await self._statuses(missing, commitment))
                    if len(found) < len(set(signatures)):
                        await asyncio.sleep(_POLL_INTERVAL_S)
        except TimeoutError:
            raise SurfnetError(
                f"{missing[0]} is not {commitment} after {_LANDING_TIMEOUT_S} s"
            ) from None
        return [found[signature] for signature in signatures]

    async def transaction(
        self, signature: str, commitment: Commitment = Commitment.CONFIRMED
    ) -> Any:
        """The answer of getTransaction; None while there is none."""
        options = {
            "encoding": "json",
            "commitment": commitment,
            "maxSupportedTransactionVersion": 1,
        }
        return await self.call("getTransaction", signature, options)

    async def lamports(self, key: Pubkey) -> int:
        """The balance of an account; 0 when there is none."""
        answer = await self.call("getBalance", str(key), {"commitment": "processed"})
        return int(answer["value"])

    async def fund_sol(self, key: Pubkey, lamports: int) -> None:
        """Makes it a plain wallet with this balance, whatever it was before."""
        await self.set_account(key, lamports=lamports)

    async def set_account(
        self, key: Pubkey, *, lamports: int, data: bytes = b"", owner: str = SYSTEM_PROGRAM
    ) -> None:
        """Makes an account what no transaction could."""
        update = {"lamports": lamports, "data": data.hex(), "owner": owner}
        await self.call("surfnet_setAccount", str(key), update)

    async def set_token_account(
        self, owner: Pubkey, mint: Pubkey, amount: int, token_program: str = TOKEN_PROGRAM
    ) -> None:
        """Gives the owner's associated token account this balance, minted by nobody."""
        update = {"amount": amount}
        await self.call("surfnet_setTokenAccount", str(owner), str(mint), update, token_program)

    async def travel_to_slot(self, slot: int) -> None:
        """Jumps forward; what was confirmed before is final then."""
        await self.call("surfnet_timeTravel", {"absoluteSlot": slot})

    async def travel_to_time(self, unix_s: int) -> None:
        """Jumps forward so that the next blocks carry this time or a later one."""
        await self.call("surfnet_timeTravel", {"absoluteTimestamp": unix_s * 1_000})

    async def pause_clock(self) -> None:
        """Stops making slots, as a cluster that stalls.

        What is sent meanwhile is executed and can be fetched (with a block time of 0), but has no
        status and reaches no commitment until the clock goes on.
        """
        await self.call("surfnet_pauseClock")

    async def resume_clock(self) -> None:
        """Makes slots again."""
        await self.call("surfnet_resumeClock")

    async def reset(self) -> None:
        """Forgets every transaction and every balance, as a fork that was dropped; starts anew."""
        await self.call("surfnet_resetNetwork")

    async def _statuses(
        self, signatures: Sequence[str], commitment: Commitment
    ) -> dict[str, Landed]:
        options = {"searchTransactionHistory": True}
        answer = await self.call("getSignatureStatuses", list(signatures), options)
        return {
            signature: Landed(signature, status["slot"], status["err"])
            for signature, status in zip(signatures, answer["value"], strict=True)
            if status is not None and _RANK[status["confirmationStatus"]] >= _RANK[commitment]
        }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
