import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from indexer.core.decode import decode_transaction
from indexer.core.transaction import Instruction, Missing, TokenBalance, Transaction, Undecided
from indexer.core.types import AMOUNT_MAX, SYSTEM_PROGRAM, TOKEN_PROGRAM
from indexer.errors import DecodeError
from tests import vectors
from tests.chain import (
    BLOCK_TIME,
    FEE_LAMPORTS,
    SLOT,
    START_LAMPORTS,
    ata,
    call,
    key,
    sol_transfer,
    token_transfer,
    transaction,
)
from tests.core.script import BUYER, ORDER, SHOP, USDC, decoded
from tests.core.spoiled import PAID, WITH_TABLE, spoiled


def bytes_of(landed: Any) -> bytes:
    return msgspec.json.encode(landed)


def changed(landed: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy with one value replaced."""
    result = copy.deepcopy(landed)
    inside: Any = result
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = to
    return result


# ------------------------------------------------------------------------- what is read


def test_a_transfer_of_sol_is_read_whole() -> None:
    landed = sol_transfer(BUYER, SHOP, 1_000, references=[ORDER], name="paid", index=3)

    assert decoded(landed) == Transaction(
        signature=landed["transaction"]["signatures"][0],
        slot=SLOT,
        index=3,
        block_time=BLOCK_TIME,
        version="legacy",
        failed=False,
        fee=FEE_LAMPORTS,
        keys=(BUYER, SHOP, ORDER, SYSTEM_PROGRAM),
        instructions=(
            Instruction(
                0,
                None,
                SYSTEM_PROGRAM,
                (BUYER, SHOP, ORDER),
                landed["transaction"]["message"]["instructions"][0]["data"],
            ),
        ),
        pre_lamports=(START_LAMPORTS,) * 4,
        post_lamports=(
            START_LAMPORTS - 1_000 - FEE_LAMPORTS,
            START_LAMPORTS + 1_000,
            START_LAMPORTS,
            START_LAMPORTS,
        ),
        pre_tokens=(),
        post_tokens=(),
    )


def test_balances_of_tokens_are_read_from_the_base_units() -> None:
    """The decimal forms depend on the mint's extensions and are not looked at."""
    landed = token_transfer(BUYER, SHOP, 7, mint=USDC, recipient_before=None)
    for row in landed["meta"]["postTokenBalances"]:
        row["uiTokenAmount"] |= {"uiAmount": 1e99, "uiAmountString": "many"}

    rows = decoded(landed).post_tokens

    assert rows[1] == TokenBalance(ata(SHOP, USDC), USDC, SHOP, TOKEN_PROGRAM, 7)
    assert [row.account for row in decoded(landed).pre_tokens] == [ata(BUYER, USDC)]


def test_keys_from_lookup_tables_follow_the_static_ones_writable_first() -> None:
    landed = token_transfer(
        BUYER,
        SHOP,
        7,
        mint=USDC,
        references=[ORDER],
        version=0,
        loaded_writable=[ata(SHOP, USDC)],
        loaded_readonly=[ORDER, USDC],
    )

    read = decoded(landed)

    assert read.version == 0
    assert read.keys[-3:] == (ata(SHOP, USDC), ORDER, USDC)
    assert read.instructions[0].accounts == (
        ata(BUYER, USDC),
        USDC,
        ata(SHOP, USDC),
        BUYER,
        ORDER,
    )


def test_instructions_come_in_the_order_of_execution() -> None:
    program = key("program")
    landed = transaction(
        [call(program, data=b"0"), call(program, data=b"1"), call(program, data=b"2")],
        inner={0: [call(key("a"))], 2: [call(key("b")), call(key("c"))]},
    )

    places = [(each.outer, each.inner) for each in decoded(landed).instructions]

    assert places == [(0, None), (0, 0), (1, None), (2, None), (2, 0), (2, 1)]


def test_groups_of_inner_instructions_of_one_instruction_are_counted_through() -> None:
    landed = transaction([call(key("program"))], inner={0: [call(key("a")), call(key("b"))]})
    whole = landed["meta"]["innerInstructions"][0]["instructions"]
    split = [{"index": 0, "instructions": [each]} for each in whole]

    assert decoded(changed(landed, "meta", "innerInstructions", to=split)) == decoded(landed)


@pytest.mark.parametrize("version", ["legacy", 0, 1])
def test_every_version_is_read(version: Any) -> None:
    assert decoded({**PAID, "version": version}).version == version


def test_an_answer_without_version_and_index_is_of_an_older_node() -> None:
    landed = {**PAID}
    del landed["version"], landed["transactionIndex"]

    read = decoded(landed)

    assert (read.version, read.index) == ("legacy", None)


def test_any_error_means_failed_whatever_its_name() -> None:
    errors: list[Any] = ["AccountInUse", {"InstructionError": [0, "X"]}, {"NewInV9": []}, 0, {}]
    for err in errors:
        assert decoded(changed(PAID, "meta", "err", to=err)).failed
    assert not decoded(PAID).failed


def test_unknown_fields_are_skipped() -> None:
    landed = changed({**PAID, "new": {"x": [1]}}, "meta", "costUnits", to=2**70)

    assert decoded(landed) == decoded(PAID)


def test_transactions_sort_as_the_chain_did() -> None:
    """Nodes that do not say the position in the block leave the order to the signature."""
    made = [
        decoded(transaction([], slot=slot, index=index, name=name))
        for slot, index, name in [(2, 0, "a"), (1, 1, "b"), (1, 0, "c"), (1, None, "d")]
    ]

    order = [(each.slot, each.index) for each in sorted(made, key=lambda each: each.order)]

    assert order == [(1, None), (1, 0), (1, 1), (2, 0)]


# -------------------------------------------------------------------- what is left undecided


def _failed(landed: dict[str, Any]) -> dict[str, Any]:
    return changed(landed, "meta", "err", to="AccountInUse")


@pytest.mark.parametrize("absent", [True, False])
@pytest.mark.parametrize(
    ("field", "missing"),
    [
        ("innerInstructions", Missing.INNER_INSTRUCTIONS),
        ("preTokenBalances", Missing.TOKEN_BALANCES),
        ("postTokenBalances", Missing.TOKEN_BALANCES),
    ],
)
def test_a_successful_transaction_needs_all_of_its_parts(
    field: str, missing: Missing, absent: bool
) -> None:
    landed = changed(PAID, "meta", field, to=None)
    if absent:
        del landed["meta"][field]

    assert decode_transaction(bytes_of(landed)) == Undecided(
        PAID["transaction"]["signatures"][0], missing
    )
    assert decoded(_failed(landed)).failed  # a failed one moved nothing: they are not needed


@pytest.mark.parametrize("side", ["preTokenBalances", "postTokenBalances"])
def test_a_balance_without_its_owner_decides_nothing(side: str) -> None:
    landed = copy.deepcopy(PAID)
    del landed["meta"][side][0]["owner"]

    answer = decode_transaction(bytes_of(landed))

    assert isinstance(answer, Undecided)
    assert answer.missing is Missing.TOKEN_BALANCES


@pytest.mark.parametrize("err", [None, "AccountInUse"])
@pytest.mark.parametrize(
    "loaded",
    [
        None,
        {"writable": [], "readonly": []},
        {"writable": [ata(SHOP, USDC)], "readonly": []},
        {"writable": [], "readonly": [ORDER]},
        {"writable": [ata(SHOP, USDC)], "readonly": [ORDER, USDC]},
    ],
)
def test_keys_that_are_not_all_there_decide_nothing(loaded: Any, err: Any) -> None:
    landed = changed(WITH_TABLE, "meta", "loadedAddresses", to=loaded)

    answer = decode_transaction(bytes_of(changed(landed, "meta", "err", to=err)))

    assert isinstance(answer, Undecided)
    assert answer.missing is Missing.LOADED_ADDRESSES


def test_an_answer_without_meta_decides_nothing() -> None:
    answer = decode_transaction(bytes_of({**PAID, "meta": None}))

    assert answer == Undecided(PAID["transaction"]["signatures"][0], Missing.META)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("slot",), None, r"\$\.slot"),
        (("slot",), -1, r"\$\.slot"),
        (("slot",), 2**63, r"\$\.slot"),
        (("slot",), 1.5, r"\$\.slot"),
        (("blockTime",), "now", r"\$\.blockTime"),
        (("transactionIndex",), -1, r"\$\.transactionIndex"),
        (("version",), "v0", r"\$\.version"),
        (("version",), -1, r"\$\.version"),
        (("meta", "fee"), -1, r"\$\.meta\.fee"),
        (("meta", "fee"), AMOUNT_MAX + 1, "beyond 18446744073709551615 lamports"),
        (("meta", "preBalances", 0), -1, r"\$\.meta\.preBalances\[0\]"),
        (("meta", "postBalances", 0), AMOUNT_MAX + 1, "beyond 18446744073709551615 lamports"),
        (("meta", "postBalances", 0), 1e3, r"\$\.meta\.postBalances\[0\]"),
        (("meta", "preBalances"), [], "keys, 0 balances before and 7 after"),
        (("meta", "postBalances"), [1] * 6, "7 keys, 7 balances before and 6 after"),
        (("meta", "innerInstructions"), [{"index": 9, "instructions": []}], "instruction 9"),
        (("meta", "postTokenBalances", 0, "accountIndex"), 99, "names key 99 of 7"),
        (("meta", "postTokenBalances", 1, "accountIndex"), 1, "two token balances"),
        *(
            (("meta", "preTokenBalances", 0, "uiTokenAmount", "amount"), text, "is no amount")
            for text in ("", "-1", "1.0", "1e3", " 1", "\u0661", "9" * 5_000, str(AMOUNT_MAX + 1))
        ),
        (("meta", "preTokenBalances", 0, "uiTokenAmount", "amount"), 1, "amount"),
        (("transaction", "signatures"), [], "no signature"),
        (("transaction", "message", "accountKeys", 0), {"pubkey": BUYER}, r"accountKeys\[0\]"),
        (("transaction", "message", "accountKeys"), [], "0 keys"),
        (("transaction", "message", "accountKeys", 1), BUYER, "1 of 7 keys stand there twice"),
        (("transaction", "message", "instructions", 1, "programIdIndex"), 7, "beyond the 7"),
        (
            ("transaction", "message", "instructions", 1, "accounts", 0),
            7,
            "instruction 1 names a key",
        ),
        (("transaction", "message", "instructions", 1, "data"), None, r"instructions\[1\]\.data"),
    ],
)
def test_what_has_not_the_shape_of_a_transaction_is_refused_by_name(
    path: tuple[str | int, ...], value: Any, says: str
) -> None:
    raw = bytes_of(changed(PAID, *path, to=value))

    with pytest.raises(DecodeError, match=says) as refused:
        decode_transaction(raw)

    assert refused.value.payload == raw


@pytest.mark.parametrize(
    "path",
    [
        ("slot",),
        ("transaction",),
        ("transaction", "signatures"),
        ("transaction", "message"),
        ("transaction", "message", "accountKeys"),
        ("transaction", "message", "instructions"),
        ("meta", "err"),
        ("meta", "fee"),
        ("meta", "preBalances"),
        ("meta", "postBalances"),
    ],
)
def test_a_part_that_every_answer_has_is_missed_by_name(path: tuple[str, ...]) -> None:
    landed = copy.deepcopy(PAID)
    inside = landed
    for step in path[:-1]:
        inside = inside[step]
    del inside[path[-1]]

    with pytest.raises(DecodeError, match=f"missing required field `{path[-1]}`"):
        decode_transaction(bytes_of(landed))


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"null", b"[]", b"{}", b"1", b"NaN", b'"', b"{", b'{"slot":NaN}', b"\x00", b"\xff"),
        bytes_of(PAID) + b"x",
        b"\xef\xbb\xbf" + bytes_of(PAID),
        bytes_of(PAID).decode().encode("utf-16"),
        bytes_of(PAID).replace(SHOP.encode(), b"\xff\xfe"),
        bytes_of(PAID).replace(SHOP.encode(), b"\\ud800"),
        bytes_of(PAID).replace(b'"slot":100', b'"slot":' + b"9" * 5_000),
        bytes_of(PAID).replace(b'"slot":100', b'"slot":1e999'),
        bytes_of(PAID).replace(b'"err":null', b'"err":' + b"[" * 100_000 + b"]" * 100_000),
        bytes_of(PAID).replace(b'"err":null', b'"err":null,"x":' + b'{"a":' * 100_000),
        bytes_of(PAID).replace(b'"err":null', b'"err":' + b"9" * 5_000),
    ],
    ids=range(21),
)
def test_bytes_that_are_no_such_json_are_refused_and_kept(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="unreadable transaction: ") as refused:
        decode_transaction(raw)

    assert refused.value.payload == raw


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    """As in every JSON reader around; what matters is that it is one of them, and no crash."""
    raw = bytes_of(PAID).replace(b'"err":null', b'"err":null,"err":"AccountInUse"')

    read = decode_transaction(raw)

    assert isinstance(read, Transaction)
    assert read.failed


def test_an_answer_about_another_transaction_is_refused() -> None:
    """One that several signed has several signatures; the first one names it."""
    landed = changed(PAID, "transaction", "signatures", to=["first", "second"])

    assert isinstance(decode_transaction(bytes_of(landed), signature="first"), Transaction)
    with pytest.raises(DecodeError, match="asked for second, got another"):
        decode_transaction(bytes_of(landed), signature="second")


# ------------------------------------------------------------------------------ any bytes


def refusal(read: Callable[[bytes], object], raw: bytes) -> DecodeError | None:
    try:
        read(raw)
    except DecodeError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(raw=spoiled() | st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_read_or_refused(raw: bytes) -> None:
    """Nothing but `DecodeError` is raised, and that carries the bytes."""
    error = refusal(decode_transaction, raw)

    if error is not None:
        assert error.payload == raw
        assert str(error).startswith("unreadable ")


# ----------------------------------------------------------------------- real clusters


@pytest.mark.parametrize(
    "name",
    [
        "01_sol_two_transfers_memo_devnet",
        "04_sol_transferWithSeed_devnet",
        "06_sol_transfer_mainnet",
        "19_spl_nft_decimals0_transfer_mainnet",
    ],
)
def test_answers_in_jsonparsed_are_refused_because_they_drop_references(name: str) -> None:
    answer = vectors.load(f"verify/{name}.json")

    with pytest.raises(DecodeError, match=r"transaction: (Expected|Object missing)"):
        decode_transaction(bytes_of(answer.get("result", answer)))


def test_a_failed_transaction_of_mainnet_with_lookup_tables_has_all_its_keys() -> None:
    landed = vectors.load("verify/27_failed_tx_v0_alt_mainnet.json")
    for lookup in landed["transaction"]["message"]["addressTableLookups"]:
        lookup["readonlyIndexes"] = lookup.pop("readableIndexes")  # misnamed in the collection

    read = decoded(landed)

    assert (read.failed, read.version, len(read.keys)) == (True, 0, 40)
    assert len(read.pre_lamports) == len(read.keys)
