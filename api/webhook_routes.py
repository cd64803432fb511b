"""The rows of the route table about webhooks: the doors, the audit trail, the receivers."""

from typing import Any, Final

from api import endpoint_routes, webhook_events, webhooks
from api.auth import PUBLIC, needs
from api.calls import Answer, Call, Parameter, Proof
from api.limits import (
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    WEBHOOK_BYTES_MAX,
    WEBHOOK_TOLERANCE_S,
)
from api.rates import Limit
from api.webhook_schema import (
    EXAMPLE_EVENT_ID,
    CallbackBody,
    ReceivedBody,
    WebhookEventBody,
    WebhookEventPageBody,
)
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import WebhookSource, WebhookVerdict


_RECEIVED: Final = Answer(description="It is stored.", body=ReceivedBody)
_DOOR_PROBLEMS: Final = (400, 401, 408, 413, 415, 422)
_TIME: Final = {"type": "string", "format": "date-time"}
_EXAMPLE_TIME: Final = "2026-11-22T20:00:00Z"
_EVENT_ID: Final = Parameter(
    name="id",
    where="path",
    description="The id of a webhook that came in.",
    schema={"type": "string", "pattern": "^whe_[1-9][0-9]{0,17}$"},
    required=True,
    example=EXAMPLE_EVENT_ID,
)

_DOORS: Final = (
    Call(
        method="POST",
        path="/api/webhooks/helius",
        name="receiveFromHelius",
        limit=Limit.WEBHOOKS,
        access=PUBLIC,
        handler=webhooks.helius,
        summary="For Helius: transactions that were seen",
        description="Raw and enhanced webhooks. `Authorization` must be the secret, as Helius was "
        "given it for its `authHeader`. Answered once it is stored; only the signatures in it "
        "are used, and each transaction is fetched from the chain. A body has at most "
        f"{WEBHOOK_BYTES_MAX} bytes.",
        body=list[Any] | dict[str, Any],
        proof=Proof.HELIUS,
        answers={200: _RECEIVED},
        problems=_DOOR_PROBLEMS,
    ),
    Call(
        method="POST",
        path="/api/webhooks/quicknode",
        name="receiveFromQuickNode",
        limit=Limit.WEBHOOKS,
        access=PUBLIC,
        handler=webhooks.quicknode,
        summary="For QuickNode: what a stream found",
        description="Signed by `x-qn-nonce`, `x-qn-timestamp` and `x-qn-signature`; the body may "
        "be compressed with gzip, and the bound holds for what is unpacked. Otherwise as for "
        "Helius.",
        parameters=(
            Parameter(
                name="x-qn-nonce",
                where="header",
                description="A text that is used once.",
                required=True,
            ),
            Parameter(
                name="x-qn-timestamp",
                where="header",
                description=f"Unix seconds, no more than {WEBHOOK_TOLERANCE_S} from now.",
                schema={"type": "string", "pattern": "^[0-9]{10}$"},
                required=True,
            ),
        ),
        body=list[Any] | dict[str, Any],
        proof=Proof.QUICKNODE,
        answers={200: _RECEIVED},
        problems=_DOOR_PROBLEMS,
    ),
    Call(
        method="POST",
        path="/api/webhooks/paymob",
        name="receiveFromPaymob",
        limit=Limit.WEBHOOKS,
        access=PUBLIC,
        handler=webhooks.paymob_callback,
        summary="For Paymob: what became of a charge",
        description="Callbacks of the types `TRANSACTION` and `TOKEN`, signed by `hmac` in the "
        "query. 403 when the signature is right and the account, the integration or the currency "
        "is none of ours.",
        body=CallbackBody,
        proof=Proof.PAYMOB,
        answers={200: _RECEIVED},
        problems=(*_DOOR_PROBLEMS, 403),
    ),
    Call(
        method="GET",
        path="/api/webhooks/paymob",
        name="returnFromPaymob",
        limit=Limit.WEBHOOKS,
        access=PUBLIC,
        handler=webhooks.paymob_return,
        summary="For Paymob: a customer comes back",
        description="The same as the callback of a transaction, with its fields in the query, "
        "brought by the customer's browser.",
        proof=Proof.PAYMOB,
        answers={200: _RECEIVED},
        problems=(401, 403, 422),
    ),
)

_AUDIT: Final = (
    Call(
        method="GET",
        path="/api/webhooks/events",
        name="listWebhookEvents",
        access=needs("ops"),
        handler=webhook_events.listing,
        summary="List webhooks that came in",
        description="The audit trail, newest first, without bodies.",
        parameters=(
            Parameter(
                name="source",
                where="query",
                description="Only from there.",
                schema={"type": "string", "enum": [str(source) for source in WebhookSource]},
            ),
            Parameter(
                name="verdict",
                where="query",
                description="Only those that this became of.",
                schema={"type": "string", "enum": [str(verdict) for verdict in WebhookVerdict]},
            ),
            Parameter(
                name="since",
                where="query",
                description="Only what came then or later (RFC 3339).",
                schema=_TIME,
                example=_EXAMPLE_TIME,
            ),
            Parameter(
                name="until",
                where="query",
                description="Only what came before (RFC 3339).",
                schema=_TIME,
                example=_EXAMPLE_TIME,
            ),
            Parameter(
                name="payment",
                where="query",
                description="Only what was about this payment.",
                schema={"type": "string", "pattern": f"^{PAYMENT_ID.pattern}$"},
            ),
            Parameter(
                name="cursor", where="query", description="`next_cursor` of the page before."
            ),
            Parameter(
                name="limit",
                where="query",
                description="How many to list.",
                schema={
                    "type": "integer",
                    "minimum": 1,
                    "maximum": PAGE_SIZE_MAX,
                    "default": PAGE_SIZE_DEFAULT,
                },
            ),
        ),
        answers={200: Answer(description="A page of webhooks.", body=WebhookEventPageBody)},
        problems=(422,),
    ),
    Call(
        method="GET",
        path="/api/webhooks/events/{id}",
        name="getWebhookEvent",
        access=needs("ops"),
        handler=webhook_events.show,
        summary="Show a webhook that came in",
        description="With its body.",
        parameters=(_EVENT_ID,),
        answers={200: Answer(description="The webhook.", body=WebhookEventBody)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path="/api/webhooks/events/{id}/retry",
        name="retryWebhookEvent",
        access=needs("ops"),
        handler=webhook_events.retry,
        summary="Process a webhook again",
        description="Whatever became of it; one that waits goes on waiting. What was never "
        "authentic cannot be processed.",
        parameters=(_EVENT_ID,),
        answers={200: Answer(description="The webhook, which waits.", body=WebhookEventBody)},
        problems=(404, 409),
    ),
)

CALLS: Final[tuple[Call, ...]] = (*_DOORS, *_AUDIT, *endpoint_routes.CALLS)
