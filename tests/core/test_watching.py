"""Blocks are read for the keys in them, and never taken for empty when something is missing."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from indexer.core.watching import read_block
from indexer.errors import DecodeError
from tests.chain import key, keys_of, signature_of, sol_transfer


BUYER, SHOP, ORDER = key("buyer"), key("shop"), key("order")
PAID = sol_transfer(BUYER, SHOP, 5_000, references=[ORDER])
OTHER = sol_transfer(BUYER, SHOP, 6_000)
LOADED = sol_transfer(
    BUYER, SHOP, 7_000, references=[ORDER], version=0, loaded_readonly=[ORDER], name="loaded"
)
LOADED_WRITABLE = sol_transfer(
    BUYER, SHOP, 7_000, references=[ORDER], version=0, loaded_writable=[ORDER], name="writable"
)


def block(*landed: dict[str, Any], **changes: Any) -> bytes:
    answer = {
        "blockHeight": 1,
        "blockTime": None,
        "blockhash": "this",
        "parentSlot": 6,
        "previousBlockhash": "before",
        "transactions": [
            {name: each[name] for name in ("meta", "transaction", "version")} for each in landed
        ],
    }
    return json.dumps(answer | changes).encode()


def edited(landed: dict[str, Any], edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    changed = copy.deepcopy(landed)
    edit(changed)
    return changed


def named(raw: bytes, *watched: str) -> tuple[str, ...]:
    return read_block(raw, slot=8, watched=frozenset(watched)).named


def test_a_block_says_where_it_stands() -> None:
    found = read_block(block(PAID, OTHER), slot=8, watched=frozenset())

    assert (found.slot, found.parent_slot, found.transactions) == (8, 6, 2)
    assert (found.blockhash, found.previous_blockhash) == ("this", "before")
    assert found.named == ()


@pytest.mark.parametrize("landed", [PAID, LOADED, LOADED_WRITABLE], ids=["static", "ro", "rw"])
def test_a_key_is_found_wherever_the_transaction_has_it(landed: dict[str, Any]) -> None:
    assert named(block(OTHER, landed, OTHER), ORDER) == (signature_of(landed),)
    assert named(block(OTHER, landed), key("nobody")) == ()


def test_every_key_of_a_transaction_finds_it() -> None:
    for each in keys_of(LOADED):
        assert named(block(LOADED), each) == (signature_of(LOADED),)


def test_they_are_named_in_the_order_of_the_block() -> None:
    assert named(block(LOADED, PAID), ORDER) == (signature_of(LOADED), signature_of(PAID))


def test_a_failed_transaction_needs_no_look() -> None:
    failed = sol_transfer(BUYER, SHOP, 5_000, references=[ORDER], err={"InstructionError": [0, 1]})

    assert named(block(failed), ORDER) == ()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: t.update(meta=None), "transaction 1 lacks meta"),
        (lambda t: t["meta"].pop("err"), "err"),
        (lambda t: t["meta"].pop("loadedAddresses"), "transaction 1 lacks loadedAddresses"),
        (lambda t: t["meta"].update(loadedAddresses=None), "lacks loadedAddresses"),
        (lambda t: t["meta"]["loadedAddresses"].update(readonly=[]), "lacks loadedAddresses"),
        (lambda t: t["transaction"].update(signatures=[]), "transaction 1 has no signature"),
        (lambda t: t["transaction"].pop("signatures"), "signatures"),
        (lambda t: t["transaction"]["message"].pop("accountKeys"), "accountKeys"),
        (lambda t: t["transaction"]["message"].update(accountKeys=[{"pubkey": ORDER}]), "str"),
        (lambda t: t.update(transaction=["AQ==", "base64"]), "object"),
    ],
)
def test_a_transaction_whose_keys_are_not_told_spoils_the_block(
    spoil: Callable[[dict[str, Any]], object], says: str
) -> None:
    """It may be ours."""
    with pytest.raises(DecodeError, match=f"unreadable block 8: .*{says}"):
        named(block(OTHER, edited(LOADED, spoil)), ORDER)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"transactions": None}, "array"),
        ({"parentSlot": -1}, "parentSlot"),
        ({"parentSlot": 2**63}, "parentSlot"),
        ({"parentSlot": None}, "parentSlot"),
        ({"blockhash": None}, "blockhash"),
        ({"previousBlockhash": 1}, "previousBlockhash"),
    ],
)
def test_what_is_no_block_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        named(block(PAID, **changes), ORDER)


def test_a_block_without_its_transactions_is_none() -> None:
    raw = json.loads(block(PAID))
    del raw["transactions"]

    with pytest.raises(DecodeError, match="transactions"):
        named(json.dumps(raw).encode(), ORDER)


def told(raw: bytes) -> str:
    """What is said of the bytes."""
    try:
        return f"block {read_block(raw, slot=8, watched=frozenset({ORDER})).slot}"
    except DecodeError as error:
        return str(error)


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=80), cut=st.integers(0, 1_200), at=st.integers(0, 1_200))
def test_whatever_the_bytes_are_they_are_read_or_refused(raw: bytes, cut: int, at: int) -> None:
    whole = block(PAID, LOADED)
    for spoiled in (raw, whole[:cut], whole[:at] + raw + whole[at + len(raw) :], b"[" * 100_000):
        assert told(spoiled).startswith(("unreadable block 8: ", "block 8"))
