"""The second table of traps: tokens. How to read it is told in `traps`."""

from dataclasses import replace
from typing import Any

from indexer.core.types import AMOUNT_MAX, TOKEN_2022_PROGRAM, Reason
from tests.chain import (
    Ix,
    TokenAccount,
    ata,
    batch,
    burn,
    call,
    checked_transfer,
    checked_transfer_with_fee,
    close_account,
    confidential_transfer,
    create_account,
    holding,
    key,
    memo,
    mint_to,
    plain_transfer,
    set_owner,
    sol_transfer,
    token_transfer,
    transaction,
)
from tests.core.script import AMOUNT, BUYER, ORDER, SHOP, STRANGER, USDC, in_tokens
from tests.core.traps import (
    BUYER_ATA,
    PAY_USDC,
    PROGRAM,
    SHOP_ATA,
    STRANGER_ATA,
    USDC_ROWS,
    Row,
    bound,
    clean,
    doubtful,
    in_usdc,
)


AUXILIARY = key("auxiliary account")
FEE_MINT = key("mint with a transfer fee")
VAULT = ata(key("multisig"), USDC)  # an address off the curve, as every program's address
SHOP_FEE_ATA, BUYER_FEE_ATA = (ata(who, FEE_MINT, TOKEN_2022_PROGRAM) for who in (SHOP, BUYER))

FEE_ROWS = [holding(who, FEE_MINT, program=TOKEN_2022_PROGRAM) for who in (SHOP, BUYER)]
AUXILIARY_ROW = TokenAccount(account=AUXILIARY, mint=USDC, owner=SHOP)

PAY_FEE_MINT = in_tokens(mint=FEE_MINT, program=TOKEN_2022_PROGRAM)


def with_fee_mint(*instructions: Ix) -> dict[str, Any]:
    return transaction(instructions, tokens=FEE_ROWS)


def fee_mint_transfer(amount: int, *references: str, withheld: int) -> Ix:
    return checked_transfer(
        BUYER_FEE_ATA,
        FEE_MINT,
        SHOP_FEE_ATA,
        BUYER,
        amount,
        *references,
        withheld=withheld,
        program=TOKEN_2022_PROGRAM,
    )


def token_call(data: bytes, *accounts: str, program: str = TOKEN_2022_PROGRAM) -> Ix:
    return Ix(program=program, accounts=accounts, data=data)


TOKENS: list[Row] = [
    (
        "Transfer, which does not name the mint",
        in_usdc(plain_transfer(BUYER_ATA, SHOP_ATA, BUYER, AMOUNT, ORDER)),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "TransferChecked",
        token_transfer(BUYER, SHOP, AMOUNT, mint=USDC, references=[ORDER]),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "TransferChecked of a mint with a transfer fee: what arrives counts",
        with_fee_mint(fee_mint_transfer(AMOUNT, ORDER, withheld=25)),
        PAY_FEE_MINT,
        clean(AMOUNT - 25),
    ),
    (
        "TransferCheckedWithFee: what arrives counts",
        with_fee_mint(
            checked_transfer_with_fee(
                BUYER_FEE_ATA, FEE_MINT, SHOP_FEE_ATA, BUYER, AMOUNT, 25, ORDER
            )
        ),
        PAY_FEE_MINT,
        clean(AMOUNT - 25),
    ),
    (
        "two transfers with a fee of which only one is bound: nobody can say whose fee it was",
        with_fee_mint(
            fee_mint_transfer(AMOUNT, ORDER, withheld=25),
            fee_mint_transfer(AMOUNT, withheld=25),
        ),
        PAY_FEE_MINT,
        doubtful(AMOUNT - 50, Reason.BOOKS, Reason.FEE_UNKNOWN),
    ),
    (
        "plain Transfer of a mint with a fee, a hook or a pause: it fails",
        transaction(
            [plain_transfer(BUYER_FEE_ATA, SHOP_FEE_ATA, BUYER, AMOUNT, ORDER)],
            tokens=FEE_ROWS,
            err={"InstructionError": [0, {"Custom": 31}]},
        ),
        PAY_FEE_MINT,
        clean(0, Reason.FAILED_TRANSACTION),
    ),
    (
        "a transfer hook, whose accounts follow the authority",
        token_transfer(
            BUYER,
            SHOP,
            AMOUNT,
            mint=FEE_MINT,
            program=TOKEN_2022_PROGRAM,
            references=[key("hook's account"), key("hook"), ORDER],
        ),
        PAY_FEE_MINT,
        clean(AMOUNT),
    ),
    (
        "a confidential transfer: what moved, nobody can see",
        with_fee_mint(
            replace(
                confidential_transfer(BUYER_FEE_ATA, FEE_MINT, SHOP_FEE_ATA, BUYER),
                accounts=(BUYER_FEE_ATA, FEE_MINT, SHOP_FEE_ATA, BUYER, ORDER),
            )
        ),
        PAY_FEE_MINT,
        doubtful(0, Reason.UNDECODABLE),
    ),
    (
        "the recipient withdraws from the confidential balance",
        transaction(
            [token_call(b"\x1b\x06", SHOP_FEE_ATA, FEE_MINT, SHOP), memo("for", ORDER)],
            tokens=FEE_ROWS,
            extra_tokens={SHOP_FEE_ATA: AMOUNT},
        ),
        PAY_FEE_MINT,
        doubtful(0, Reason.NOT_BOUND),
    ),
    (
        "a mint whose issuer may take back, and does not",
        token_transfer(
            BUYER, SHOP, AMOUNT, mint=FEE_MINT, program=TOKEN_2022_PROGRAM, references=[ORDER]
        ),
        PAY_FEE_MINT,
        clean(AMOUNT),
    ),
    (
        "a mint whose issuer takes back at once",
        with_fee_mint(
            fee_mint_transfer(AMOUNT, ORDER, withheld=0),
            checked_transfer(
                SHOP_FEE_ATA,
                FEE_MINT,
                BUYER_FEE_ATA,
                key("permanent delegate"),
                AMOUNT,
                program=TOKEN_2022_PROGRAM,
            ),
        ),
        PAY_FEE_MINT,
        doubtful(0, Reason.DEBITED),
    ),
    (
        "the recipient burns what was paid",
        in_usdc(bound(), burn(SHOP_ATA, USDC, SHOP, AMOUNT)),
        PAY_USDC,
        doubtful(0, Reason.DEBITED),
    ),
    (
        "a paused mint or a frozen account: it fails",
        in_usdc(bound(), err={"InstructionError": [0, {"Custom": 17}]}),
        PAY_USDC,
        clean(0, Reason.FAILED_TRANSACTION),
    ),
    (
        "Batch: each instruction in it is a transfer of its own",
        in_usdc(batch(plain_transfer(BUYER_ATA, STRANGER_ATA, BUYER, 5), bound())),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "Batch that names the reference on another of its instructions",
        in_usdc(
            batch(
                plain_transfer(BUYER_ATA, STRANGER_ATA, BUYER, 5, ORDER),
                plain_transfer(BUYER_ATA, SHOP_ATA, BUYER, AMOUNT),
            )
        ),
        PAY_USDC,
        clean(0, Reason.WRONG_RECIPIENT),
    ),
    (
        "Batch of Token-2022",
        with_fee_mint(
            batch(fee_mint_transfer(AMOUNT, ORDER, withheld=0), program=TOKEN_2022_PROGRAM)
        ),
        PAY_FEE_MINT,
        clean(AMOUNT),
    ),
    (
        "MintTo the recipient",
        in_usdc(mint_to(USDC, SHOP_ATA, key("issuer"), AMOUNT), memo("for", ORDER)),
        PAY_USDC,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "WithdrawWithheldTokens to the recipient",
        transaction(
            [token_call(b"\x1a\x03\x00", FEE_MINT, SHOP_FEE_ATA, SHOP), memo("for", ORDER)],
            tokens=FEE_ROWS,
            extra_tokens={SHOP_FEE_ATA: AMOUNT},
        ),
        PAY_FEE_MINT,
        doubtful(0, Reason.NOT_BOUND),
    ),
    (
        "HarvestWithheldTokens from the recipient's account, which was never in the balance",
        with_fee_mint(
            fee_mint_transfer(AMOUNT, ORDER, withheld=25),
            token_call(b"\x1a\x04", FEE_MINT, SHOP_FEE_ATA),
        ),
        PAY_FEE_MINT,
        clean(AMOUNT - 25),
    ),
    (
        "SetAuthority gives the recipient an account that is full",
        in_usdc(
            set_owner(AUXILIARY, BUYER, SHOP),
            memo("for", ORDER),
            tokens=[*USDC_ROWS, replace(AUXILIARY_ROW, owner=BUYER, owner_after=SHOP)],
        ),
        PAY_USDC,
        doubtful(0, Reason.NOT_BOUND),
    ),
    (
        "SetAuthority, and one base unit that names the reference",
        in_usdc(
            set_owner(AUXILIARY, BUYER, SHOP),
            bound(1),
            tokens=[*USDC_ROWS, replace(AUXILIARY_ROW, owner=BUYER, owner_after=SHOP)],
        ),
        PAY_USDC,
        doubtful(1, Reason.BOOKS),
    ),
    (
        "a program pays out what it owed the recipient, and one base unit names the reference",
        in_usdc(
            call(PROGRAM, STRANGER_ATA, SHOP_ATA, ORDER),
            bound(1),
            inner={0: [plain_transfer(STRANGER_ATA, SHOP_ATA, STRANGER, AMOUNT)]},
        ),
        PAY_USDC,
        clean(1),
    ),
    (
        "a transfer that another program called, such as a vault or a smart wallet",
        in_usdc(
            call(PROGRAM, BUYER_ATA, SHOP_ATA, ORDER),
            inner={0: [call(key("its inner program")), bound()]},
        ),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "a called transfer without the reference, which only its caller names",
        in_usdc(
            call(PROGRAM, BUYER_ATA, SHOP_ATA, ORDER),
            inner={0: [plain_transfer(BUYER_ATA, SHOP_ATA, BUYER, AMOUNT)]},
        ),
        PAY_USDC,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "keys from a lookup table: the reference, and the account that is paid",
        in_usdc(bound(), version=0, loaded_writable=[SHOP_ATA], loaded_readonly=[ORDER]),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "version 1",
        in_usdc(bound(), version=1),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "the reference is a signer and writable",
        in_usdc(replace(bound(), signers=(BUYER, ORDER))),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "the signers of a multisig stand before the reference",
        in_usdc(bound(AMOUNT, BUYER, STRANGER, ORDER)),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "the reference stands elsewhere in the transaction",
        in_usdc(bound(AMOUNT, STRANGER), memo("for", ORDER), call(PROGRAM, ORDER)),
        PAY_USDC,
        clean(0, Reason.NOT_BOUND),
    ),
    (
        "the reference stands on a transfer to somebody else",
        in_usdc(
            checked_transfer(BUYER_ATA, USDC, STRANGER_ATA, BUYER, AMOUNT, ORDER),
            plain_transfer(BUYER_ATA, SHOP_ATA, BUYER, AMOUNT),
        ),
        PAY_USDC,
        clean(0, Reason.WRONG_RECIPIENT),
    ),
    (
        "a token that only looks alike",
        token_transfer(BUYER, SHOP, AMOUNT, mint=key("usdc, or so it says"), references=[ORDER]),
        PAY_USDC,
        clean(0, Reason.WRONG_MINT),
    ),
    (
        "SOL where tokens were asked for",
        sol_transfer(BUYER, SHOP, AMOUNT, references=[ORDER]),
        PAY_USDC,
        clean(0, Reason.WRONG_MINT),
    ),
    (
        "lamports that make the recipient's account have no part in tokens",
        in_usdc(create_account(BUYER, SHOP, AMOUNT), bound()),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "an account of the recipient that is not the associated one",
        in_usdc(
            checked_transfer(BUYER_ATA, USDC, AUXILIARY, BUYER, AMOUNT, ORDER),
            tokens=[*USDC_ROWS, AUXILIARY_ROW],
        ),
        PAY_USDC,
        clean(0, Reason.AUXILIARY_ACCOUNT),
    ),
    (
        "the associated account, which belongs to somebody else by now",
        in_usdc(bound(), tokens=[replace(USDC_ROWS[0], owner=STRANGER), *USDC_ROWS[1:]]),
        PAY_USDC,
        clean(0, Reason.WRONG_RECIPIENT),
    ),
    (
        "the associated account, which belongs to somebody else afterwards",
        in_usdc(
            bound(),
            set_owner(SHOP_ATA, SHOP, STRANGER),
            tokens=[replace(USDC_ROWS[0], owner_after=STRANGER), *USDC_ROWS[1:]],
        ),
        PAY_USDC,
        doubtful(0, Reason.WRONG_RECIPIENT),
    ),
    (
        "out of the recipient's own other account",
        in_usdc(
            checked_transfer(AUXILIARY, USDC, SHOP_ATA, SHOP, AMOUNT, ORDER),
            tokens=[*USDC_ROWS, AUXILIARY_ROW],
        ),
        PAY_USDC,
        doubtful(0, Reason.OWN_FUNDS),
    ),
    (
        "out of the recipient's other account, which is somebody else's afterwards",
        in_usdc(
            set_owner(AUXILIARY, SHOP, BUYER),
            checked_transfer(AUXILIARY, USDC, SHOP_ATA, BUYER, AMOUNT, ORDER),
            tokens=[*USDC_ROWS, replace(AUXILIARY_ROW, owner_after=BUYER)],
        ),
        PAY_USDC,
        doubtful(0, Reason.OWN_FUNDS),
    ),
    (
        "the recipient draws from the payer's account as its delegate",
        in_usdc(checked_transfer(BUYER_ATA, USDC, SHOP_ATA, SHOP, AMOUNT, ORDER)),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "out of an account of the recipient that came and went",
        in_usdc(checked_transfer(key("came and went"), USDC, SHOP_ATA, SHOP, AMOUNT, ORDER)),
        PAY_USDC,
        clean(0, Reason.OWN_FUNDS),
    ),
    (
        "the account that is paid is closed again: it has no balance row",
        in_usdc(
            bound(),
            close_account(SHOP_ATA, SHOP, SHOP),
            tokens=[replace(USDC_ROWS[0], amount=None, closed=True), *USDC_ROWS[1:]],
        ),
        PAY_USDC,
        clean(0, Reason.WRONG_RECIPIENT),
    ),
    (
        "the account that is paid came into being in the same transaction",
        token_transfer(BUYER, SHOP, AMOUNT, mint=USDC, references=[ORDER], recipient_before=None),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "a recipient off the curve",
        token_transfer(BUYER, VAULT, AMOUNT, mint=USDC, references=[ORDER]),
        in_tokens(recipient=VAULT),
        clean(AMOUNT),
    ),
    (
        "as much as an amount can be",
        in_usdc(
            bound(AMOUNT_MAX), tokens=[holding(SHOP, USDC, 0), holding(BUYER, USDC, AMOUNT_MAX)]
        ),
        in_tokens(AMOUNT_MAX),
        clean(AMOUNT_MAX),
    ),
    (
        "several transfers under one reference",
        in_usdc(bound(400), memo("and"), bound(600)),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "a memo that is wrong or missing says nothing about the money",
        token_transfer(
            BUYER, SHOP, AMOUNT, mint=USDC, references=[ORDER], memo_text="another order"
        ),
        PAY_USDC,
        clean(AMOUNT),
    ),
    (
        "the recipient pays back",
        in_usdc(checked_transfer(SHOP_ATA, USDC, BUYER_ATA, SHOP, AMOUNT, ORDER)),
        PAY_USDC,
        doubtful(0, Reason.OWN_FUNDS),
    ),
]
