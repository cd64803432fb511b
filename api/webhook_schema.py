"""The bodies of the calls about webhooks (see `schema`)."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.schema import EXAMPLE_ID, Time, line_schema
from indexer.core.receiver import DESCRIPTION_CHARS_MAX, OVERLAP_S_MAX, URL_CHARS_MAX
from indexer.core.types import EventType


EXAMPLE_EVENT_ID = "whe_1042"

EventSource = Annotated[
    Literal["helius", "quicknode", "paymob"], Meta(description="Who sends them.")
]
EventVerdict = Annotated[
    Literal["waiting", "done", "ignored", "refused", "failed", "unauthenticated"],
    Meta(
        description="`waiting`: not processed yet; `done`: it led to something; `ignored`: it "
        "concerns nothing here; `refused`: authentic, and contradicts what is known; `failed`: "
        "tried often, waits for a person; `unauthenticated`: a sample of what was turned away, "
        "one for each source and hour."
    ),
]


class CallbackBody(msgspec.Struct, frozen=True):
    """A callback of Paymob's. What else is in it is not looked at."""

    type: Literal["TRANSACTION", "TOKEN"]
    obj: Annotated[dict[str, Any], Meta(description="The charge or the saved card; signed.")]


class ReceivedBody(msgspec.Struct, frozen=True):
    """A webhook is stored."""

    status: Literal["received"]


class WebhookEventBody(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that came in."""

    id: Annotated[str, Meta(examples=[EXAMPLE_EVENT_ID])]
    source: EventSource
    kind: Annotated[
        str, Meta(description="What it says it is.", examples=["transactions", "TRANSACTION"])
    ]
    verdict: EventVerdict
    detail: Annotated[str | None, Meta(description="The same for a person.")]
    received_at: Annotated[Time, Meta(description="When it came first.")]
    updated_at: Annotated[Time, Meta(description="When it came or was processed last.")]
    attempts: Annotated[int, Meta(description="How often it was processed.")]
    repeats: Annotated[
        int,
        Meta(description="How often it came again; of a sample, how many were turned away."),
    ]
    address: Annotated[str, Meta(description="Who sent it: the address of the peer.")]
    headers: Annotated[dict[str, str], Meta(description="Those that say nothing secret.")]
    payments: Annotated[
        list[str], Meta(description="Payments that it was about.", examples=[[EXAMPLE_ID]])
    ]
    body_bytes: Annotated[int, Meta(description="Size of the body.")]
    body: Annotated[
        str | UnsetType,
        Meta(
            description="As it came, but for secrets and card numbers; only where one event is "
            "shown."
        ),
    ] = UNSET
    body_encoding: Annotated[
        Literal["text", "base64"] | UnsetType,
        Meta(description="`base64` when the body is no text in UTF-8."),
    ] = UNSET


class WebhookEventPageBody(msgspec.Struct, frozen=True):
    """A page of webhooks that came in, newest first."""

    data: list[WebhookEventBody]
    next_cursor: Annotated[
        str | None, Meta(description="For the page after; null on the last one.")
    ]


# -------------------------------------------------------------------------- what goes out


EXAMPLE_ENDPOINT_ID = "we_7c3mzk0v9xw2h5tq8r1jd4n6bs"
EXAMPLE_DELIVERY_ID = "dlv_2077"
EXAMPLE_RECEIVER = "https://shop.example/hooks/payments"

EndpointId = Annotated[str, Meta(examples=[EXAMPLE_ENDPOINT_ID])]
DeliveryId = Annotated[str, Meta(examples=[EXAMPLE_DELIVERY_ID])]
EventTypes = Annotated[
    list[Annotated[str, Meta(extra_json_schema={"enum": [str(type_) for type_ in EventType]})]],
    Meta(
        description="Types of events that it is told of; none: all of them, also those that a "
        "later release adds.",
        examples=[["payment.settled", "payment.expired"]],
    ),
]
DeliveryState = Annotated[
    Literal["waiting", "delivered", "failed", "dropped"],
    Meta(
        description="`waiting`: not received yet, tried again by itself; `failed`: tried as often "
        "as is sensible; `dropped`: its receiver was disabled or deleted."
    ),
]


class NewEndpointBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A receiver to be registered. A field that is null counts as left out."""

    url: Annotated[
        str,
        Meta(
            description="Where events are posted to: https, a public host, no user name, no "
            "fragment. No redirect is followed.",
            examples=[EXAMPLE_RECEIVER],
            extra_json_schema={
                "format": "uri",
                "pattern": "^https?://",
                "maxLength": URL_CHARS_MAX,
            },
        ),
    ]
    event_types: EventTypes | None = None
    description: Annotated[
        str | None,
        Meta(
            description="A line of the merchant's own.",
            examples=["the shop"],
            extra_json_schema=line_schema(DESCRIPTION_CHARS_MAX),
        ),
    ] = None


class RotationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a secret is replaced."""

    overlap_s: Annotated[
        int | None,
        Meta(
            description="Seconds for which the secret before signs too, so that a receiver has "
            "time to learn the new one; 0 ends it at once. Left out: a day.",
            examples=[86_400],
            extra_json_schema={"minimum": 0, "maximum": OVERLAP_S_MAX},
        ),
    ] = None


class RedeliveryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be sent again."""

    since: Annotated[
        Time, Meta(description="Events from this time on that the receiver has not taken.")
    ]


class AttemptBody(msgspec.Struct, frozen=True, kw_only=True):
    """One time that something was sent."""

    at: Time
    duration_ms: int
    status: Annotated[
        int | None, Meta(description="Of the answer; null: none came.", examples=[500])
    ]
    problem: Annotated[
        str | None,
        Meta(description="Why it is no success; null: it is one.", examples=["answered 500"]),
    ]
    response: Annotated[str, Meta(description="The beginning of the answer's body.")]


class EndpointBody(msgspec.Struct, frozen=True, kw_only=True):
    """A receiver of events."""

    id: EndpointId
    url: Annotated[str, Meta(examples=[EXAMPLE_RECEIVER])]
    event_types: EventTypes
    description: str | None
    state: Annotated[
        Literal["enabled", "disabled"], Meta(description="A disabled one is sent nothing.")
    ]
    state_reason: Annotated[str | None, Meta(description="Why it is disabled; null: it is not.")]
    waiting: Annotated[int, Meta(description="Deliveries that it has not taken yet.")]
    failed: Annotated[int, Meta(description="Deliveries that were given up.")]
    last_attempt: Annotated[
        AttemptBody | None, Meta(description="What came of the last one; null: there was none.")
    ]
    old_secret_until: Annotated[
        Time | None,
        Meta(description="Until when the secret before the last rotation signs too."),
    ]
    created_at: Time
    updated_at: Time


class SecretEndpointBody(EndpointBody, frozen=True, kw_only=True):
    """A receiver of events with its secret, which is shown this once."""

    secret: Annotated[
        str,
        Meta(
            description="Signs what is sent there (Standard Webhooks, `v1`).",
            examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        ),
    ]


class EndpointPageBody(msgspec.Struct, frozen=True):
    """Every receiver, the oldest first: there are few."""

    data: list[EndpointBody]


class DeliveryBody(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one receiver."""

    id: DeliveryId
    endpoint_id: EndpointId
    event_id: Annotated[
        str,
        Meta(
            description="The `webhook-id` that it is sent with, the same each time.",
            examples=["evt_7c3mzk0v9xw2h5tq8r1jd4n6bs_2_0"],
        ),
    ]
    type: Annotated[str, Meta(examples=["payment.settled", "webhook.test"])]
    payment_id: Annotated[str | None, Meta(description="Null: a test.", examples=[EXAMPLE_ID])]
    state: DeliveryState
    attempts: Annotated[int, Meta(description="How often it was sent since it was last asked for.")]
    next_try_at: Annotated[
        Time | None,
        Meta(
            description="When it is sent, unless an earlier event of its payment still waits; "
            "null: it does not wait."
        ),
    ]
    created_at: Time
    ended_at: Annotated[Time | None, Meta(description="Null: it waits.")]
    history: Annotated[
        list[AttemptBody] | UnsetType,
        Meta(description="Each time it was sent; only where one delivery is shown."),
    ] = UNSET


class DeliveryPageBody(msgspec.Struct, frozen=True):
    """A page of deliveries, newest first."""

    data: list[DeliveryBody]
    next_cursor: Annotated[
        str | None, Meta(description="For the page after; null on the last one.")
    ]


class RedeliveredBody(msgspec.Struct, frozen=True):
    """How many are sent again."""

    count: int


class OutgoingEventData(msgspec.Struct, frozen=True, kw_only=True):
    """The payment after the change, as the stream of all payments has it."""

    payment: Annotated[
        dict[str, Any],
        Meta(
            description="As `getPayment` shows it, without `url`, `checkout_url`, `transfers`, "
            "`charges`, `order_id` and `metadata`."
        ),
    ]
    order_id: Annotated[str | None, Meta(description="The merchant's own number for it.")]
    signature: Annotated[
        str | None, Meta(description="The transaction that caused the change, if one did.")
    ]


class OutgoingEventBody(msgspec.Struct, frozen=True):
    """What a receiver is sent (Standard Webhooks)."""

    type: Annotated[
        str,
        Meta(
            examples=["payment.settled"],
            extra_json_schema={"enum": [str(type_) for type_ in EventType]},
        ),
    ]
    timestamp: Annotated[Time, Meta(description="When it happened, as far as the server knows.")]
    data: OutgoingEventData


class OutgoingTestBody(msgspec.Struct, frozen=True):
    """What a receiver is sent by `testEndpoint`."""

    type: Literal["webhook.test"]
    timestamp: Annotated[Time, Meta(description="When it was asked for.")]
    data: Annotated[dict[str, Any], Meta(description="Empty.")]
