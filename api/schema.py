"""The bodies that go in and out, as types: what is sent, what is documented, in one place.

`openapi` makes the published schemas of these; descriptions and examples stand here for that.
Amounts are strings: base units end at 2^64-1, and the numbers of JavaScript at 2^53.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.limits import IDEMPOTENCY_KEY_LENGTH_MAX
from indexer.core.card_creation import CUSTOMER_CHARS_MAX
from indexer.core.creation import EXPIRES_IN_S_MAX, EXPIRES_IN_S_MIN
from indexer.core.texts import (
    LABEL_CHARS_MAX,
    MEMO_BYTES_MAX,
    MESSAGE_CHARS_MAX,
    METADATA_KEY_CHARS_MAX,
    METADATA_KEYS_MAX,
    METADATA_VALUE_CHARS_MAX,
    ORDER_ID_CHARS_MAX,
)
from indexer.core.types import Provider


EXAMPLE_ID = "pay_7c3mzk0v9xw2h5tq8r1jd4n6bs"
EXAMPLE_RECIPIENT = "9WzDXwBbmkg8ZTbNMqUxvQRAyrZzDsGYdLVL9zYtAWWM"
EXAMPLE_REFERENCE = "FvZ7aGKsL1nDBrcYEMxrcBvQpWMHGFVfQm5bUjKcXQ3e"
EXAMPLE_MINT = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
EXAMPLE_URL = (
    f"solana:{EXAMPLE_RECIPIENT}?amount=12.5&spl-token={EXAMPLE_MINT}"
    f"&reference={EXAMPLE_REFERENCE}&label=Coffee%20House"
)

#: What may be told of a customer.
CUSTOMER_FIELDS = ("first_name", "last_name", "email", "phone_number")

#: Base58 of 32 bytes is 32 to 44 characters long; not all that long are it.
KEY_SCHEMA: Final[dict[str, Any]] = {
    "pattern": "^[1-9A-HJ-NP-Za-km-z]{32,44}$",
    "format": "solana-key",
}

#: Bare, or as a string of RFC 8941, whose quotes and escapes do not count.
IDEMPOTENCY_KEY_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": (
        rf"^([!#-~][!-~]{{0,{IDEMPOTENCY_KEY_LENGTH_MAX - 1}}}"
        rf'|"([!#-\[\]-~]|\\["\\]){{1,{IDEMPOTENCY_KEY_LENGTH_MAX}}}")$'
    ),
}


def line_schema(chars_max: int) -> dict[str, Any]:
    """JSON Schema of one line of text (see `texts.check_line`, which refuses what it does not)."""
    return {
        "minLength": 1,
        "maxLength": chars_max,
        "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$",
    }


DecimalAmount = Annotated[
    str, Meta(description="A decimal number in units of the token.", examples=["12.5"])
]
BaseUnits = Annotated[
    str, Meta(description="The same as a whole number of base units.", examples=["12500000"])
]
Key = Annotated[str, Meta(description="A key, base58.", examples=[EXAMPLE_RECIPIENT])]
Time = Annotated[
    str,
    Meta(
        description="RFC 3339, UTC.",
        examples=["2026-11-22T20:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]


class NewPaymentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a merchant asks for. A field that is null counts as left out."""

    amount: Annotated[
        str,
        Meta(
            description="Decimal amount in units of the token, as a string: a JSON number would "
            "lose digits.",
            examples=["12.5"],
            extra_json_schema={"pattern": r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", "maxLength": 276},
        ),
    ]
    token: Annotated[
        str,
        Meta(
            description="Symbol or mint of an accepted token; of a payment by card the currency.",
            examples=["USDC", "SOL", "EGP"],
            extra_json_schema={"minLength": 1, "maxLength": 64},
        ),
    ]
    recipient: Annotated[
        str | None,
        Meta(
            description="Wallet to be paid. Left out: the one that the server is set to. Not for "
            "a payment by card.",
            extra_json_schema=KEY_SCHEMA,
        ),
    ] = None
    label: Annotated[
        str | None,
        Meta(
            description="Who asks, as the wallet shows it.",
            examples=["Coffee House"],
            extra_json_schema=line_schema(LABEL_CHARS_MAX),
        ),
    ] = None
    message: Annotated[
        str | None,
        Meta(
            description="What for, as the wallet shows it.",
            examples=["Order 1042"],
            extra_json_schema=line_schema(MESSAGE_CHARS_MAX),
        ),
    ] = None
    memo: Annotated[
        str | None,
        Meta(
            description="Written to the chain with the transfer: public for ever. Not for a "
            f"payment by card. At most {MEMO_BYTES_MAX} bytes in UTF-8.",
            extra_json_schema=line_schema(MEMO_BYTES_MAX),
        ),
    ] = None
    expires_in_s: Annotated[
        int | None,
        Meta(
            description="Seconds until the payment expires. Left out: the server's setting.",
            extra_json_schema={"minimum": EXPIRES_IN_S_MIN, "maximum": EXPIRES_IN_S_MAX},
        ),
    ] = None
    metadata: Annotated[
        dict[str, str] | None,
        Meta(
            description="Notes of the merchant's own. Shown only with an API key.",
            examples=[{"table": "7"}],
            extra_json_schema={
                "maxProperties": METADATA_KEYS_MAX,
                "propertyNames": line_schema(METADATA_KEY_CHARS_MAX),
                "additionalProperties": {"maxLength": METADATA_VALUE_CHARS_MAX},
            },
        ),
    ] = None
    order_id: Annotated[
        str | None,
        Meta(
            description="The merchant's own number for it. Shown only with an API key.",
            examples=["1042"],
            extra_json_schema=line_schema(ORDER_ID_CHARS_MAX),
        ),
    ] = None
    provider: Annotated[
        str | None,
        Meta(
            description="Who moves the money: `solana` (the default), or `paymob` for a payment "
            "by card, where the server is set up for it.",
            examples=["solana"],
            extra_json_schema={"enum": [*(str(provider) for provider in Provider), None]},
        ),
    ] = None
    customer: Annotated[
        dict[str, str] | None,
        Meta(
            description="Who will pay by card: handed on to Paymob, and not kept.",
            examples=[{"first_name": "Amal", "email": "amal@example.com"}],
            extra_json_schema={
                "propertyNames": {"enum": list(CUSTOMER_FIELDS)},
                "additionalProperties": line_schema(CUSTOMER_CHARS_MAX),
            },
        ),
    ] = None
    reference: Annotated[
        str | None,
        Meta(
            description="The reference key of a Solana Pay URL that was made elsewhere. It must "
            "be fresh: used for no other payment, and in no transaction. Left out: the server "
            "makes the key and the URL. Not for a payment by card.",
            extra_json_schema=KEY_SCHEMA,
        ),
    ] = None


class TokenBody(msgspec.Struct, frozen=True):
    """What is to be paid in."""

    symbol: Annotated[str, Meta(examples=["USDC"])]
    mint: Annotated[
        str | None, Meta(description="Null: native SOL, or a currency.", examples=[EXAMPLE_MINT])
    ]
    decimals: Annotated[int, Meta(examples=[6])]


class TransferBody(msgspec.Struct, frozen=True):
    """A transaction that pays towards the payment."""

    signature: str
    slot: int
    block_time: Annotated[Time | None, Meta(description="Null while it is not finalized.")]
    amount: DecimalAmount
    amount_base_units: BaseUnits
    commitment: Annotated[
        Literal["confirmed", "finalized"],
        Meta(description="Only what is finalized counts as received."),
    ]


class ChargeBody(msgspec.Struct, frozen=True):
    """A card transaction of the payment, as far as Paymob told of it."""

    id: Annotated[str, Meta(description="Paymob's number of it.", examples=["192036465"])]
    state: Annotated[
        Literal["pending", "declined", "authorized", "paid", "voided", "refunded"],
        Meta(description="`refunded`: in full."),
    ]
    amount: DecimalAmount
    amount_base_units: BaseUnits
    refunded: Annotated[str, Meta(description="What went back of it.", examples=["0"])]
    paid_at: Annotated[
        Time | None, Meta(description="When it was first told to be paid; null: never.")
    ]


class PaymentBody(msgspec.Struct, frozen=True, kw_only=True):
    """A payment: what was asked for, and where it stands.

    Release goods when `status` is `settled`, not before.
    """

    id: Annotated[
        str, Meta(description="Whoever knows it may see the payment.", examples=[EXAMPLE_ID])
    ]
    provider: Literal["solana", "paymob"]
    status: Annotated[
        Literal["pending", "processing", "settled", "expired", "canceled", "failed", "refunded"],
        Meta(
            description="`pending`: nothing seen. `processing`: seen, not final, or waiting for "
            "a person. `settled`: paid in full and final. `expired`: not paid in time; late "
            "money within the grace time still settles it. `canceled`: by the merchant. "
            "`failed`: a card was declined; another one may still settle it. `refunded`: by card, "
            "and all of it went back."
        ),
    ]
    paid: Annotated[
        Literal["none", "partial", "exact", "over"],
        Meta(description="How much has arrived, whatever the status."),
    ]
    late: Annotated[bool, Meta(description="Some of it came after `expires_at`.")]
    review: Annotated[
        list[str], Meta(description="Why a person must look at it; empty when all is well.")
    ]
    amount: DecimalAmount
    amount_base_units: BaseUnits
    token: TokenBody
    received: Annotated[
        str,
        Meta(
            description="What finalized transactions have credited, or cards have paid.",
            examples=["0"],
        ),
    ]
    received_base_units: Annotated[str, Meta(examples=["0"])]
    recipient: Annotated[Key | None, Meta(description="Null: by card.")]
    reference: Annotated[
        str | None,
        Meta(
            description="The key that ties a transfer to this payment. Null: by card.",
            examples=[EXAMPLE_REFERENCE],
        ),
    ]
    url: Annotated[
        str | None,
        Meta(
            description="The Solana Pay URL, for a wallet or a QR code. Null: by card.",
            examples=[EXAMPLE_URL],
        ),
    ]
    checkout_url: Annotated[
        str | None,
        Meta(
            description="Paymob's page to pay on by card: send the customer there. Null: not by "
            "card."
        ),
    ]
    order_id: Annotated[
        str | UnsetType | None,
        Meta(description="Left out without an API key that has `payments:read`."),
    ] = UNSET
    memo: str | None
    label: str | None
    message: str | None
    metadata: Annotated[
        dict[str, str] | UnsetType,
        Meta(description="Left out without an API key that has `payments:read`."),
    ] = UNSET
    transfers: Annotated[list[TransferBody], Meta(description="Oldest first; none by card.")]
    charges: Annotated[
        list[ChargeBody] | UnsetType,
        Meta(
            description="By card: what Paymob told of, by its numbers. Left out of other payments, "
            "and without an API key that has `payments:read`."
        ),
    ] = UNSET
    created_at: Time
    expires_at: Time
    settled_at: Annotated[
        Time | None,
        Meta(
            description="Block time of the transaction that completed it; by card, when Paymob "
            "first told that it is paid."
        ),
    ]
    version: Annotated[
        int, Meta(description="One more with every change; the larger one is newer.", examples=[1])
    ]


class PageBody(msgspec.Struct, frozen=True):
    """Some payments, newest first."""

    data: list[PaymentBody]
    next_cursor: Annotated[
        str | None, Meta(description="For the next page as `cursor`; null on the last page.")
    ]


class EventBody(msgspec.Struct, frozen=True):
    """The `data` of a stream's messages: the payment after the change.

    `payment` is the payment without `url`, `checkout_url`, `transfers`, `charges`, `order_id`
    and `metadata`.
    """

    payment: dict[str, Any]
    signature: Annotated[
        str | None, Meta(description="The transaction that caused the change, if one did.")
    ]


class MerchantEventBody(EventBody, frozen=True):
    """The same in the stream of all payments."""

    order_id: Annotated[str | None, Meta(description="The merchant's own number for it.")]


class LiveBody(msgspec.Struct, frozen=True):
    """The process runs."""

    status: Literal["ok"]


class ReasonBody(msgspec.Struct, frozen=True):
    """Something that is not as it should be."""

    component: Annotated[str, Meta(examples=["indexer"])]
    problem: Annotated[str, Meta(examples=["the indexer is not running"])]
    since: Time


class FrontierBody(msgspec.Struct, frozen=True):
    """How far the chain is known: everything finalized up to here is stored."""

    key: Key
    slot: int
    block_time: Annotated[
        Time | None, Meta(description="`null` while the node does not know the time of its blocks.")
    ]
    age_s: Annotated[int | None, Meta(description="Seconds between `block_time` and now.")]


class GapBody(msgspec.Struct, frozen=True):
    """Slots in which something may have been missed; they are swept again by themselves."""

    key: Key
    first_slot: int
    last_slot: int
    reason: Annotated[str, Meta(examples=["reconnect"])]
    since: Time


class ReadinessBody(msgspec.Struct, frozen=True):
    """Whether payments are followed, and why not."""

    status: Annotated[
        Literal["ready", "degraded", "unready"],
        Meta(
            description="`degraded`: it works, but a person should look. `unready` comes with "
            "status 503."
        ),
    ]
    reasons: list[ReasonBody]
    frontiers: list[FrontierBody]
    gaps: Annotated[list[GapBody], Meta(description="Those that are open, 100 at most.")]
