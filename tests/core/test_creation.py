import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from solders.pubkey import Pubkey

from indexer.core import solana_pay
from indexer.core.account import (
    KNOWN_ADDRESSES,
    LOADERS,
    Account,
    associated_token_account,
    is_key,
)
from indexer.core.creation import (
    EXPIRES_IN_S_MAX,
    NewPayment,
    Policy,
    create,
    keys_to_read,
    reference,
    solana_pay_url,
)
from indexer.core.payment import Asset, Payment, State
from indexer.core.texts import (
    LABEL_CHARS_MAX,
    MEMO_BYTES_MAX,
    MESSAGE_CHARS_MAX,
    ORDER_ID_CHARS_MAX,
)
from indexer.core.types import (
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)
from indexer.errors import InvalidInput, InvariantError


RECIPIENT = "mvines9iiHiQTysrwkJjGf2gb9Ex9jXJX8ns3qwf2kN"
OTHER = "FnHyam9w4NZoWR6mKN1CuGBritdsEWZQa4Z4oawLZGxa"
REFERENCE = "9aE476sH92Vz7DMPyq5WLPkrKWivxeuTKEFKd2sZZcde"
OWN_REFERENCE = "82ZJ7nbGpixjeDCmEhUcmwXYfvurzAgGdtSMuHnUgyny"
WATCH_KEY = "2jDmYQMRCBnXUQeFRvQABcU6hLcvjVTdG7AoHravxWJX"
USDC = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
PYUSD = "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo"
ID = "pay_" + "0" * 26
NOW = 1_795_000_000
RENT = 890_880
ENDLESS = pytest.param("1" * 1_000_000, id="endless")

POLICY = Policy(
    recipient=RECIPIENT,
    tokens={"SOL": None, "USDC": USDC, "PYUSD": PYUSD},
    expires_in_s=900,
    grace_s=86_400,
    watch_key=WATCH_KEY,
)


def account(
    owner: str = SYSTEM_PROGRAM,
    data: bytes = b"",
    *,
    lamports: int = 10**9,
    executable: bool = False,
) -> Account:
    return Account(owner=owner, lamports=lamports, executable=executable, data=data)


def mint(owner: str = TOKEN_PROGRAM, decimals: int = 6, extensions: bytes = b"") -> Account:
    data = bytes(44) + bytes([decimals, 1]) + bytes(36)
    return account(owner, data + bytes(83) + b"\1" + extensions if extensions else data)


CHAIN: Mapping[str, Account | None] = {
    RECIPIENT: account(),
    OTHER: account(),
    USDC: mint(),
    PYUSD: mint(TOKEN_2022_PROGRAM, 6, struct.pack("<HH", 1, 108) + bytes(108)),
    OWN_REFERENCE: None,
}


def ask(**fields: Any) -> NewPayment:
    return NewPayment(**{"amount": "1.5", "token": "USDC", **fields})


def made(
    request: NewPayment,
    policy: Policy = POLICY,
    chain: Mapping[str, Account | None] = CHAIN,
    *,
    fresh_reference: str = REFERENCE,
) -> tuple[Payment, tuple[str, ...]]:
    """The payment, given no more of the chain than was asked for."""
    accounts = {key: chain[key] for key in keys_to_read(request, policy)}
    return create(
        request,
        policy,
        accounts,
        rent_exempt_minimum=RENT,
        id=ID,
        fresh_reference=fresh_reference,
        now=NOW,
    )


def refusal(
    field: str,
    request: NewPayment,
    chain: Mapping[str, Account | None] = CHAIN,
    policy: Policy = POLICY,
) -> str:
    with pytest.raises(InvalidInput) as refused:
        made(request, policy, {**CHAIN, **chain})
    assert refused.value.field == field
    assert len(refused.value.message) < 1_000
    refused.value.message.encode()  # can be sent
    return refused.value.message


def test_a_token_payment_has_every_term() -> None:
    payment, warnings = made(
        ask(label="Shop", message="Thanks", memo="order 7", order_id="7", metadata={"cart": "a"})
    )

    terms = payment.terms
    assert terms.id == ID
    assert terms.asset == Asset(symbol="USDC", mint=USDC, decimals=6, token_program=TOKEN_PROGRAM)
    assert terms.amount == 1_500_000
    assert terms.recipient == RECIPIENT
    assert terms.token_account == associated_token_account(RECIPIENT, USDC, TOKEN_PROGRAM)
    assert (terms.reference, terms.watch_key) == (REFERENCE, WATCH_KEY)
    assert (terms.created_at, terms.expires_at, terms.grace_s) == (NOW, NOW + 900, 86_400)
    assert (payment.state, payment.version) == (State(), 1)
    assert (payment.label, payment.message, payment.memo) == ("Shop", "Thanks", "order 7")
    assert (payment.order_id, payment.metadata) == ("7", {"cart": "a"})
    assert warnings == ()


def test_a_sol_payment_has_no_mint_and_no_token_account() -> None:
    payment, warnings = made(ask(token="SOL", amount="0.000000001"))

    assert payment.terms.asset == Asset(symbol="SOL", mint=None, decimals=9, token_program=None)
    assert (payment.terms.amount, payment.terms.token_account) == (1, None)
    assert warnings == ()


def test_the_mint_is_as_good_as_the_symbol() -> None:
    assert made(ask(token=USDC)) == made(ask(token="USDC"))


def test_the_token_account_is_derived_with_the_program_of_the_mint() -> None:
    payment, (warning,) = made(ask(token="PYUSD"))

    expected = associated_token_account(RECIPIENT, PYUSD, TOKEN_2022_PROGRAM)
    assert payment.terms.token_account == expected
    assert "fee" in warning


def test_a_request_may_name_its_recipient_and_its_time() -> None:
    payment, _ = made(ask(recipient=OTHER, expires_in_s=60))

    assert (payment.terms.recipient, payment.terms.expires_at) == (OTHER, NOW + 60)


def test_the_payment_keeps_no_hold_on_what_the_caller_may_change() -> None:
    metadata = {"cart": "a"}
    payment, _ = made(ask(metadata=metadata))
    metadata["cart"] = "b"

    assert payment.metadata == {"cart": "a"}


def test_the_url_has_the_reference_and_then_the_watch_key() -> None:
    payment, _ = made(ask(label="Café", memo="order 7"))
    url = solana_pay_url(payment)

    assert url == (
        f"solana:{RECIPIENT}?amount=1.5&spl-token={USDC}&reference={REFERENCE}"
        f"&reference={WATCH_KEY}&label=Caf%C3%A9&memo=order%207"
    )
    assert solana_pay.parse(url).references == (REFERENCE, WATCH_KEY)


def test_a_payment_with_a_reference_of_its_own_cannot_rely_on_the_watch_key() -> None:
    payment, warnings = made(ask(reference=OWN_REFERENCE))

    assert (payment.terms.reference, payment.terms.watch_key) == (OWN_REFERENCE, None)
    assert WATCH_KEY not in solana_pay_url(payment)
    assert warnings == ()


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        (ask(), (USDC, RECIPIENT)),
        (ask(token="SOL"), (RECIPIENT,)),
        (ask(token="SOL", recipient=OTHER), (OTHER,)),
        (ask(reference=OWN_REFERENCE), (USDC, RECIPIENT, OWN_REFERENCE)),
    ],
)
def test_only_what_is_needed_is_looked_up(request_: NewPayment, keys: tuple[str, ...]) -> None:
    assert keys_to_read(request_, POLICY) == keys


def test_an_account_that_was_not_looked_up_is_a_bug_and_not_an_absent_account() -> None:
    with pytest.raises(InvariantError, match=USDC):
        create(
            ask(),
            POLICY,
            {RECIPIENT: None},
            rent_exempt_minimum=RENT,
            id=ID,
            fresh_reference=REFERENCE,
            now=NOW,
        )


# --- amount


@pytest.mark.parametrize(
    "amount", ["0", "1e6", "-1", "1.5000000", "18446744073709.551616", "٣", ""]
)
def test_an_amount_that_cannot_be_is_refused(amount: str) -> None:
    refusal("amount", ask(amount=amount))


def test_an_amount_too_small_for_a_new_account_is_refused_with_the_numbers() -> None:
    message = refusal("amount", ask(token="SOL", amount="0.000890879"), {RECIPIENT: None})

    for part in ("0.000890879", "0.00089088", "890880", RECIPIENT):
        assert part in message


def test_an_account_without_lamports_is_a_new_account() -> None:
    refusal("amount", ask(token="SOL", amount="0.0001"), {RECIPIENT: account(lamports=0)})


@pytest.mark.parametrize(
    ("request_", "recipient", "warned"),
    [
        (ask(token="SOL", amount="0.00089088"), None, True),
        (ask(token="SOL", amount="0.000000001"), account(lamports=1), False),
        (ask(token="USDC", amount="0.000001"), None, False),
    ],
    ids=["just enough", "existing account", "tokens"],
)
def test_other_small_amounts_are_fine(
    request_: NewPayment, recipient: Account | None, *, warned: bool
) -> None:
    _, warnings = made(request_, chain={**CHAIN, RECIPIENT: recipient})

    assert [("no account yet" in warning) for warning in warnings] == [True] * warned


# --- token


@pytest.mark.parametrize(
    "token", ["", "usdc", "USDC ", "sol", "EUR", OTHER, "None", "\ud800", ENDLESS]
)
def test_a_token_that_is_not_allowed_is_refused_with_those_that_are(token: str) -> None:
    message = refusal("token", ask(token=token))

    for part in ("SOL", "USDC", USDC):
        assert part in message


@pytest.mark.parametrize(
    "found",
    [
        None,
        account(),
        account(TOKEN_PROGRAM, bytes(165)),
        account(TOKEN_PROGRAM, bytes(82)),
        mint(TOKEN_2022_PROGRAM, 6, struct.pack("<HH", 9, 0)),
    ],
)
def test_an_allowed_token_that_is_no_usable_mint_is_refused(found: Account | None) -> None:
    refusal("token", ask(), {USDC: found})


# --- recipient


@pytest.mark.parametrize("recipient", sorted(KNOWN_ADDRESSES))
def test_an_address_of_everybody_is_no_recipient(recipient: str) -> None:
    assert "lost" in refusal("recipient", ask(recipient=recipient), {recipient: None})


@pytest.mark.parametrize(
    "recipient",
    [
        *("", "x", RECIPIENT[:31], RECIPIENT + "\n", " " + RECIPIENT, RECIPIENT + "1", "\ud800"),
        *("0x" + "0" * 40, ENDLESS, USDC, PYUSD, WATCH_KEY),
    ],
)
def test_what_is_no_wallet_by_its_text_is_refused_before_the_chain_is_asked(
    recipient: str,
) -> None:
    with pytest.raises(InvalidInput) as refused:
        keys_to_read(ask(recipient=recipient), POLICY)
    assert refused.value.field == "recipient"
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (account(TOKEN_PROGRAM, bytes(32) + bytes([7] * 32) + bytes(101)), str(Pubkey([7] * 32))),
        (account(TOKEN_2022_PROGRAM, bytes(165) + b"\2" + bytes(4)), "token account"),
        (mint(), "mint"),
        (mint(TOKEN_2022_PROGRAM, 6, struct.pack("<HH", 3, 32) + bytes(32)), "mint"),
        (account(TOKEN_PROGRAM, bytes(355)), "multisig"),
        (account(TOKEN_PROGRAM), "unreadable"),
        (account(executable=True), "program"),
        *((account(loader, bytes(36)), "program") for loader in sorted(LOADERS)),
        (account("Sysvar1111111111111111111111111111111111111", bytes(40)), "sysvar"),
    ],
)
@pytest.mark.parametrize("token", ["SOL", "USDC"])
def test_what_is_no_wallet_on_the_chain_is_refused(token: str, found: Account, why: str) -> None:
    assert why in refusal("recipient", ask(token=token), {RECIPIENT: found})


def test_a_vault_that_is_off_the_curve_is_a_recipient() -> None:
    vault, _bump = Pubkey.find_program_address([b"vault"], Pubkey.from_string(OTHER))
    key = str(vault)

    payment, warnings = made(ask(recipient=key), chain={**CHAIN, key: account()})

    assert not vault.is_on_curve()
    assert payment.terms.recipient == key
    assert warnings == ()


def test_an_account_of_another_program_is_taken_with_a_warning() -> None:
    found = account(OTHER, bytes(200))

    _, (warning,) = made(ask(), chain={**CHAIN, RECIPIENT: found})

    assert OTHER in warning


def test_without_any_recipient_there_is_no_payment() -> None:
    policy = replace(POLICY, recipient=None)

    assert "required" in refusal("recipient", ask(), policy=policy)
    assert made(ask(recipient=OTHER), policy)[0].terms.recipient == OTHER


def test_the_deployments_own_recipient_is_examined_as_any_other() -> None:
    refusal("recipient", ask(), policy=replace(POLICY, recipient="nonsense"))
    refusal("recipient", ask(), policy=replace(POLICY, recipient=SYSTEM_PROGRAM))


# --- reference


@pytest.mark.parametrize(
    "key",
    [
        *("", "x", OWN_REFERENCE + "\n", OWN_REFERENCE[:31], ENDLESS, "\ud800"),
        *(RECIPIENT, USDC, PYUSD, WATCH_KEY, SYSTEM_PROGRAM, TOKEN_PROGRAM),
    ],
)
def test_a_reference_that_is_no_key_of_its_own_is_refused_before_the_chain_is_asked(
    key: str,
) -> None:
    with pytest.raises(InvalidInput) as refused:
        keys_to_read(ask(reference=key), POLICY)
    assert refused.value.field == "reference"


def test_the_recipients_token_account_is_no_reference() -> None:
    key = associated_token_account(RECIPIENT, USDC, TOKEN_PROGRAM)

    assert "token account" in refusal("reference", ask(reference=key), {key: None})


@pytest.mark.parametrize(
    "found",
    [
        account(executable=True),
        account("BPFLoaderUpgradeab1e11111111111111111111111", bytes(36)),
        account(TOKEN_PROGRAM, bytes(165)),
        account(TOKEN_2022_PROGRAM, bytes(165) + b"\2" + bytes(4)),
        account(TOKEN_PROGRAM, bytes(355)),
        mint(),
    ],
)
def test_a_reference_that_is_a_busy_account_is_refused(found: Account) -> None:
    refusal("reference", ask(reference=OWN_REFERENCE), {OWN_REFERENCE: found})


def test_a_reference_that_is_a_wallet_is_taken_with_a_warning() -> None:
    _, (warning,) = made(ask(reference=OWN_REFERENCE), chain={**CHAIN, OWN_REFERENCE: account()})

    assert "reference" in warning


@pytest.mark.parametrize(
    "key", [RECIPIENT, USDC, WATCH_KEY, associated_token_account(RECIPIENT, USDC, TOKEN_PROGRAM)]
)
def test_randomness_that_repeats_a_key_is_a_bug(key: str) -> None:
    with pytest.raises(InvariantError):
        made(ask(), fresh_reference=key)


@pytest.mark.parametrize("field", ["recipient", "reference"])
def test_no_watch_key_of_the_deployment_is_anything_else(field: str) -> None:
    policy = replace(POLICY, watch_keys=frozenset({OWN_REFERENCE, str(Pubkey([8] * 32))}))

    for key in policy.watch_keys:
        with pytest.raises(InvalidInput, match="watch key") as refused:
            keys_to_read(ask(**{field: key}), policy)
        assert refused.value.field == field


# --- time


@pytest.mark.parametrize("expires_in_s", [0, -1, EXPIRES_IN_S_MAX + 1, 2**63, -(2**63)])
def test_a_time_out_of_bounds_is_refused(expires_in_s: int) -> None:
    refusal("expires_in_s", ask(expires_in_s=expires_in_s))


@pytest.mark.parametrize("expires_in_s", [1, EXPIRES_IN_S_MAX])
def test_the_bounds_of_time_are_within_it(expires_in_s: int) -> None:
    assert made(ask(expires_in_s=expires_in_s))[0].terms.expires_at == NOW + expires_in_s


# --- texts


LINES = {
    "label": LABEL_CHARS_MAX,
    "message": MESSAGE_CHARS_MAX,
    "memo": MEMO_BYTES_MAX,
    "order_id": ORDER_ID_CHARS_MAX,
}


@pytest.mark.parametrize(("field", "chars"), LINES.items())
def test_a_line_may_be_as_long_as_its_bound_and_no_longer(field: str, chars: int) -> None:
    payment, _ = made(ask(**{field: "x" * chars}))

    assert getattr(payment, field) == "x" * chars
    refusal(field, ask(**{field: "x" * (chars + 1)}))


@pytest.mark.parametrize("field", LINES)
@pytest.mark.parametrize("text", ["", "\0", "two\nlines", "\ud800"])
def test_what_is_not_one_line_of_text_is_refused(field: str, text: str) -> None:
    refusal(field, ask(**{field: text}))


@pytest.mark.parametrize("field", LINES)
@pytest.mark.parametrize(
    "text", ["Café & co", "قهوة", "☕🏽", "a+b=c?&#%20", "<b>", '"; --', "\u200f"]
)
def test_any_script_is_welcome_and_arrives_as_it_was_sent(field: str, text: str) -> None:
    payment, _ = made(ask(**{field: text}))
    read = solana_pay.parse(solana_pay_url(payment))

    assert getattr(payment, field) == text
    assert getattr(read, field, text) == text


def test_metadata_out_of_bounds_is_refused() -> None:
    refusal("metadata", ask(metadata={"k": "\0"}))


def test_texts_that_fit_one_by_one_may_still_make_the_url_too_long() -> None:
    assert "shorten" in refusal("", ask(message="é" * 400))


# --- names


@given(st.binary(min_size=32, max_size=32))
def test_a_reference_is_the_key_of_its_bytes(random_bytes: bytes) -> None:
    assert is_key(reference(random_bytes))
    assert bytes(Pubkey.from_string(reference(random_bytes))) == random_bytes


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_reference_is_not_made_of_too_little_or_too_much(size: int) -> None:
    with pytest.raises(InvariantError):
        reference(bytes(size))
