"""Mints, most of them made by the real token programs in an in-process Solana runtime."""

import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st
from solders.account import Account as RuntimeAccount
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction
from solders.transaction_metadata import TransactionMetadata

from indexer.core.account import Account
from indexer.core.mint import Extension, MintTerms, parse_mint
from indexer.core.types import SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from indexer.errors import InvalidInput
from tests import vectors


MINT: Final = Keypair.from_seed(bytes([1] * 32)).pubkey()
AUTHORITY: Final = Keypair.from_seed(bytes([2] * 32)).pubkey()
KEY: Final = bytes(AUTHORITY)

#: Extension -> size of its value, and the instruction that initialises it. None of the
#: instructions can be sent twice or to a mint of another size: the program checks both.
MADE: Final[dict[Extension, tuple[int, bytes]]] = {
    Extension.TRANSFER_FEE: (108, b"\x1a\0\1" + KEY + b"\1" + KEY + struct.pack("<HQ", 150, 10**9)),
    Extension.MINT_CLOSE_AUTHORITY: (32, b"\x19\1" + KEY),
    Extension.CONFIDENTIAL_TRANSFER: (65, b"\x1b\0" + KEY + b"\1" + bytes(32)),
    Extension.DEFAULT_ACCOUNT_STATE: (1, b"\x1c\0\2"),
    Extension.NON_TRANSFERABLE: (0, b"\x20"),
    Extension.INTEREST_BEARING: (52, b"\x21\0" + KEY + struct.pack("<h", 500)),
    Extension.PERMANENT_DELEGATE: (32, b"\x23" + KEY),
    Extension.TRANSFER_HOOK: (64, b"\x24\0" + KEY + bytes(MINT)),
    Extension.METADATA_POINTER: (64, b"\x27\0" + KEY + bytes(MINT)),
    Extension.GROUP_POINTER: (64, b"\x28\0" + KEY + bytes(MINT)),
    Extension.GROUP_MEMBER_POINTER: (64, b"\x29\0" + KEY + bytes(MINT)),
    Extension.SCALED_UI_AMOUNT: (56, b"\x2b\0" + KEY + struct.pack("<d", 2.0)),
    Extension.PAUSABLE: (33, b"\x2c\0" + KEY),
}


def instruction(program: str, data: bytes, *others: AccountMeta) -> Instruction:
    accounts = [AccountMeta(MINT, is_signer=False, is_writable=True), *others]
    return Instruction(Pubkey.from_string(program), data, accounts)


class Runtime:
    """A Solana runtime with one account, the mint to be, owned by a token program."""

    def __init__(self, program: str, size: int) -> None:
        self._svm = LiteSVM()
        self._payer = Keypair()
        self._svm.airdrop(self._payer.pubkey(), 10**9)
        owner = Pubkey.from_string(program)
        self._svm.set_account(MINT, RuntimeAccount(10**9, bytes(size), owner))

    def run(self, *instructions: Instruction) -> None:
        message = Message.new_with_blockhash(
            list(instructions), self._payer.pubkey(), self._svm.latest_blockhash()
        )
        result = self._svm.send_transaction(
            Transaction([self._payer], message, message.recent_blockhash)
        )
        assert isinstance(result, TransactionMetadata), result

    def mint(self) -> Account:
        found = self._svm.get_account(MINT)
        assert found is not None
        return Account(
            owner=str(found.owner),
            lamports=found.lamports,
            executable=found.executable,
            data=found.data,
        )


def initialise_mint(program: str, decimals: int) -> Instruction:
    return instruction(program, b"\x14" + bytes([decimals]) + KEY + b"\1" + KEY)


def made(extensions: Sequence[Extension], decimals: int = 6) -> Account:
    """A Token-2022 mint with extensions, as the program itself writes it."""
    size = 166 + sum(4 + MADE[extension][0] for extension in extensions) if extensions else 82
    runtime = Runtime(TOKEN_2022_PROGRAM, size)
    runtime.run(
        *(instruction(TOKEN_2022_PROGRAM, MADE[extension][1]) for extension in extensions),
        initialise_mint(TOKEN_2022_PROGRAM, decimals),
    )
    return runtime.mint()


def account(data: bytes, owner: str = TOKEN_2022_PROGRAM, *, executable: bool = False) -> Account:
    return Account(owner=owner, lamports=1_461_600, executable=executable, data=data)


def base(initialised: int = 1, mint_tag: int = 1, freeze_tag: int = 0) -> bytes:
    return (
        struct.pack("<I", mint_tag)
        + KEY
        + struct.pack("<QBB", 10**12, 6, initialised)
        + struct.pack("<I", freeze_tag)
        + bytes(32)
    )


def extended(*extensions: tuple[int, bytes], tail: bytes = b"") -> Account:
    entries = b"".join(
        struct.pack("<HH", number, len(value)) + value for number, value in extensions
    )
    return account(base() + bytes(83) + b"\1" + entries + tail)


def parse(found: Account | None) -> MintTerms:
    return parse_mint(str(MINT), found)


def refusal(found: Account | None) -> str:
    with pytest.raises(InvalidInput) as refused:
        parse(found)
    assert refused.value.field == "token"
    assert refused.value.message.startswith(f"{MINT} ")
    return refused.value.message


@pytest.mark.parametrize("program", [TOKEN_PROGRAM, TOKEN_2022_PROGRAM])
@pytest.mark.parametrize("decimals", [0, 6, 9, 255])
def test_a_plain_mint_of_either_program_says_its_decimals(program: str, decimals: int) -> None:
    runtime = Runtime(program, 82)
    runtime.run(initialise_mint(program, decimals))

    assert parse(runtime.mint()) == MintTerms(decimals=decimals, token_program=program, warnings=())


@pytest.mark.parametrize(
    ("extension", "warning"),
    [
        (Extension.TRANSFER_FEE, "up to 1.5 %"),
        (Extension.CONFIDENTIAL_TRANSFER, "confidentially"),
        (Extension.DEFAULT_ACCOUNT_STATE, "frozen"),
        (Extension.PERMANENT_DELEGATE, str(AUTHORITY)),
        (Extension.TRANSFER_HOOK, str(MINT)),
        (Extension.PAUSABLE, "can pause"),
    ],
)
def test_an_extension_that_touches_payments_is_told(extension: Extension, warning: str) -> None:
    terms = parse(made([extension]))

    assert terms.decimals == 6
    (told,) = terms.warnings
    assert warning in told


@pytest.mark.parametrize(
    "extension",
    [
        Extension.MINT_CLOSE_AUTHORITY,
        Extension.METADATA_POINTER,
        Extension.GROUP_POINTER,
        Extension.GROUP_MEMBER_POINTER,
    ],
)
def test_an_extension_that_does_not_concern_payments_is_not_told(extension: Extension) -> None:
    assert parse(made([extension])).warnings == ()


@pytest.mark.parametrize(
    ("extension", "why"),
    [
        (Extension.NON_TRANSFERABLE, "not transferable"),
        (Extension.INTEREST_BEARING, "interest"),
        (Extension.SCALED_UI_AMOUNT, "scales"),
    ],
)
def test_a_mint_whose_units_are_not_what_they_seem_is_refused(
    extension: Extension, why: str
) -> None:
    assert why in refusal(made([Extension.METADATA_POINTER, extension]))


def test_every_extension_is_found_wherever_it_stands() -> None:
    extensions = [
        Extension.METADATA_POINTER,
        Extension.PAUSABLE,
        Extension.MINT_CLOSE_AUTHORITY,
        Extension.PERMANENT_DELEGATE,
        Extension.TRANSFER_FEE,
    ]

    terms = parse(made(extensions, decimals=2))

    assert terms.decimals == 2
    assert [
        word in told for word, told in zip(("pause", "back", "fee"), terms.warnings, strict=True)
    ]


def test_a_mint_that_the_program_has_not_initialised_is_refused() -> None:
    assert "not initialised" in refusal(Runtime(TOKEN_PROGRAM, 82).mint())


def test_a_token_account_is_refused_by_name_and_its_mint_is_told() -> None:
    data = bytes(AUTHORITY) + KEY + bytes(101)

    for found in (
        account(data, TOKEN_PROGRAM),
        account(data),
        account(data + b"\2" + struct.pack("<HH", 7, 0)),
    ):
        message = refusal(found)
        assert "is a token account, not a mint" in message
        assert str(AUTHORITY) in message


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "does not exist"),
        (account(b"", SYSTEM_PROGRAM), "no token program"),
        (account(base(), SYSTEM_PROGRAM), "no token program"),
        (account(base(), str(AUTHORITY)), str(AUTHORITY)),
        (account(base(), TOKEN_PROGRAM, executable=True), "no token program"),
        (account(bytes(355), TOKEN_PROGRAM), "multisig"),
        (account(b"", TOKEN_PROGRAM), "unreadable"),
        (account(base() + b"\0", TOKEN_PROGRAM), "unreadable"),
        (account(base() + bytes(84)), "unreadable"),
        (account(base() + bytes(83) + b"\1", TOKEN_PROGRAM), "unreadable"),
        (account(base(initialised=0)), "not initialised"),
        (account(base(initialised=2)), "cannot be read"),
        (account(base(mint_tag=2)), "cannot be read"),
        (account(base(freeze_tag=2)), "cannot be read"),
        (account(base() + b"\1" + bytes(82) + b"\1"), "padding"),
        (extended(tail=b"\1\0"), "cut off"),
        (extended(tail=b"\1\0\x6c"), "cut off"),
        (extended((18, bytes(64)), tail=b"\x0c\0\x20\0" + bytes(31)), "cut off"),
        (extended((1, bytes(107))), "too short"),
        (extended((12, bytes(31))), "too short"),
        (extended((14, bytes(63))), "too short"),
        (extended((6, b"")), "too short"),
        (extended((26, bytes(32))), "too short"),
    ],
)
def test_what_is_no_usable_mint_is_refused(found: Account | None, why: str) -> None:
    assert why in refusal(found)


@pytest.mark.parametrize(
    ("extension", "warnings"),
    [
        ((Extension.PERMANENT_DELEGATE, bytes(32)), ()),
        ((Extension.TRANSFER_HOOK, KEY + bytes(32)), ()),
        ((Extension.DEFAULT_ACCOUNT_STATE, b"\1"), ()),
        (
            (Extension.PAUSABLE, KEY + b"\1"),
            ("the token is paused: it cannot be transferred at present",),
        ),
        (
            (Extension.TRANSFER_FEE, bytes(108)),
            ("the token may take a fee from each transfer (none now): net amounts are credited",),
        ),
    ],
)
def test_an_extension_counts_by_what_it_is_set_to(
    extension: tuple[int, bytes], warnings: tuple[str, ...]
) -> None:
    assert parse(extended(extension)).warnings == warnings


@pytest.mark.parametrize("offset", [88, 106], ids=["older", "newer"])
def test_the_higher_of_two_fee_schedules_is_told(offset: int) -> None:
    value = bytearray(108)
    struct.pack_into("<H", value, offset, 10_000)

    (told,) = parse(extended((Extension.TRANSFER_FEE, bytes(value)))).warnings
    assert "up to 100 %" in told


@pytest.mark.parametrize("number", [3, 16, 18, 19, 20, 21, 22, 23, 24, 28])
def test_an_extension_that_is_known_to_be_harmless_is_not_told(number: int) -> None:
    assert parse(extended((number, bytes(200)))).warnings == ()


@pytest.mark.parametrize("number", [2, 5, 7, 17, 27, 29, 999, 65_535])
def test_an_extension_that_is_unknown_or_of_another_account_is_told_by_number(number: int) -> None:
    (told,) = parse(extended((number, bytes(5)))).warnings

    assert f"extension {number}," in told


def test_nothing_is_read_after_the_end_of_the_extensions() -> None:
    assert parse(extended(tail=bytes(2) + b"\x09\0")).warnings == ()
    assert parse(extended(tail=b"\x09")).warnings == ()


@given(
    st.binary(max_size=600)
    | st.sampled_from([82, 165, 355]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.sampled_from([TOKEN_PROGRAM, TOKEN_2022_PROGRAM]),
)
def test_any_bytes_are_either_a_mint_or_refused(data: bytes, program: str) -> None:
    with suppress(InvalidInput):
        assert parse(account(data, program)).decimals == data[44]


@given(st.binary(max_size=300))
def test_any_extensions_are_either_read_or_refused(entries: bytes) -> None:
    with suppress(InvalidInput):
        assert parse(extended(tail=entries)).decimals == 6


def test_the_mint_of_usdc_is_taken_without_a_warning() -> None:
    info = vectors.load("verify/09_mint_account_usdc_mainnet.json")["result"]["value"]

    terms = parse(account(_base_of(info), info["owner"]))

    assert terms == MintTerms(decimals=6, token_program=TOKEN_PROGRAM, warnings=())


def test_the_mint_of_pyusd_is_taken_and_its_powers_are_told() -> None:
    info = vectors.load("verify/08_mint_account_pyusd_token2022_extensions_mainnet.json")["result"][
        "value"
    ]
    states = {
        entry["extension"]: entry["state"] for entry in info["data"]["parsed"]["info"]["extensions"]
    }
    found = account(
        _base_of(info)
        + bytes(83)
        + b"\1"
        + b"".join(_entry(name, state) for name, state in states.items()),
        info["owner"],
    )
    assert len(found.data) == info["space"]

    terms = parse(found)

    assert (terms.decimals, terms.token_program) == (6, TOKEN_2022_PROGRAM)
    delegate, fee, confidential = terms.warnings
    assert states["permanentDelegate"]["delegate"] in delegate
    assert "none now" in fee
    assert "confidentially" in confidential


def _key_of(text: str | None) -> bytes:
    return bytes(32) if text is None else bytes(Pubkey.from_string(text))


def _base_of(info: Any) -> bytes:
    """The bytes behind a `jsonParsed` mint."""
    mint = info["data"]["parsed"]["info"]
    return (
        b"\1\0\0\0"
        + _key_of(mint["mintAuthority"])
        + struct.pack("<QBB", int(mint["supply"]), mint["decimals"], mint["isInitialized"])
        + b"\1\0\0\0"
        + _key_of(mint["freezeAuthority"])
    )


def _entry(name: str, state: Any) -> bytes:
    """The bytes behind one extension of a `jsonParsed` mint."""
    match name:
        case "mintCloseAuthority":
            number, value = 3, _key_of(state["closeAuthority"])
        case "permanentDelegate":
            number, value = 12, _key_of(state["delegate"])
        case "transferFeeConfig":
            schedules = [state["olderTransferFee"], state["newerTransferFee"]]
            number, value = (
                1,
                (
                    _key_of(state["transferFeeConfigAuthority"])
                    + _key_of(state["withdrawWithheldAuthority"])
                    + struct.pack("<Q", state["withheldAmount"])
                    + b"".join(
                        struct.pack(
                            "<QQH", s["epoch"], s["maximumFee"], s["transferFeeBasisPoints"]
                        )
                        for s in schedules
                    )
                ),
            )
        case "confidentialTransferMint":
            number, value = 4, _key_of(state["authority"]) + bytes(33)
        case "confidentialTransferFeeConfig":
            number, value = 16, _key_of(state["authority"]) + bytes(97)
        case "transferHook":
            number, value = 14, _key_of(state["authority"]) + _key_of(state["programId"])
        case "metadataPointer":
            number, value = 18, _key_of(state["authority"]) + _key_of(state["metadataAddress"])
        case "tokenMetadata":
            texts = [state["name"].encode(), state["symbol"].encode(), state["uri"].encode()]
            number, value = (
                19,
                (
                    _key_of(state["updateAuthority"])
                    + _key_of(state["mint"])
                    + b"".join(struct.pack("<I", len(text)) + text for text in texts)
                    + bytes(4)
                ),
            )
        case _:
            raise AssertionError(name)
    return struct.pack("<HH", number, len(value)) + value
