"""The rows of the route table about receivers of events, and what is sent to them."""

from typing import Final

from api import deliveries, endpoints
from api.auth import needs
from api.calls import Answer, Call, Parameter
from api.limits import IDEMPOTENCY_KEY_LENGTH_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from api.schema import IDEMPOTENCY_KEY_SCHEMA
from api.webhook_presentation import DELIVERY_PREFIX
from api.webhook_schema import (
    EXAMPLE_DELIVERY_ID,
    EXAMPLE_ENDPOINT_ID,
    DeliveryBody,
    DeliveryPageBody,
    EndpointBody,
    EndpointPageBody,
    NewEndpointBody,
    RedeliveredBody,
    RedeliveryBody,
    RotationBody,
    SecretEndpointBody,
)
from indexer.core.ids import ENDPOINT_ID
from indexer.core.receiver import ENDPOINTS_MAX
from store.deliveries import DeliveryState


_SCOPE: Final = needs("webhooks")
_PATH: Final = "/api/webhooks/endpoints"
_ID: Final = Parameter(
    name="id",
    where="path",
    description="The receiver's id.",
    schema={"type": "string", "pattern": f"^{ENDPOINT_ID.pattern}$"},
    required=True,
    example=EXAMPLE_ENDPOINT_ID,
)
_DELIVERY_ID: Final = Parameter(
    name="id",
    where="path",
    description="The delivery's id.",
    schema={"type": "string", "pattern": f"^{DELIVERY_PREFIX}[1-9][0-9]{{0,17}}$"},
    required=True,
    example=EXAMPLE_DELIVERY_ID,
)
_IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    where="header",
    description="A string that no other request of yours has, such as a UUID: 1 to "
    f"{IDEMPOTENCY_KEY_LENGTH_MAX} visible ASCII characters. Without one, a repetition is another "
    "request.",
    schema=IDEMPOTENCY_KEY_SCHEMA,
    example='"8e03978e-40d5-43e8-bc93-6894a57f9324"',
)
_REPLAYED: Final = {"Idempotent-Replayed": "`true` when this was done by an earlier request."}
_JSON_PROBLEMS: Final = (400, 408, 413, 415, 422)

_ENDPOINTS: Final = (
    Call(
        method="POST",
        path=_PATH,
        name="createEndpoint",
        access=_SCOPE,
        handler=endpoints.create,
        summary="Register a receiver of events",
        description="From now on each event is posted there, signed with the `secret` that is "
        "shown here, and again only when it is replaced. What happened before is sent with "
        f"`redeliverEvents`. At most {ENDPOINTS_MAX} receivers. A repetition with the same "
        "`Idempotency-Key` and body answers with the same receiver and secret, unless either is "
        "gone by then, which is 409.",
        parameters=(_IDEMPOTENCY_KEY,),
        body=NewEndpointBody,
        answers={
            201: Answer(
                description="It is registered.",
                body=SecretEndpointBody,
                headers={"Location": "The receiver's path.", **_REPLAYED},
            )
        },
        problems=(*_JSON_PROBLEMS, 409),
    ),
    Call(
        method="GET",
        path=_PATH,
        name="listEndpoints",
        access=_SCOPE,
        handler=endpoints.listing,
        summary="List the receivers",
        description="All of them, the oldest first.",
        answers={200: Answer(description="The receivers.", body=EndpointPageBody)},
        problems=(422,),
    ),
    Call(
        method="GET",
        path=f"{_PATH}/{{id}}",
        name="getEndpoint",
        access=_SCOPE,
        handler=endpoints.show,
        summary="Show a receiver",
        description="How it stands: what waits for it, what came of the last attempt. Never its "
        "secret.",
        parameters=(_ID,),
        answers={200: Answer(description="The receiver.", body=EndpointBody)},
        problems=(404,),
    ),
    Call(
        method="DELETE",
        path=f"{_PATH}/{{id}}",
        name="deleteEndpoint",
        access=_SCOPE,
        handler=endpoints.delete,
        summary="Take a receiver away",
        description="For good. What waits for it is dropped; what was sent stays on record.",
        parameters=(_ID,),
        answers={204: Answer(description="It is gone.", media_type=None)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path=f"{_PATH}/{{id}}/rotate",
        name="rotateSecret",
        access=_SCOPE,
        handler=endpoints.rotate,
        summary="Replace a receiver's secret",
        description="The one before signs too for `overlap_s`, and the one before that no longer. "
        "`{}` takes a day. A repetition with the same `Idempotency-Key` and body "
        "answers with the same secret, unless it was replaced again by then, which is 409.",
        parameters=(_ID, _IDEMPOTENCY_KEY),
        body=RotationBody,
        answers={
            200: Answer(
                description="The receiver with its new secret.",
                body=SecretEndpointBody,
                headers=_REPLAYED,
            )
        },
        problems=(*_JSON_PROBLEMS, 404, 409),
    ),
    Call(
        method="POST",
        path=f"{_PATH}/{{id}}/enable",
        name="enableEndpoint",
        access=_SCOPE,
        handler=endpoints.enable,
        summary="Send to a receiver again",
        description="Events from now on. Those that it missed are sent with `redeliverEvents`.",
        parameters=(_ID,),
        answers={200: Answer(description="The receiver.", body=EndpointBody)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path=f"{_PATH}/{{id}}/disable",
        name="disableEndpoint",
        access=_SCOPE,
        handler=endpoints.disable,
        summary="Send nothing to a receiver",
        description="What waits for it is dropped.",
        parameters=(_ID,),
        answers={200: Answer(description="The receiver.", body=EndpointBody)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path=f"{_PATH}/{{id}}/test",
        name="testEndpoint",
        access=_SCOPE,
        handler=endpoints.test,
        summary="Send a receiver a test",
        description="An event `webhook.test`, signed as all others. What came of it is in "
        "`getDelivery`.",
        parameters=(_ID,),
        answers={202: Answer(description="It will be sent.", body=DeliveryBody)},
        problems=(404, 409),
    ),
    Call(
        method="GET",
        path=f"{_PATH}/{{id}}/deliveries",
        name="listDeliveries",
        access=_SCOPE,
        handler=deliveries.listing,
        summary="List what was sent to a receiver",
        description="And what is to be sent, the newest first.",
        parameters=(
            _ID,
            Parameter(
                name="state",
                where="query",
                description="Only those that stand so.",
                schema={"type": "string", "enum": [str(state) for state in DeliveryState]},
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
        answers={200: Answer(description="A page of deliveries.", body=DeliveryPageBody)},
        problems=(404, 422),
    ),
    Call(
        method="POST",
        path=f"{_PATH}/{{id}}/redeliver",
        name="redeliverEvents",
        access=_SCOPE,
        handler=deliveries.redeliver_since,
        summary="Send a receiver what it missed",
        description="All events of its types since a time that it has not taken: those that "
        "failed, were dropped, or happened while it was disabled or not registered yet. Each "
        "keeps its `webhook-id`.",
        parameters=(_ID,),
        body=RedeliveryBody,
        answers={202: Answer(description="They will be sent.", body=RedeliveredBody)},
        problems=(*_JSON_PROBLEMS, 404, 409),
    ),
)

_DELIVERIES: Final = (
    Call(
        method="GET",
        path="/api/webhooks/deliveries/{id}",
        name="getDelivery",
        access=_SCOPE,
        handler=deliveries.show,
        summary="Show a delivery",
        description="With each attempt.",
        parameters=(_DELIVERY_ID,),
        answers={200: Answer(description="The delivery.", body=DeliveryBody)},
        problems=(404,),
    ),
    Call(
        method="POST",
        path="/api/webhooks/deliveries/{id}/redeliver",
        name="redeliver",
        access=_SCOPE,
        handler=deliveries.redeliver,
        summary="Send a delivery again",
        description="Whatever came of it, with the same `webhook-id`. One that waits is sent soon.",
        parameters=(_DELIVERY_ID,),
        answers={202: Answer(description="It will be sent.", body=DeliveryBody)},
        problems=(404, 409),
    ),
)

CALLS: Final[tuple[Call, ...]] = (*_ENDPOINTS, *_DELIVERIES)
