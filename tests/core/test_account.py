import pytest
from hypothesis import given, strategies as st
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from indexer.core.account import (
    KNOWN_ADDRESSES,
    LOADERS,
    Account,
    Kind,
    associated_token_account,
    is_key,
    kind,
    token_account_parts,
)
from indexer.core.types import SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from tests import vectors


USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
WALLET = "mvines9iiHiQTysrwkJjGf2gb9Ex9jXJX8ns3qwf2kN"


def account(owner: str, data: bytes = b"", *, executable: bool = False) -> Account:
    return Account(owner=owner, lamports=1_000_000, executable=executable, data=data)


@given(st.binary(min_size=32, max_size=32))
def test_every_32_bytes_are_a_key_on_the_curve_or_not(key: bytes) -> None:
    assert is_key(str(Pubkey(key)))


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", USDC[:31], USDC + "1", USDC[:-1] + "0", USDC + "\n", " " + USDC, USDC + " "),
        *("mvines9iiHiQTysrwkJjGf2gb9Ex9jXJX8ns3qwf2kN\n", "1" * 31, "1" * 33, "z" * 44),
        *("0xffff", "é" * 32, "\ud800" * 32, USDC.replace("E", "O")),
        pytest.param("1" * 1_000_000, id="endless"),
        *("So11111111111111111111111111111111111111112\0", "null", USDC.replace("1", "l")),
    ],
)
def test_anything_else_is_no_key(text: str) -> None:
    assert not is_key(text)


def test_every_known_address_is_a_key() -> None:
    assert {address for address in KNOWN_ADDRESSES if not is_key(address)} == set()


@pytest.mark.parametrize(
    ("found", "is_a"),
    [
        (account(SYSTEM_PROGRAM), Kind.WALLET),
        (account(SYSTEM_PROGRAM, bytes(80)), Kind.WALLET),  # a nonce account
        (account(TOKEN_PROGRAM, bytes(82)), Kind.MINT),
        (account(TOKEN_PROGRAM, bytes(165)), Kind.TOKEN_ACCOUNT),
        (account(TOKEN_PROGRAM, bytes(355)), Kind.TOKEN_MULTISIG),
        (account(TOKEN_PROGRAM, bytes(165) + b"\1"), Kind.TOKEN_UNREADABLE),
        (account(TOKEN_PROGRAM), Kind.TOKEN_UNREADABLE),
        (account(TOKEN_2022_PROGRAM, bytes(82)), Kind.MINT),
        (account(TOKEN_2022_PROGRAM, bytes(165)), Kind.TOKEN_ACCOUNT),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\1" + bytes(36)), Kind.MINT),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\2" + bytes(36)), Kind.TOKEN_ACCOUNT),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\0" + bytes(36)), Kind.TOKEN_UNREADABLE),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\3" + bytes(36)), Kind.TOKEN_UNREADABLE),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\1" + bytes(189)), Kind.TOKEN_MULTISIG),
        (account(TOKEN_2022_PROGRAM, bytes(100)), Kind.TOKEN_UNREADABLE),
        (account(SYSTEM_PROGRAM, executable=True), Kind.PROGRAM),
        *((account(loader, bytes(36)), Kind.PROGRAM) for loader in sorted(LOADERS)),
        (account("Sysvar1111111111111111111111111111111111111"), Kind.SYSVAR),
        (account("Stake11111111111111111111111111111111111111", bytes(200)), Kind.DATA),
        (account(WALLET, bytes(165)), Kind.DATA),
    ],
)
def test_an_account_is_told_by_its_owner_and_its_size(found: Account, is_a: Kind) -> None:
    assert kind(found) is is_a


def test_a_token_account_names_its_mint_and_its_wallet() -> None:
    data = bytes(Pubkey.from_string(USDC)) + bytes(Pubkey.from_string(WALLET)) + bytes(101)

    assert token_account_parts(account(TOKEN_PROGRAM, data)) == (USDC, WALLET)


def test_the_associated_token_account_is_where_a_real_payment_went() -> None:
    name = "verify/29_usdc_transferChecked_REFERENCE_helius_raw_webhook_devnet.json"
    found = vectors.load(name)
    element = found[0] if isinstance(found, list) else found
    meta = element["meta"]
    keys = element["transaction"]["message"]["accountKeys"]
    rows = [row for row in meta["postTokenBalances"] if row["programId"] == TOKEN_PROGRAM]

    assert rows
    for row in rows:
        expected = keys[row["accountIndex"]]
        assert associated_token_account(row["owner"], row["mint"], TOKEN_PROGRAM) == expected


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_associated_token_account_is_the_one_that_solders_derives(
    owner: bytes, mint: bytes
) -> None:
    derived = get_associated_token_address(Pubkey(owner), Pubkey(mint))

    assert associated_token_account(str(Pubkey(owner)), str(Pubkey(mint)), TOKEN_PROGRAM) == str(
        derived
    )


def test_the_token_program_is_part_of_the_derivation() -> None:
    classic = associated_token_account(WALLET, USDC, TOKEN_PROGRAM)

    assert associated_token_account(WALLET, USDC, TOKEN_2022_PROGRAM) != classic
