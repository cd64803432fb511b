"""What `doctor` looks at. A check answers with findings; it does not raise for what it finds."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from indexer import parsers
from indexer.cli.command import bounds_of
from indexer.errors import SharedUnavailable, SourceError, SourceRejected
from indexer.redact import redact
from indexer.settings import Settings
from indexer.sources.endpoint import Endpoint
from store.database import is_file
from store.shared import Shared


#: Clusters by the hash of their first block.
CLUSTERS: Final = {
    "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d": "mainnet-beta",
    "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG": "devnet",
    "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY": "testnet",
}

#: About a minute of slots: behind by more, a node is not merely slow to answer.
BEHIND_SLOTS_MAX: Final = 150
#: Finality takes 13 s; a finalized block older than this means a stalled cluster or node.
FINALIZED_AGE_MAX_S: Final = 60
HEARTBEAT_S_MAX: Final = 5.0

#: The signature of no transaction: 64 zero bytes. Only how the question is taken matters.
_NO_SIGNATURE: Final = "1" * 64
_INVALID_PARAMS: Final = -32602


class Grade(StrEnum):
    """How good a finding is. FAIL: payments are not followed, or not safely."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(NamedTuple):
    """One line of the report; the hint says how to fix what is not ok."""

    grade: Grade
    check: str
    found: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one RPC endpoint says of itself.

    Attributes:
        block_time: of the finalized slot, unix seconds; None when it does not know.
        reads_version_1: it takes the question for transactions of version 1.
    """

    name: str
    genesis_hash: str
    version: str
    finalized_slot: int
    block_time: int | None
    reads_version_1: bool


class _Version(msgspec.Struct, rename="kebab"):
    solana_core: str


def of_settings(settings: Settings) -> list[Finding]:
    """What is allowed, but perhaps not meant."""
    findings = []
    if settings.recipient is None:
        hint = "set AXIOM_RECIPIENT, unless every payment names who is paid"
        findings.append(Finding(Grade.WARN, "recipient", "none is set", hint))
    else:
        findings.append(Finding(Grade.OK, "recipient", settings.recipient))
    quorum = f"{settings.verify_quorum} of {len(settings.rpc_urls)}"
    if settings.verify_quorum == 1:
        hint = "one node is believed alone; name more AXIOM_RPC_URLS and set AXIOM_VERIFY_QUORUM=2"
        findings.append(Finding(Grade.WARN, "quorum", quorum, hint))
    else:
        findings.append(Finding(Grade.OK, "quorum", quorum))
    return findings + _of_address(settings) + _of_processes(settings)


def _of_address(settings: Settings) -> list[Finding]:
    """Whoever serves others says under which name."""
    if settings.has_public_url or parsers.is_loopback(settings.host):
        return []
    found = f"AXIOM_HOST is {settings.host}, and AXIOM_PUBLIC_URL is not set"
    hint = "set it: links lead to this machine's port, and the API answers under any name"
    return [Finding(Grade.WARN, "public URL", found, hint)]


def _of_processes(settings: Settings) -> list[Finding]:
    """A server is there for several processes, and those share what Redis holds."""
    if settings.redis_url is not None or is_file(settings.database_url):
        return []
    hint = "each process counts callers for itself, and is woken by none: set AXIOM_REDIS_URL"
    return [Finding(Grade.WARN, "redis", "none is set, beside a libSQL server", hint)]


async def of_redis(settings: Settings) -> list[Finding]:
    """Whether Redis takes a value, where one is set; a value that is gone by itself at once."""
    if settings.redis_url is None:
        return []
    check = f"redis {redact(settings.redis_url)}"
    hint = "each API process counts and remembers for itself; see AXIOM_REDIS_URL"
    try:
        async with Shared(settings.redis_url) as shared:
            await shared.put("doctor", b"", ttl_ms=1)
    except SharedUnavailable as error:
        return [Finding(Grade.FAIL, check, redact(str(error)), hint)]
    return [Finding(Grade.OK, check, "takes values")]


async def of_node(url: str, settings: Settings) -> Node | Finding:
    """What the endpoint answers, or why it does not."""
    async with Endpoint(url, bounds=bounds_of(settings)) as endpoint:
        try:
            return await _ask(endpoint)
        except SourceError as error:
            hint = "check AXIOM_RPC_URLS, the key in it, and the network"
            return Finding(Grade.FAIL, f"rpc {endpoint.name}", str(error), hint)


async def _ask(endpoint: Endpoint) -> Node:
    slot = await endpoint.finalized_slot()
    genesis = await endpoint.call("getGenesisHash", [])
    version = await endpoint.call("getVersion", [])
    return Node(
        name=endpoint.name,
        genesis_hash=endpoint.decode(genesis, str, "getGenesisHash"),
        version=endpoint.decode(version, _Version, "getVersion").solana_core,
        finalized_slot=slot,
        block_time=await _block_time(endpoint, slot),
        reads_version_1=await _reads_version_1(endpoint),
    )


async def _block_time(endpoint: Endpoint, slot: int) -> int | None:
    try:
        raw = await endpoint.call("getBlockTime", [slot])
    except SourceRejected:
        return None
    return None if raw == b"null" else endpoint.decode(raw, int, "getBlockTime")


async def _reads_version_1(endpoint: Endpoint) -> bool:
    options = {
        "encoding": "json",
        "commitment": "finalized",
        "maxSupportedTransactionVersion": 1,
    }
    try:
        await endpoint.call("getTransaction", [_NO_SIGNATURE, options])
    except SourceRejected as error:
        if error.code == _INVALID_PARAMS:
            return False
        raise
    return True


def of_nodes(nodes: Sequence[Node], stored: str | None, now: float) -> list[Finding]:
    """What follows from the nodes' answers, each by itself and side by side.

    Args:
        nodes: those that answered.
        stored: genesis hash that the database was filled from; None: from none yet.
        now: unix seconds.
    """
    best = max((node.finalized_slot for node in nodes), default=0)
    expected = stored or (nodes[0].genesis_hash if nodes else "")
    findings = []
    for node in nodes:
        check = f"rpc {node.name}"
        findings += [
            Finding(Grade.OK, check, f"solana-core {node.version}"),
            _cluster(node, check, expected, from_database=stored is not None),
            _freshness(node, check, best, now),
        ]
        if not node.reads_version_1:
            hint = "payments in transactions of version 1 cannot be read there: upgrade the node"
            findings.append(Finding(Grade.FAIL, check, "does not know version 1", hint))
    return findings


def _cluster(node: Node, check: str, expected: str, *, from_database: bool) -> Finding:
    name = CLUSTERS.get(node.genesis_hash, "a cluster of its own")
    found = f"{name}, genesis hash {node.genesis_hash}"
    if node.genesis_hash == expected:
        return Finding(Grade.OK, check, found)
    other = "the database was filled from" if from_database else "the first endpoint serves"
    hint = f"{other} {CLUSTERS.get(expected, expected)}: one database is for one cluster"
    return Finding(Grade.FAIL, check, found, hint)


def _freshness(node: Node, check: str, best: int, now: float) -> Finding:
    behind = best - node.finalized_slot
    found = f"finalized slot {node.finalized_slot}"
    if node.block_time is not None:
        found += f", {max(0, round(now - node.block_time))} s old"
    if behind > BEHIND_SLOTS_MAX:
        hint = "the node cannot keep up: use another, or wait until it has caught up"
        return Finding(Grade.WARN, check, f"{found}, {behind} slots behind the others", hint)
    if node.block_time is None:
        hint = "nothing can expire or be late until the node knows the time of its blocks"
        return Finding(Grade.WARN, check, f"{found}, of unknown age", hint)
    if node.block_time - now > FINALIZED_AGE_MAX_S:
        hint = "this machine's clock is behind: payments expire earlier than they say; set it right"
        return Finding(
            Grade.WARN, check, f"{found}, but made {round(node.block_time - now)} s from now", hint
        )
    if now - node.block_time > FINALIZED_AGE_MAX_S:
        hint = "the cluster stalls, the node is behind, or this machine's clock is wrong"
        return Finding(Grade.WARN, check, found, hint)
    return Finding(Grade.OK, check, found)


async def of_websocket(url: str) -> Finding:
    """Whether slots are announced there: without them payments are only found by sweeping."""
    check, hint = f"websocket {redact(url)}", "payments are then noticed later; see AXIOM_WS_URLS"
    try:
        async with (
            asyncio.timeout(2 * HEARTBEAT_S_MAX),
            connect(url, compression=None, close_timeout=1, open_timeout=HEARTBEAT_S_MAX) as socket,
        ):
            await socket.send('{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}')
            async with asyncio.timeout(HEARTBEAT_S_MAX):
                while "params" not in (answer := json.loads(await socket.recv())):
                    if "error" in answer:
                        return Finding(Grade.FAIL, check, redact(str(answer["error"])), hint)
            return Finding(Grade.OK, check, f"announces slot {answer['params']['result']['slot']}")
    except TimeoutError:
        return Finding(Grade.FAIL, check, f"no slot within {HEARTBEAT_S_MAX:g} s", hint)
    except (OSError, WebSocketException, ValueError, KeyError, TypeError) as error:
        return Finding(Grade.FAIL, check, redact(f"{type(error).__name__}: {error}"), hint)
