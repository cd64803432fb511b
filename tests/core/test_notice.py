"""Signatures, slots and keys in what providers send, and nothing that can break the reader."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from indexer.core import notice as notice_module
from indexer.core.notice import Mention, Notice, read_notice
from indexer.errors import InvalidInput
from tests import vectors
from tests.chain import key, signature, signature_of, sol_transfer, token_transfer


SIGNATURE = signature("paid")
OTHER = signature("other")
SLOT = 381_888_616
A, B, C, D = (key(name) for name in "abcd")


def read(body: Any) -> Notice:
    return read_notice(json.dumps(body).encode())


def only(body: Any) -> Mention:
    notice = read(body)
    [mention] = notice.mentions
    assert (notice.skipped, notice.beyond) == (0, 0)
    return mention


# ---------------------------------------------------------------------------------- shapes


RAW = {
    "blockTime": 1,
    "indexWithinBlock": 3,
    "slot": SLOT,
    "version": 0,
    "transaction": {
        "signatures": [SIGNATURE, OTHER],
        "message": {
            "accountKeys": [A],
            "instructions": [{"accounts": [0, 1], "data": "3Bxs", "programIdIndex": 1}],
        },
    },
    "meta": {
        "err": None,
        "loadedAddresses": {"writable": [B], "readonly": [C]},
        "preTokenBalances": [],
        "postTokenBalances": [{"accountIndex": 1, "owner": D, "mint": key("mint")}],
    },
}
ENHANCED = {
    "accountData": [
        {
            "account": A,
            "nativeBalanceChange": -5_000,
            "tokenBalanceChanges": [{"userAccount": B, "tokenAccount": C, "mint": key("mint")}],
        }
    ],
    "description": "somebody paid somebody 1000000 USDC",
    "events": {},
    "feePayer": A,
    "instructions": [
        {
            "accounts": [C],
            "programId": key("program"),
            "innerInstructions": [{"accounts": [D], "programId": key("program")}],
        }
    ],
    "signature": SIGNATURE,
    "slot": SLOT,
    "tokenTransfers": [{"tokenAmount": 1e6}],
    "type": "TRANSFER",
}
PARSED = RAW | {
    "transaction": {
        "signatures": [SIGNATURE],
        "message": {"accountKeys": [{"pubkey": A, "signer": True, "source": "transaction"}]},
    },
}
INVOKED = {
    "blockTime": 1,
    "logs": ["Program log: paid"],
    "programInvocations": [
        {"programId": key("program"), "instruction": {"accounts": [{"pubkey": A}], "index": 0}}
    ],
    "signature": SIGNATURE,
    "slot": SLOT,
    "success": True,
}
BLOCK = {
    "blockHeight": 9,
    "blockhash": key("blockhash"),
    "parentSlot": SLOT - 1,
    "rewards": [{"pubkey": key("validator"), "lamports": 1}],
    "transactions": [{n: RAW[n] for n in ("transaction", "meta", "version")}],
}

ALL = {A, B, C, D}
SHAPES: dict[str, tuple[Any, int | None, set[str]]] = {
    "raw": ([RAW], SLOT, ALL),
    "raw, bare": (RAW, SLOT, ALL),
    "raw, parsed": ([PARSED], SLOT, ALL),
    "raw, legacy, as it was before versions": (
        [{n: v for n, v in RAW.items() if n != "version"} | {"meta": {"err": None}}],
        SLOT,
        {A},
    ),
    "raw, no meta": ([RAW | {"meta": None}], SLOT, {A}),
    "enhanced": ([ENHANCED], SLOT, ALL),
    "enhanced, bare": (ENHANCED, SLOT, ALL),
    "enhanced, events are a list": ([ENHANCED | {"events": []}], SLOT, ALL),
    "enhanced, little of it": ([{"signature": SIGNATURE, "feePayer": A}], None, {A}),
    "both in one": ([RAW | {"signature": SIGNATURE}], SLOT, ALL),
    "quicknode, a block": ({"data": [BLOCK], "metadata": {"dataset": "block"}}, None, ALL),
    "quicknode, blocks of blocks": ({"data": [[BLOCK]], "metadata": {}}, None, ALL),
    "quicknode, one block": ({"data": BLOCK}, None, ALL),
    "quicknode, a block that says its slot": ({"data": [BLOCK | {"slot": SLOT}]}, SLOT, ALL),
    "quicknode, programs and logs": ({"data": [[INVOKED]]}, SLOT, {A}),
    "quicknode, a filter's own words": (
        {"matchedTransactions": [{"signature": SIGNATURE, "accounts": [A, B], "slot": SLOT}]},
        SLOT,
        {A, B},
    ),
    "quicknode, an answer in a wrapper": ([{"transaction": RAW}], SLOT, ALL),
    "quicknode, without an envelope": ([RAW["transaction"]], None, {A}),
    "quicknode, bare signatures": ({"data": [SIGNATURE]}, None, set()),
    "quicknode, bare signatures by name": ({"slot": SLOT, "signatures": [SIGNATURE]}, SLOT, set()),
    "in base64": (
        [{"signature": SIGNATURE, "slot": SLOT, "transaction": ["AQID", "base64"]}],
        SLOT,
        set(),
    ),
}


@pytest.mark.parametrize(("body", "slot", "accounts"), SHAPES.values(), ids=SHAPES)
def test_a_transaction_is_found_in_any_shape(
    body: Any, slot: int | None, accounts: set[str]
) -> None:
    mention = only(body)

    assert (mention.signature, mention.slot) == (SIGNATURE, slot)
    assert accounts <= mention.accounts
    assert mention.accounts <= accounts | {key("mint")}


@pytest.mark.parametrize("version", ["legacy", 0, 1])
def test_all_keys_of_every_version_are_found(version: Any) -> None:
    loaded: Any = {"loaded_readonly": [C]} if version == 0 else {}
    landed = token_transfer(
        A, B, 1_000, mint=key("usdc"), references=[C], version=version, slot=SLOT, **loaded
    )

    mention = only([landed])

    assert mention.signature == signature_of(landed)
    assert {A, B, C} <= mention.accounts, "B owns the token account, and is in no list of keys"


@pytest.mark.parametrize("name", vectors.names("stream", "helius_webhook_*.json"))
def test_what_helius_really_sent_is_read(name: str) -> None:
    mention = only(body := vectors.load(name))

    assert mention.slot == body[0]["slot"]
    said = json.dumps(body)
    assert len(mention.accounts) >= 4
    assert all(account in said for account in mention.accounts)


def test_several_are_told_in_their_order_and_each_once() -> None:
    landed = [sol_transfer(A, B, n, slot=n) for n in (3, 1, 2)]

    notice = read([*landed, landed[0]])

    assert [mention.slot for mention in notice.mentions] == [3, 1, 2]


def test_who_speaks_twice_of_a_transaction_says_the_keys_of_both() -> None:
    said = [{"signature": SIGNATURE, "accounts": [name]} for name in (A, B)]

    assert only(said).accounts == {A, B}


def test_who_speaks_of_it_without_end_is_listened_to_once() -> None:
    """In time that grows with the body, and not with its square."""
    keys = [f"{'k' * 32}{number}" for number in range(30_000)]

    assert only([{"signature": SIGNATURE, "accounts": [name]} for name in keys]).accounts == {*keys}


@pytest.mark.parametrize(
    "body",
    [[], {"data": []}, {"data": [[], []], "metadata": {"x": [1], "last": [SIGNATURE]}}],
    ids=repr,
)
def test_nothing_is_nothing(body: Any) -> None:
    assert read(body) == Notice(mentions=(), skipped=0, beyond=0)


# ------------------------------------------------------------------------------- unusable


UNUSABLE: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a word": "paid",
    "a word as long as a signature": "l" * 88,
    "an empty object": {},
    "no transaction": {"type": "TEST", "id": 5},
    "no signature": {"signature": None, "accounts": [A]},
    "a signature that is a number": {"signature": 7},
    "a signature of another length": {"signature": SIGNATURE[:-4]},
    "a key for a signature": {"signature": A},
    "a signature that is not base58": {"signature": "0" * 88},
    "an endless signature": {"signature": SIGNATURE * 1_000},
    "a signature in full width": {"signature": "\uff15" + SIGNATURE[1:]},
    "a signature and a space": {"signature": f"{'1' * 64} "},
    "no signatures": {"transaction": {"signatures": [], "message": {}}},
    "keys that are none": {"signature": SIGNATURE, "accounts": "all of them"},
    "a list of lists for keys": RAW | {"transaction": {"signatures": [SIGNATURE], "message": []}},
    "balances of another shape": RAW | {"meta": {"postTokenBalances": [7]}},
}


@pytest.mark.parametrize("element", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"data": x}], ids=["list", "data"])
def test_an_unusable_element_is_counted_and_keeps_no_other_from_being_read(
    element: Any, wrap: Any
) -> None:
    notice = read(wrap([element, ENHANCED | {"signature": OTHER}, element]))

    assert [mention.signature for mention in notice.mentions] == [OTHER]
    assert notice.skipped == 2


@pytest.mark.parametrize(
    "slot", [-1, 2**63, 2**64, 10**400, 1.5, "7", True, None, [7], {"slot": 7}], ids=repr
)
def test_a_slot_that_is_none_is_not_said(slot: Any) -> None:
    text = json.dumps([ENHANCED]).replace(f'"slot": {SLOT}', f'"slot": {json.dumps(slot)}')

    try:
        notice = read_notice(text.encode())
    except InvalidInput:
        assert slot == 10**400, "a number that JSON readers refuse"
    else:
        assert [mention.slot for mention in notice.mentions] == [None]


def test_texts_that_cannot_be_keys_are_no_accounts() -> None:
    said = {"signature": SIGNATURE, "accounts": [A, "", "x" * 31, "y" * 45, "z" * 1_000_000, 3]}

    assert only([said]).accounts == {A}


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"7", b'"text"', b"[", b"{", b"[]]", b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf[]",
     b"[NaN]", b"[1e999]", b'["\xff"]', b"[" * 100_000, b'{"data":' * 100_000],
)  # fmt: skip
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_notice(body)


def test_what_lies_too_deep_is_not_looked_for() -> None:
    body: Any = ENHANCED
    for _ in range(notice_module.DEPTH_MAX):
        body = [body]

    assert read(body) == Notice(mentions=(), skipped=1, beyond=0)
    assert only(body[0]).signature == SIGNATURE


def test_instructions_within_instructions_without_end_are_unusable() -> None:
    inner: dict[str, Any] = {"accounts": [A]}
    for _ in range(400):
        inner = {"accounts": [A], "innerInstructions": [inner]}

    notice = read([ENHANCED | {"instructions": [inner]}, ENHANCED | {"signature": OTHER}])

    assert OTHER in {mention.signature for mention in notice.mentions}


def test_more_than_are_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_module, "MENTIONS_MAX", 3)
    signatures = [signature(f"{n}") for n in range(5)]

    notice = read([*signatures[:2], *({"signature": each} for each in signatures[2:])])

    assert [mention.signature for mention in notice.mentions] == signatures[:3]
    assert notice.beyond == 2


# ------------------------------------------------------------------------------- anything


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.sampled_from([SIGNATURE, A]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["signature", "signatures", "message", "transaction", "transactions", "data", "meta",
             "slot", "accounts", "accountKeys", "accountData", "account", "instructions",
             "innerInstructions", "loadedAddresses", "writable", "readonly", "postTokenBalances",
             "owner", "feePayer", "programInvocations", "instruction", "metadata", "pubkey"]
        )
        | st.text(max_size=3),
        inner,
        max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_json)
def test_any_json_is_read_or_refused(body: Any) -> None:
    try:
        notice = read(body)
    except InvalidInput:
        return
    for mention in notice.mentions:
        assert mention.signature == SIGNATURE
        assert mention.accounts <= {A}
        assert mention.slot is None or 0 <= mention.slot < 2**63


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        notice = read_notice(body)
    except InvalidInput:
        return
    assert notice.mentions == ()
