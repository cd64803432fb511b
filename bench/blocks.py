"""How fast full blocks are matched against all open payments, on one core.

    python -m bench blocks

Makes blocks of the size that mainnet has (1,300 transactions) out of real transactions of many
kinds, each with keys and a signature of its own, and some that name one of 100,000 references.
Then, in turns over the same blocks: the product's matcher, from the bytes of `getBlock` to the
signatures that concern us; and the full decoding of the same transactions, which is what a replay
would do without it. The real transactions are read from a folder of `getTransaction` answers,
`BENCH_VECTORS`; without it, from those that the tests make.
"""

import os
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import base58
import msgspec

from indexer.core.decode import decode_transaction
from indexer.core.types import SYSTEM_PROGRAM
from indexer.core.watching import read_block
from indexer.errors import DecodeError
from tests.chain import key, sol_transfer, token_transfer


PAYMENTS = 100_000
TRANSACTIONS = 1_300
#: Of JSON, as measured on a block of mainnet; what the templates lack is filled up with log lines.
TRANSACTION_BYTES = 5_900
#: One of so many transactions is ours.
OURS_EVERY = 100
BLOCKS = 8
ROUNDS = 5
TARGET_PER_S = 20_000


def main() -> None:
    """Prints transactions a second, of the matcher and of the full decoder, and their ratio."""
    templates = _templates()
    references = [_fresh(32) for _ in range(PAYMENTS)]
    watched = frozenset(references)
    landed = [_block(templates, references) for _ in range(BLOCKS)]
    blocks = [_as_get_block(transactions, n) for n, transactions in enumerate(landed)]
    singles = [[msgspec.json.encode(each) for each in block] for block in landed[:2]]
    size = statistics.mean(map(len, blocks))
    print(f"{len(templates)} kinds of transactions, {size / 1e6:.2f} MB a block", file=sys.stderr)
    matched, decoded = [], []
    for _ in range(ROUNDS):
        matched.append(_match(blocks, watched))
        decoded.append(_decode(singles))
    fast, full = statistics.median(matched), statistics.median(decoded)
    print(f"blocks matched with {PAYMENTS} references  {fast:10,.0f} transactions/s")
    print(f"the same transactions decoded in full  {full:10,.0f} transactions/s")
    print(f"ratio                                  {fast / full:10.2f}")
    print(f"bytes                                  {fast * size / TRANSACTIONS / 1e6:10,.0f} MB/s")
    print(f"at least {TARGET_PER_S:,}/s: {'yes' if fast >= TARGET_PER_S else 'NO'}")


def _match(blocks: Sequence[bytes], watched: frozenset[str]) -> float:
    began, found = time.perf_counter(), 0
    for slot, raw in enumerate(blocks):
        found += len(read_block(raw, slot=slot, watched=watched).named)
    seconds = time.perf_counter() - began
    assert found == len(blocks) * (TRANSACTIONS // OURS_EVERY), found
    return len(blocks) * TRANSACTIONS / seconds


def _decode(singles: Sequence[Sequence[bytes]]) -> float:
    began = time.perf_counter()
    for block in singles:
        for raw in block:
            decode_transaction(raw)
    return len(singles) * TRANSACTIONS / (time.perf_counter() - began)


# ---------------------------------------------------------------------------- making blocks


def _templates() -> list[dict[str, Any]]:
    """Real transactions that succeeded, or made ones where none are at hand."""
    folder = Path(os.environ.get("BENCH_VECTORS", ""))
    found = []
    for path in sorted(folder.glob("*.json")) if folder.name else ():
        answer = msgspec.json.decode(path.read_bytes())
        for name in ("result", "rpcTransaction"):
            answer = answer.get(name, answer) if isinstance(answer, dict) else answer
        if isinstance(answer, dict) and _is_readable(answer):
            found.append(answer)
    if found:
        return found
    print("BENCH_VECTORS names no folder of transactions: using made ones", file=sys.stderr)
    buyer, shop = key("buyer"), key("shop")
    return [
        sol_transfer(buyer, shop, 5_000, references=[key("order")]),
        token_transfer(buyer, shop, 5_000, mint=key("mint"), references=[key("order")]),
    ]


def _is_readable(answer: dict[str, Any]) -> bool:
    try:
        decode_transaction(msgspec.json.encode(answer))
    except DecodeError:
        return False  # whatever else is in that folder
    return True


def _block(templates: Sequence[dict[str, Any]], references: list[str]) -> list[dict[str, Any]]:
    """Ours are among those that succeeded: the others are not looked at."""
    good = [landed for landed in templates if landed["meta"]["err"] is None]
    return [
        _other(templates[n % len(templates)], None)
        if n % OURS_EVERY
        else _other(good[n // OURS_EVERY % len(good)], secrets.choice(references))
        for n in range(TRANSACTIONS)
    ]


def _other(landed: dict[str, Any], reference: str | None) -> dict[str, Any]:
    """The same transaction with other keys; the last static key is the reference, if any."""
    message, meta = landed["transaction"]["message"], landed["meta"]
    keys = [_fresh(32) for _ in message["accountKeys"]]
    if reference is not None:
        keys[-1] = reference
    loaded = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
    return {
        **landed,
        "transaction": {
            "signatures": [_fresh(64) for _ in landed["transaction"]["signatures"]],
            "message": {**message, "accountKeys": keys},
        },
        "meta": {
            **meta,
            "loadedAddresses": {
                side: [_fresh(32) for _ in loaded[side]] for side in ("writable", "readonly")
            },
            "logMessages": _log_lines(landed),
        },
    }


def _log_lines(landed: dict[str, Any]) -> list[str]:
    """Those of the template, and as many more as a transaction of the usual size has."""
    lines = list(landed["meta"].get("logMessages") or [])
    missing = TRANSACTION_BYTES - len(msgspec.json.encode(landed))
    while missing > 0:
        lines.append(f"Program {SYSTEM_PROGRAM} consumed {len(lines)} of 200000 compute units")
        missing -= len(lines[-1]) + 3
    return lines


def _as_get_block(transactions: Sequence[dict[str, Any]], slot: int) -> bytes:
    return msgspec.json.encode(
        {
            "blockHeight": slot,
            "blockTime": 1_790_000_000,
            "blockhash": _fresh(32),
            "parentSlot": max(0, slot - 1),
            "previousBlockhash": _fresh(32),
            "transactions": [
                {name: each[name] for name in ("meta", "transaction", "version") if name in each}
                for each in transactions
            ],
        }
    )


def _fresh(size: int) -> str:
    return base58.b58encode(secrets.token_bytes(size)).decode()


if __name__ == "__main__":
    main()
