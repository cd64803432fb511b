"""What one `getTransaction` costs: bare aiohttp, ours, and solana-py's AsyncClient.

    python -m bench rpc_clients

A server in a process of its own answers every request with the same transaction, so that what
is measured is the client: requests a second, and the CPU time of this process for each, with the
answer decoded. The clients take turns, several rounds each; medians are printed.
"""

import asyncio
import itertools
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import aiohttp
import msgspec
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Finalized
from solders.signature import Signature

from indexer.core.decode import decode_transaction
from indexer.core.types import Commitment
from indexer.sources.endpoint import Bounds
from indexer.sources.rpc import Rpc
from indexer.sources.truth import read_transaction
from tests.chain import key, signature_of, token_transfer


REQUESTS = 2_000
ROUNDS = 5
AT_ONCE = (1, 32)

LANDED = token_transfer(
    key("buyer"), key("shop"), 1_000_000, mint=key("usdc"), references=[key("order"), key("watch")]
)
SIGNATURE = signature_of(LANDED)

#: Asks for that many transactions, so many at once, and decodes each answer.
Client = Callable[[int, int], Awaitable[None]]


def main() -> None:
    """Prints a line for each client and number of requests at once."""
    with _server() as url:
        asyncio.run(_compare(url))


async def _compare(url: str) -> None:
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {
            "aiohttp + msgspec, bare": await _bare(stack, url),
            "ours (truth: proven final)": _ours(url),
            "solana-py AsyncClient": await _solana_py(stack, url),
        }
        print(f"{'':28} {'at once':>8} {'requests/s':>11} {'CPU µs':>8}")
        for at_once in AT_ONCE:
            figures = await _measure(clients, at_once)
            for name, rounds in figures.items():
                rate = statistics.median(rate for rate, _ in rounds)
                cpu_us = statistics.median(cpu_us for _, cpu_us in rounds)
                print(f"{name:28} {at_once:8} {rate:11,.0f} {cpu_us:8,.0f}")


async def _measure(
    clients: dict[str, Client], at_once: int
) -> dict[str, list[tuple[float, float]]]:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for client in clients.values():
        await client(at_once * 4, at_once)  # opens the connections
    for _, (name, client) in itertools.product(range(ROUNDS), clients.items()):
        started, cpu_started = time.perf_counter(), time.process_time()
        await client(REQUESTS, at_once)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
        figures[name].append((REQUESTS / seconds, cpu_s / REQUESTS * 1e6))
    return figures


# ------------------------------------------------------------------------------ clients


async def _bare(stack: AsyncExitStack, url: str) -> Client:
    """The least that this can cost: no retry, no limit, no health, no finality."""
    session = await stack.enter_async_context(aiohttp.ClientSession())

    class Answer(msgspec.Struct):
        result: msgspec.Raw

    decoder = msgspec.json.Decoder(Answer)
    options = {"commitment": "finalized", "encoding": "json", "maxSupportedTransactionVersion": 1}
    question = {"jsonrpc": "2.0", "id": 1, "method": "getTransaction"}

    async def one() -> None:
        body = msgspec.json.encode({**question, "params": [SIGNATURE, options]})
        async with session.post(url, data=body) as response:
            decode_transaction(bytes(decoder.decode(await response.read()).result))

    return lambda count, at_once: _many(one, count, at_once)


def _ours(url: str) -> Client:
    """The product's own way to a transaction; it opens its connections anew each time."""

    async def ask(count: int, at_once: int) -> None:
        bounds = Bounds(rate=0, concurrency=at_once)
        async with Rpc([url], bounds=bounds) as rpc:

            async def one() -> None:
                await read_transaction(rpc, SIGNATURE, Commitment.FINALIZED)

            await _many(one, count, at_once)

    return ask


async def _solana_py(stack: AsyncExitStack, url: str) -> Client:
    client = await stack.enter_async_context(AsyncClient(url))
    asked = Signature.from_string(SIGNATURE)

    async def one() -> None:
        answer = await client.get_transaction(
            asked, commitment=Finalized, max_supported_transaction_version=1
        )
        assert answer.value is not None

    return lambda count, at_once: _many(one, count, at_once)


async def _many(one: Callable[[], Awaitable[None]], count: int, at_once: int) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(work() for _ in range(at_once)))


# ------------------------------------------------------------------------------- server


@contextmanager
def _server() -> Iterator[str]:
    """The URL of a server that runs in a process of its own."""
    command: Sequence[str] = (sys.executable, "-m", "bench.rpc_clients")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class _Canned(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; as little of it as a client needs."""

    _head = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
    _asked = re.compile(rb'"id":\s*(\d+)')
    _landed = msgspec.json.encode(LANDED)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = self._head.search(self._received, 0, end)
            assert length is not None
            stop = end + 4 + int(length[1])
            if len(self._received) < stop:
                return
            asked, self._received = self._received[end + 4 : stop], self._received[stop:]
            self._answer(asked)

    def _answer(self, asked: bytes) -> None:
        number = self._asked.search(asked)
        assert number is not None
        result = b"1000" if b"getSlot" in asked else self._landed
        body = b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (result, number[1])
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
