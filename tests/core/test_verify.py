"""The rule's arithmetic. What to make of each way to pay is in `test_traps`."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from indexer.core.payment import Asset, Terms
from indexer.core.types import (
    AMOUNT_MAX,
    NATIVE_MINT,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    Reason,
)
from indexer.core.verdict import CreditedLeg, Evidence, Verdict
from indexer.core.verify import verify
from tests import vectors
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    batch,
    burn,
    call,
    checked_transfer,
    checked_transfer_with_fee,
    create_account,
    holding,
    key,
    memo,
    mint_to,
    plain_transfer,
    sol_transfer,
    system_transfer,
    system_transfer_with_seed,
    transaction,
    unwrap_lamports,
)
from tests.core.script import (
    AMOUNT,
    BUYER,
    CREATED_AT,
    ORDER,
    OTHER_ORDER,
    SHOP,
    STRANGER,
    USDC,
    decoded,
    in_sol,
    in_tokens,
    judged,
)


TAXED = key("mint with a transfer fee")
SHOP_TAXED, BUYER_TAXED = (ata(who, TAXED, TOKEN_2022_PROGRAM) for who in (SHOP, BUYER))
SHOP_USDC, BUYER_USDC = ata(SHOP, USDC), ata(BUYER, USDC)
PAY_TAXED = in_tokens(mint=TAXED, program=TOKEN_2022_PROGRAM)
PAY_TAXED_TOO = in_tokens(mint=TAXED, program=TOKEN_2022_PROGRAM, reference=OTHER_ORDER)


def taxed(*instructions: Ix, program: str | None = TOKEN_2022_PROGRAM) -> dict[str, Any]:
    landed = transaction(
        instructions,
        tokens=[holding(who, TAXED, program=TOKEN_2022_PROGRAM) for who in (SHOP, BUYER)],
    )
    for row in (*landed["meta"]["preTokenBalances"], *landed["meta"]["postTokenBalances"]):
        row["programId"] = program
    return landed


def taxed_transfer(amount: int, fee: int, *references: str, told: bool = False) -> Ix:
    """A transfer of which a part is withheld; only if `told` the instruction says how much."""
    if told:
        return checked_transfer_with_fee(
            BUYER_TAXED, TAXED, SHOP_TAXED, BUYER, amount, fee, *references
        )
    return checked_transfer(
        BUYER_TAXED,
        TAXED,
        SHOP_TAXED,
        BUYER,
        amount,
        *references,
        withheld=fee,
        program=TOKEN_2022_PROGRAM,
    )


def in_usdc(*instructions: Ix, **rest: Any) -> dict[str, Any]:
    rows = [holding(who, USDC) for who in (SHOP, BUYER, STRANGER)]
    return transaction(instructions, tokens=rest.pop("tokens", rows), **rest)


def to_shop(amount: int, *references: str) -> Ix:
    return checked_transfer(BUYER_USDC, USDC, SHOP_USDC, BUYER, amount, *references)


# ------------------------------------------------------------------------- what is written down


def test_a_verdict_names_its_transaction_and_holds_its_evidence() -> None:
    landed = in_usdc(
        memo("for order 1"),
        to_shop(1_000, ORDER),
        plain_transfer(ata(STRANGER, USDC), SHOP_USDC, STRANGER, 30),
        burn(SHOP_USDC, USDC, SHOP, 7),
        slot=42,
        index=3,
        name="paying",
    )

    (verdict,) = verify([in_tokens()], decoded(landed), block_time=1_234)

    assert verdict == Verdict(
        payment_id=in_tokens().id,
        signature=landed["transaction"]["signatures"][0],
        slot=42,
        index=3,
        block_time=1_234,
        credit=993,
        clean=False,
        reasons=(Reason.DEBITED,),
        evidence=Evidence(bound=1_000, debited=7, delta=1_023, other_inflow=30),
        legs=(
            CreditedLeg(
                outer=1,
                inner=None,
                sub=None,
                source=BUYER_USDC,
                destination=SHOP_USDC,
                amount=1_000,
                net=1_000,
            ),
        ),
    )


def test_a_leg_is_named_by_its_place() -> None:
    landed = in_usdc(
        call(key("program"), ORDER),
        inner={0: [memo(""), batch(to_shop(1, STRANGER), to_shop(2, ORDER))]},
    )

    (verdict,) = judged(landed, in_tokens())

    assert [(leg.outer, leg.inner, leg.sub, leg.amount) for leg in verdict.legs] == [(0, 1, 1, 2)]


def test_verdicts_come_in_the_order_in_which_the_transaction_names_the_payments() -> None:
    landed = decoded(in_usdc(to_shop(1, OTHER_ORDER, ORDER)))
    payments = [in_tokens(), in_tokens(reference=OTHER_ORDER), in_sol(reference=key("third"))]

    for order in itertools.permutations(payments):
        verdicts = verify(order, landed, block_time=CREATED_AT)

        assert [v.payment_id for v in verdicts] == [payments[1].id, payments[0].id]


def test_a_transaction_that_mentions_no_payment_has_no_verdict() -> None:
    assert verify([in_tokens()], decoded(in_usdc(to_shop(AMOUNT))), block_time=1) == ()


def test_a_failed_transaction_is_not_even_looked_into() -> None:
    landed = in_usdc(to_shop(AMOUNT, ORDER), err="AccountInUse")
    landed["meta"]["innerInstructions"] = None

    (verdict,) = verify([in_tokens()], decoded(landed), block_time=None)

    assert (verdict.credit, verdict.legs, verdict.evidence) == (0, (), Evidence())
    assert verdict.reasons == (Reason.FAILED_TRANSACTION,)


# --------------------------------------------------------------------------- the network fee


@pytest.mark.parametrize("fee", [0, 5_000, 10**9])
def test_the_network_fee_is_the_shops_own_business(fee: int) -> None:
    landed = sol_transfer(BUYER, SHOP, AMOUNT, references=[ORDER], fee_payer=SHOP, fee=fee)

    (verdict,) = judged(landed, in_sol())

    assert (verdict.credit, verdict.clean) == (AMOUNT, True)
    assert verdict.evidence == Evidence(bound=AMOUNT, delta=AMOUNT, fee_lamports=fee)


def test_the_network_fee_has_no_part_in_tokens() -> None:
    (verdict,) = judged(in_usdc(to_shop(AMOUNT, ORDER), fee_payer=SHOP), in_tokens())

    assert (verdict.credit, verdict.clean, verdict.evidence.fee_lamports) == (AMOUNT, True, 0)


def test_rent_that_the_recipient_pays_is_a_debit() -> None:
    """He sponsors the opening of an account in the same transaction: a person may see to it."""
    landed = transaction(
        [system_transfer(BUYER, SHOP, AMOUNT, ORDER), create_account(SHOP, key("new"), 100)]
    )

    (verdict,) = judged(landed, in_sol())

    assert (verdict.credit, verdict.reasons) == (AMOUNT - 100, (Reason.DEBITED,))


# --------------------------------------------------------------------------- the transfer fee


@pytest.mark.parametrize(
    ("transfers", "credit"),
    [
        ([(1_000, 0, False)], 1_000),
        ([(1_000, 10, False)], 990),
        ([(1_000, 10, True)], 990),
        ([(1_000, 1_000, False)], 0),
        ([(1_000, 1_000, True)], 0),
        ([(1, 1, False), (1_000, 10, False)], 990),
        ([(1_000, 10, True), (500, 5, False)], 1_485),
        ([(1_000, 10, True), (500, 5, True)], 1_485),
        ([(AMOUNT_MAX // 10**8, 1, False)], AMOUNT_MAX // 10**8 - 1),
    ],
)
def test_what_was_withheld_is_not_credited(
    transfers: list[tuple[int, int, bool]], credit: int
) -> None:
    instructions = [
        taxed_transfer(amount, fee, ORDER, told=told) for amount, fee, told in transfers
    ]

    (verdict,) = judged(taxed(*instructions), PAY_TAXED)

    assert (verdict.credit, verdict.clean, verdict.reasons) == (credit, True, ())
    assert sum(leg.net for leg in verdict.legs) == verdict.evidence.bound == credit


def test_a_fee_that_may_be_another_payments_is_taken_off_both() -> None:
    landed = taxed(taxed_transfer(1_000, 10, ORDER), taxed_transfer(2_000, 50, OTHER_ORDER))

    first, second = judged(landed, PAY_TAXED, PAY_TAXED_TOO)

    assert (first.credit, second.credit) == (940, 1_940)
    assert Reason.FEE_UNKNOWN in first.reasons
    assert Reason.FEE_UNKNOWN in second.reasons


def test_a_fee_that_an_instruction_tells_leaves_the_rest_to_the_other() -> None:
    landed = taxed(
        taxed_transfer(1_000, 10, ORDER), taxed_transfer(2_000, 50, OTHER_ORDER, told=True)
    )

    first, second = judged(landed, PAY_TAXED, PAY_TAXED_TOO)

    assert (first.credit, first.clean) == (990, True)
    assert (second.credit, second.clean) == (1_950, True)


@pytest.mark.parametrize(
    "unrelated",
    [
        mint_to(TAXED, SHOP_TAXED, key("issuer"), 10, program=TOKEN_2022_PROGRAM),
        burn(SHOP_TAXED, TAXED, SHOP, 10, program=TOKEN_2022_PROGRAM),
    ],
)
def test_a_fee_is_found_whatever_else_happens_in_the_account(unrelated: Ix) -> None:
    (verdict,) = judged(taxed(taxed_transfer(1_000, 10, ORDER), unrelated), PAY_TAXED)

    assert verdict.evidence.bound == 990
    assert verdict.credit == 990 - verdict.evidence.debited
    assert verdict.reasons == ((Reason.DEBITED,) if verdict.evidence.debited else ())


def test_a_fee_larger_than_the_amount_is_no_negative_credit() -> None:
    """No program does that; a node that lies might."""
    landed = taxed(taxed_transfer(10, 9_999, ORDER, told=True))

    (verdict,) = judged(landed, PAY_TAXED)

    assert (verdict.credit, verdict.clean) == (0, False)


@pytest.mark.parametrize("program", [TOKEN_PROGRAM, TOKEN_2022_PROGRAM, None])
def test_only_token_2022_has_fees_elsewhere_a_missing_amount_is_a_riddle(
    program: str | None,
) -> None:
    """Old rows do not name the program: then it may have been either."""
    (verdict,) = judged(taxed(taxed_transfer(1_000, 10, ORDER), program=program), PAY_TAXED)

    assert verdict.credit == 990
    assert verdict.clean == (program != TOKEN_PROGRAM)
    assert (Reason.BOOKS in verdict.reasons) == (program == TOKEN_PROGRAM)


# ------------------------------------------------------------------------- the books, and Δ


def test_an_account_that_ends_up_with_another_mint_was_not_paid() -> None:
    """A lying node's: the address is made of the mint."""
    landed = in_usdc(to_shop(AMOUNT, ORDER))
    landed["meta"]["postTokenBalances"][0]["mint"] = key("another mint")

    (verdict,) = judged(landed, in_tokens())

    assert (verdict.credit, verdict.legs) == (0, ())


def test_no_more_than_was_gained_is_credited() -> None:
    landed = in_usdc(to_shop(AMOUNT, ORDER), extra_tokens={SHOP_USDC: -400})

    (verdict,) = judged(landed, in_tokens())

    assert (verdict.credit, verdict.reasons) == (AMOUNT - 400, (Reason.BOOKS,))


def test_no_more_than_was_bound_is_credited() -> None:
    landed = in_usdc(to_shop(AMOUNT, ORDER), extra_tokens={SHOP_USDC: 400})

    (verdict,) = judged(landed, in_tokens())

    assert (verdict.credit, verdict.reasons) == (AMOUNT, (Reason.BOOKS,))


def test_lamports_may_come_back_as_rent_without_an_instruction_that_says_so() -> None:
    landed = transaction(
        [system_transfer(BUYER, SHOP, AMOUNT, ORDER)], extra_lamports={SHOP: 2_039_280}
    )

    (verdict,) = judged(landed, in_sol())

    assert (verdict.credit, verdict.clean) == (AMOUNT, True)


@pytest.mark.parametrize("lost", [AMOUNT, AMOUNT + 1, 10**9])
def test_a_loss_is_never_a_negative_credit(lost: int) -> None:
    landed = transaction(
        [system_transfer(BUYER, SHOP, AMOUNT, ORDER)], extra_lamports={SHOP: -lost}
    )

    (verdict,) = judged(landed, in_sol())

    assert (verdict.credit, verdict.clean) == (0, False)
    assert verdict.evidence.delta == AMOUNT - lost


def test_what_an_auxiliary_account_pays_out_is_a_debit_too() -> None:
    auxiliary = TokenAccount(account=key("auxiliary"), mint=USDC, owner=SHOP)
    landed = in_usdc(
        to_shop(AMOUNT, ORDER),
        plain_transfer(auxiliary.account, BUYER_USDC, SHOP, 300),
        tokens=[holding(SHOP, USDC), holding(BUYER, USDC), auxiliary],
    )

    (verdict,) = judged(landed, in_tokens())

    assert (verdict.credit, verdict.evidence.debited) == (AMOUNT - 300, 300)


def test_sums_may_pass_what_one_amount_can_hold() -> None:
    """A lying node's, since no mint has more than 2^64-1 units: it must not crash, nor wrap."""
    most = holding(BUYER, USDC, AMOUNT_MAX)
    landed = in_usdc(
        to_shop(AMOUNT_MAX, ORDER).without_effect(),
        to_shop(AMOUNT_MAX, ORDER).without_effect(),
        tokens=[most, holding(SHOP, USDC, 0)],
        extra_tokens={SHOP_USDC: AMOUNT_MAX},
    )

    (verdict,) = judged(landed, in_tokens())

    assert (verdict.credit, verdict.evidence.bound) == (AMOUNT_MAX, 2 * AMOUNT_MAX)
    assert not verdict.clean


def test_a_transfer_of_nothing_is_bound_and_pays_nothing() -> None:
    (verdict,) = judged(in_usdc(to_shop(0, ORDER)), in_tokens())

    assert (verdict.credit, verdict.clean, len(verdict.legs)) == (0, True, 1)


def test_two_assets_in_one_transaction_have_each_their_own_books() -> None:
    landed = in_usdc(
        to_shop(AMOUNT, ORDER),
        system_transfer(BUYER, SHOP, AMOUNT, OTHER_ORDER),
        system_transfer(SHOP, BUYER, 1),
    )

    tokens, lamports = judged(landed, in_tokens(), in_sol(reference=OTHER_ORDER))

    assert (tokens.credit, tokens.clean) == (AMOUNT, True)
    assert (lamports.credit, lamports.reasons) == (AMOUNT - 1, (Reason.DEBITED,))


# ------------------------------------------------------------------------------ references


@pytest.mark.parametrize(
    ("reference", "transfer"),
    [
        (BUYER, to_shop(AMOUNT)),
        (BUYER_USDC, to_shop(AMOUNT)),
        (SHOP_USDC, to_shop(AMOUNT)),
        (USDC, to_shop(AMOUNT)),
        (BUYER, plain_transfer(BUYER_USDC, SHOP_USDC, BUYER, AMOUNT)),
        (TOKEN_PROGRAM, to_shop(AMOUNT)),
    ],
)
def test_a_reference_that_is_a_key_of_every_transfer_binds_none(
    reference: str, transfer: Ix
) -> None:
    """It must be named beyond them, or every transfer of that payer or mint would be bound."""
    (verdict,) = judged(in_usdc(transfer), in_tokens(reference=reference))
    (named,) = judged(
        in_usdc(replace(transfer, accounts=(*transfer.accounts, reference))),
        in_tokens(reference=reference),
    )

    assert (verdict.credit, verdict.reasons) == (0, (Reason.NOT_BOUND,))
    assert named.credit == AMOUNT


@pytest.mark.parametrize(
    "transfer",
    [
        system_transfer(BUYER, SHOP, AMOUNT),
        system_transfer_with_seed(key("derived"), BUYER, SHOP, AMOUNT),
        unwrap_lamports(ata(BUYER, NATIVE_MINT), SHOP, BUYER, AMOUNT),
    ],
)
@pytest.mark.parametrize("reference", [BUYER, SHOP, key("derived"), ata(BUYER, NATIVE_MINT)])
def test_a_reference_that_is_a_key_of_every_transfer_of_sol_binds_none(
    transfer: Ix, reference: str
) -> None:
    landed = transaction([transfer, memo("for", reference)], tokens=[holding(BUYER, NATIVE_MINT)])

    (verdict,) = judged(landed, in_sol(reference=reference))

    assert verdict.credit == 0


def test_a_reference_that_is_named_twice_counts_once() -> None:
    (verdict,) = judged(in_usdc(to_shop(AMOUNT, ORDER, STRANGER, ORDER)), in_tokens())

    assert (verdict.credit, len(verdict.legs)) == (AMOUNT, 1)


def test_of_many_payments_on_one_transfer_only_the_first_is_paid() -> None:
    references = [key(f"order {n}") for n in range(60)]
    payments = [in_tokens(reference=reference) for reference in reversed(references)]

    verdicts = judged(in_usdc(to_shop(AMOUNT, *references)), *payments)

    assert [v.credit for v in verdicts] == [0] * 59 + [AMOUNT]
    assert {v.reasons for v in verdicts[:-1]} == {(Reason.ALREADY_ALLOCATED,)}


@pytest.mark.parametrize(
    "bystanders",
    [
        [in_tokens(reference=key("not in this transaction"))],
        [in_tokens(reference=STRANGER)],
        [in_sol(reference=OTHER_ORDER)],
        [in_tokens(reference=OTHER_ORDER, mint=key("another mint"))],
        [in_tokens(reference=OTHER_ORDER, recipient=STRANGER)],
    ],
    ids=["not mentioned", "elsewhere", "other asset", "other mint", "other recipient"],
)
def test_who_gets_a_transfer_does_not_depend_on_payments_that_it_cannot_pay(
    bystanders: list[Terms],
) -> None:
    landed = decoded(in_usdc(memo("", STRANGER), to_shop(AMOUNT, OTHER_ORDER, ORDER)))
    (alone,) = verify([in_tokens()], landed, block_time=CREATED_AT)

    for payments in ([*bystanders, in_tokens()], [in_tokens(), *bystanders]):
        assert alone in verify(payments, landed, block_time=CREATED_AT)
    assert alone.credit == AMOUNT


def test_each_transfer_of_a_batch_pays_its_own_payment() -> None:
    landed = in_usdc(batch(to_shop(300, ORDER), to_shop(500, OTHER_ORDER)))

    first, second = judged(landed, in_tokens(), in_tokens(reference=OTHER_ORDER))

    assert (first.credit, second.credit) == (300, 500)
    assert [leg.sub for leg in (*first.legs, *second.legs)] == [0, 1]


# --------------------------------------------------------------------------------- vectors


@pytest.mark.parametrize(
    ("name", "credit", "reasons"),
    [
        ("40_SYNTHETIC_v0_alt_reference_usdc", 12_500_000, ()),
        ("41_SYNTHETIC_multiple_references", 12_500_000, ()),
        ("42_SYNTHETIC_inner_cpi_reference", 12_500_000, ()),
        ("43_SYNTHETIC_two_transfers_one_tx", 25_000_000, ()),
        ("44_SYNTHETIC_plain_Transfer_mint_from_balances", 12_500_000, ()),
        ("45_SYNTHETIC_destination_owner_mismatch", 0, (Reason.WRONG_RECIPIENT,)),
        ("46_SYNTHETIC_failed_tx_with_reference", 0, (Reason.FAILED_TRANSACTION,)),
    ],
)
def test_collected_cases(name: str, credit: int, reasons: tuple[Reason, ...]) -> None:
    vector = vectors.load(f"verify/{name}.json")
    expected, landed = vector["expectation"], vector["rpcTransaction"]
    loaded = landed["meta"]["loadedAddresses"]
    count = len(landed["transaction"]["message"]["accountKeys"]) + sum(map(len, loaded.values()))
    lamports = {"preBalances": [1] * count, "postBalances": [1] * count}
    landed["meta"] |= {"fee": 0} | lamports  # the collection leaves lamports out

    (verdict,) = judged(landed, _terms(expected))

    assert (verdict.credit, verdict.reasons) == (credit, reasons)
    assert verdict.clean or not credit
    assert (credit >= int(expected["amountBaseUnits"])) == (not reasons)


def _terms(expected: dict[str, Any]) -> Terms:
    return replace(
        in_tokens(int(expected["amountBaseUnits"]), reference=expected["reference"]),
        asset=Asset(
            symbol="USDC",
            mint=expected["mint"],
            decimals=expected["decimals"],
            token_program=expected["tokenProgram"],
        ),
        recipient=expected["recipientOwner"],
        token_account=expected["destinationTokenAccount"],
    )


def test_a_real_payment_whose_wallet_passed_its_signer_along_is_credited() -> None:
    (landed,) = vectors.load(
        "verify/29_usdc_transferChecked_REFERENCE_helius_raw_webhook_devnet.json"
    )
    transfer = landed["transaction"]["message"]["instructions"][-1]
    keys = [landed["transaction"]["message"]["accountKeys"][n] for n in transfer["accounts"]]
    _, mint, destination, payer, signer, reference = keys
    (recipient,) = {
        row["owner"]
        for row in landed["meta"]["postTokenBalances"]
        if keys_of_row(landed, row) == destination
    }
    terms = in_tokens(mint=mint, reference=reference, recipient=recipient)

    (verdict,) = judged(landed, terms)

    assert terms.token_account == destination
    assert signer == payer
    assert (verdict.credit, verdict.clean) == (verdict.legs[0].amount, True)
    assert verdict.credit > 0


def keys_of_row(landed: dict[str, Any], row: dict[str, Any]) -> str:
    return str(landed["transaction"]["message"]["accountKeys"][row["accountIndex"]])
