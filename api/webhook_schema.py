"""The bodies of the calls about webhooks (see `schema`)."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.schema import EXAMPLE_ID, Time


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
