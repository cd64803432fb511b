"""The words that everything else is written in."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


#: The largest amount that the System and Token programs can move (their amounts are `u64`).
AMOUNT_MAX: Final = 2**64 - 1

LAMPORTS_PER_SOL_DECIMALS: Final = 9

SYSTEM_PROGRAM: Final = "11111111111111111111111111111111"
TOKEN_PROGRAM: Final = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
TOKEN_2022_PROGRAM: Final = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"
ASSOCIATED_TOKEN_PROGRAM: Final = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"
#: The mint of wrapped SOL under the classic Token program.
NATIVE_MINT: Final = "So11111111111111111111111111111111111111112"
#: The mint of wrapped SOL under Token-2022.
NATIVE_MINT_2022: Final = "9pan9bMn5HatX4EJdBwg9VgCa7Uz5HL8N1m5D3NdXej9"
NATIVE_MINTS: Final = frozenset({NATIVE_MINT, NATIVE_MINT_2022})
#: The programs that write a text into a transaction, old and new. Source: SPL Memo.
MEMO_PROGRAMS: Final = frozenset(
    {
        "Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "Memo4c2pN8afCj432Lb7RMVKi9PbQnnW7ewFFaV3oAH",
    }
)


class Provider(StrEnum):
    """Who moves the money."""

    SOLANA = "solana"
    PAYMOB = "paymob"


class Currency(StrEnum):
    """What cards are charged in."""

    EGP = "EGP"
    SAR = "SAR"
    AED = "AED"
    OMR = "OMR"


#: Digits after the point of one unit of a currency. Source: ISO 4217.
CURRENCY_DECIMALS: Final[Mapping[Currency, int]] = {
    Currency.EGP: 2,
    Currency.SAR: 2,
    Currency.AED: 2,
    Currency.OMR: 3,
}


class Status(StrEnum):
    """Where a payment stands. The legal moves are `settle.TRANSITIONS`."""

    PENDING = "pending"
    PROCESSING = "processing"
    SETTLED = "settled"
    EXPIRED = "expired"
    CANCELED = "canceled"
    FAILED = "failed"
    REFUNDED = "refunded"


class Paid(StrEnum):
    """How much of the amount has arrived, whatever the status."""

    NONE = "none"
    PARTIAL = "partial"
    EXACT = "exact"
    OVER = "over"


class Commitment(StrEnum):
    """How sure the cluster is of a transaction. Only `finalized` decides anything here."""

    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


class EventType(StrEnum):
    """Facts that are published, in the past tense."""

    CREATED = "payment.created"
    DETECTED = "payment.detected"
    REVERTED = "payment.reverted"
    PARTIALLY_PAID = "payment.partially_paid"
    SETTLED = "payment.settled"
    EXPIRED = "payment.expired"
    CANCELED = "payment.canceled"
    REVIEW = "payment.review"
    FAILED = "payment.failed"
    REFUNDED = "payment.refunded"


class WebhookSource(StrEnum):
    """Who sends us webhooks."""

    HELIUS = "helius"
    QUICKNODE = "quicknode"
    PAYMOB = "paymob"


class WebhookVerdict(StrEnum):
    """What became of a webhook that came in.

    Waiting: not processed yet. Done: it led to something. Ignored: it concerns nothing here.
    Refused: authentic, and contradicts what is known. Failed: tried often, waits for a person.
    Unauthenticated: a sample of what was turned away.
    """

    WAITING = "waiting"
    DONE = "done"
    IGNORED = "ignored"
    REFUSED = "refused"
    FAILED = "failed"
    UNAUTHENTICATED = "unauthenticated"


class ChargeState(StrEnum):
    """Where one transaction at the card acquirer stands. It never goes back (see `card`)."""

    PENDING = "pending"
    DECLINED = "declined"
    AUTHORIZED = "authorized"
    PAID = "paid"
    VOIDED = "voided"
    REFUNDED = "refunded"


class Reason(StrEnum):
    """Why a verdict is what it is, and why a payment waits for a person.

    The first group explains a credit, mostly one of nothing, and never asks for a person by
    itself. The second marks numbers that a machine should not settle on.
    """

    FAILED_TRANSACTION = "failed_transaction"
    NOT_BOUND = "not_bound"
    WRONG_MINT = "wrong_mint"
    WRONG_RECIPIENT = "wrong_recipient"
    OWN_FUNDS = "own_funds"
    MATCHED = "matched_by_person"

    AUXILIARY_ACCOUNT = "auxiliary_account"
    ALREADY_ALLOCATED = "already_allocated"
    ACCOUNT_CREATED = "account_created"
    DEBITED = "debited"
    BOOKS = "books_do_not_balance"
    UNDECODABLE = "undecodable"
    FEE_UNKNOWN = "fee_unknown"
    LATE_AFTER_GRACE = "late_after_grace"
    PAID_AFTER_CANCEL = "paid_after_cancel"
    PAID_AGAIN = "paid_again"
    PARTIALLY_REFUNDED = "partially_refunded"


class DecisionKind(StrEnum):
    """What a person may say of one transaction of one payment.

    Accepted: its credit counts as if nothing were in doubt. Refused: it counts for nothing.
    Matched: it names no reference, and pays this payment all the same.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    MATCHED = "matched"
