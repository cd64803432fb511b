"""The route table: every call, who may make it, and what it answers. All else follows from it.

`app` serves it, `openapi` describes it, and the tests look that nothing is served beside it.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api import health, metrics, payments, proxy, stream, webhook_routes
from api.auth import PUBLIC, needs, shows_more_with
from api.calls import EVENT_STREAM, JSON, PLAIN, SVG, Answer, Call, Parameter
from api.context import Context
from api.limits import (
    FILTER_LENGTH_MAX,
    IDEMPOTENCY_KEY_LENGTH_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
)
from api.rates import Limit
from api.schema import (
    EXAMPLE_ID,
    IDEMPOTENCY_KEY_SCHEMA,
    KEY_SCHEMA,
    EventBody,
    LiveBody,
    MerchantEventBody,
    NewPaymentBody,
    PageBody,
    PaymentBody,
    ReadinessBody,
)
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import Status
from store.keys import ApiKey


_ID: Final = Parameter(
    name="id",
    where="path",
    description="The payment's id. Whoever knows it may see the payment.",
    schema={"type": "string", "pattern": f"^{PAYMENT_ID.pattern}$"},
    required=True,
    example=EXAMPLE_ID,
)
_LAST_EVENT_ID: Final = (
    Parameter(
        name="Last-Event-ID",
        where="header",
        description="The id of the last event received: everything after it is sent.",
    ),
    Parameter(
        name="last_event_id",
        where="query",
        description="The same, for pages that cannot set headers. The header wins.",
    ),
)


async def describe(context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """The OpenAPI document of this table."""
    return Response(context.openapi, media_type=JSON)


CALLS: Final[tuple[Call, ...]] = (
    Call(
        method="POST",
        path="/api/pay",
        name="createPayment",
        access=needs("payments:write"),
        handler=payments.create,
        summary="Create a payment",
        description="Answers with the payment once it is stored: with its Solana Pay URL, or, "
        "by card, with the page at Paymob on which the customer pays. "
        "Repeat a request whose answer was lost with the same `Idempotency-Key` and the same "
        "body and API key: the first answer comes again, and there is still one payment. While "
        "the first request is at work, the second waits a moment for its answer, and is told to "
        "come back (409) when it takes longer. Keys are kept for at least 24 hours. A request "
        "that was refused may be corrected and sent again with the same key.",
        parameters=(
            Parameter(
                name="Idempotency-Key",
                where="header",
                description="A string that no other request of yours has, such as a UUID: "
                f"1 to {IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters, quoted or not.",
                schema=IDEMPOTENCY_KEY_SCHEMA,
                required=True,
                example='"8e03978e-40d5-43e8-bc93-6894a57f9324"',
            ),
        ),
        body=NewPaymentBody,
        answers={
            201: Answer(
                description="The payment is stored.",
                body=PaymentBody,
                headers={
                    "Location": "The payment's path.",
                    "Idempotent-Replayed": "`true` when this is a stored answer.",
                },
            )
        },
        problems=(400, 408, 409, 413, 415, 422, 502),
    ),
    Call(
        method="GET",
        path="/api/pay",
        name="listPayments",
        access=needs("payments:read"),
        handler=payments.listing,
        summary="List payments",
        description="Newest first.",
        parameters=(
            Parameter(
                name="status",
                where="query",
                description="Only payments of this status.",
                schema={"type": "string", "enum": [str(status) for status in Status]},
            ),
            Parameter(
                name="order_id",
                where="query",
                description="Only payments of this order.",
                schema={
                    "type": "string",
                    "minLength": 1,
                    "maxLength": FILTER_LENGTH_MAX,
                    "pattern": r"^[^\u0000]+$",
                },
            ),
            Parameter(
                name="reference",
                where="query",
                description="Only the payment of this reference.",
                schema={"type": "string", **KEY_SCHEMA},
            ),
            Parameter(
                name="created_after",
                where="query",
                description="Only payments created after this time (RFC 3339).",
                schema={"type": "string", "format": "date-time"},
                example="2026-11-22T20:00:00Z",
            ),
            Parameter(
                name="cursor",
                where="query",
                description="`next_cursor` of the page before.",
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
        answers={200: Answer(description="A page of payments.", body=PageBody)},
        problems=(422,),
    ),
    Call(
        method="GET",
        path="/api/pay/{id}",
        name="getPayment",
        access=shows_more_with("payments:read"),
        handler=payments.show,
        summary="Show a payment",
        description="For everyone who knows the id. `metadata` and `order_id` are there only "
        "with an API key that has `payments:read`.",
        parameters=(_ID,),
        answers={200: Answer(description="The payment.", body=PaymentBody)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path="/api/pay/{id}/cancel",
        name="cancelPayment",
        access=needs("payments:write"),
        handler=payments.cancel,
        summary="Cancel a payment",
        description="Only while it is `pending`. Canceling again changes nothing. Money that "
        "still comes is recorded and marked for review.",
        parameters=(_ID,),
        answers={200: Answer(description="The canceled payment.", body=PaymentBody)},
        problems=(404, 409),
    ),
    Call(
        method="GET",
        path="/api/pay/{id}/qr.svg",
        name="getPaymentQr",
        access=PUBLIC,
        handler=payments.qr_svg,
        summary="Draw a payment's QR code",
        description="The Solana Pay URL as a picture, for wallets to scan; by card the URL of "
        "the page at Paymob, to go on with on a phone.",
        parameters=(_ID,),
        answers={200: Answer(description="The picture.", media_type=SVG)},
        problems=(404,),
    ),
    Call(
        method="GET",
        path="/api/sse/payments/{id}",
        name="streamPayment",
        limit=Limit.STREAM,
        access=PUBLIC,
        handler=stream.of_payment,
        summary="Follow a payment",
        description="Server-sent events. First a message `payment` with the payment as "
        "`getPayment` shows it, then one message per event: `id` is its number, `event` its "
        "type, `data` as below. After the last event of a payment the server closes, and "
        "answers 204 to whoever has seen it, which ends a browser's `EventSource`.",
        parameters=(_ID, *_LAST_EVENT_ID),
        answers={
            200: Answer(
                description="The stream.",
                media_type=EVENT_STREAM,
                first=PaymentBody,
                body=EventBody,
            ),
            204: Answer(
                description="Everything was received and nothing will follow.", media_type=None
            ),
        },
        problems=(404,),
    ),
    Call(
        method="GET",
        path="/api/sse/events",
        name="streamEvents",
        limit=Limit.STREAM,
        access=needs("payments:read"),
        handler=stream.of_merchant,
        summary="Follow all payments",
        description="Server-sent events of every payment, from now on or after the given "
        "event. Each `data` also has the payment's `order_id`.",
        parameters=_LAST_EVENT_ID,
        answers={
            200: Answer(description="The stream.", media_type=EVENT_STREAM, body=MerchantEventBody)
        },
    ),
    *webhook_routes.CALLS,
    *proxy.CALLS,
    Call(
        method="GET",
        path="/api/openapi.json",
        name="getDescription",
        limit=Limit.EXEMPT,
        access=PUBLIC,
        handler=describe,
        summary="Describe this API",
        description="This document.",
        answers={200: Answer(description="OpenAPI 3.1.")},
    ),
    Call(
        method="GET",
        path="/livez",
        name="isAlive",
        limit=Limit.EXEMPT,
        access=PUBLIC,
        handler=health.livez,
        summary="Is the process alive?",
        description="Asks nobody else.",
        answers={200: Answer(description="It is.", body=LiveBody)},
    ),
    Call(
        method="GET",
        path="/readyz",
        name="isReady",
        limit=Limit.EXEMPT,
        access=PUBLIC,
        handler=health.readyz,
        summary="Are payments followed?",
        description="With reasons when they are not.",
        answers={
            200: Answer(description="They are; `degraded` names reasons.", body=ReadinessBody),
            503: Answer(description="They are not.", body=ReadinessBody),
        },
    ),
    Call(
        method="GET",
        path="/metrics",
        name="getMetrics",
        limit=Limit.EXEMPT,
        access=PUBLIC,
        handler=metrics.metrics,
        summary="Show figures for a monitor",
        description="In the text format of Prometheus: payments by status, how far the chain is "
        "known, gaps, dead letters, requests. Holds no secret and names no payment; whether the "
        "outside may see it is for the proxy in front to say.",
        answers={200: Answer(description="The figures.", media_type=PLAIN)},
    ),
)
