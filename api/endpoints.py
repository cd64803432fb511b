"""Receivers of events: register them, look at them, replace their secrets, let them be.

A secret is derived, never stored: what the ledger keeps of a registration or a rotation is which
secret was shown, and a repetition derives it once more.
"""

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import filters
from api.body import decode, read_json_body
from api.context import Context
from api.errors import Problem
from api.idempotency import Effect, Once, key_of
from api.payments import json_response
from api.webhook_presentation import delivery_body, shown, shown_with_secret
from api.webhook_schema import EndpointPageBody, NewEndpointBody, RotationBody
from indexer.core import ids, receiver
from indexer.core.standard_webhooks import SigningKey
from indexer.errors import Conflict
from indexer.log import get_logger
from store import deliveries, webhook_endpoints
from store.keys import ApiKey
from store.webhook_endpoints import WebhookEndpoint


log = get_logger(__name__)

_PATH: Final = "/api/webhooks/endpoints"


class _Made(msgspec.Struct, frozen=True):
    """What the ledger keeps: of which receiver the secret was shown, and which one."""

    endpoint_id: str
    generation: int


_made = msgspec.json.Decoder(_Made)


async def create(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Registers a receiver and shows its secret."""
    raw = await read_json_body(request)
    prepare = partial(_prepare, context, decode(raw, NewEndpointBody))
    try:
        return await _once(context, request, key, raw, prepare)
    except Conflict:
        # The id is 128 random bits: what does not hold is the bound.
        most = receiver.ENDPOINTS_MAX
        raise Problem(
            409, "too_many_endpoints", f"there are {most} receivers: delete one first"
        ) from None


async def _prepare(context: Context, asked: NewEndpointBody) -> Effect:
    wanted = receiver.new_receiver(
        asked.url,
        asked.event_types,
        asked.description,
        private_networks=context.private_networks,
    )
    id_ = ids.endpoint_id(secrets.token_bytes(ids.BYTES))
    statement = webhook_endpoints.create(
        id=id_,
        url=wanted.url,
        event_types=wanted.event_types,
        description=wanted.description,
        key_id=_newest_key(context).id,
        now=context.now,
        at_most=receiver.ENDPOINTS_MAX,
    )
    return Effect(
        statements=[statement],
        status=201,
        headers={"Location": f"{_PATH}/{id_}"},
        body=msgspec.json.encode(_Made(id_, 1)),
    )


async def rotate(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Gives a receiver its next secret and shows it."""
    endpoint_id = _id_of(request)
    raw = await read_json_body(request)
    overlap_s = receiver.check_overlap(decode(raw, RotationBody).overlap_s)
    prepare = partial(_prepare_rotation, context, endpoint_id, overlap_s)
    try:
        return await _once(context, request, key, raw, prepare)
    except Conflict:
        raise Problem(
            409, "rotated_meanwhile", "another rotation came in between: look before you repeat it"
        ) from None


async def _prepare_rotation(context: Context, endpoint_id: str, overlap_s: int) -> Effect:
    endpoint = await _get(context, endpoint_id)
    statement = webhook_endpoints.rotate(
        endpoint, key_id=_newest_key(context).id, overlap_s=overlap_s, now=context.now
    )
    made = _Made(endpoint_id, endpoint.signer.generation + 1)
    return Effect(statements=[statement], status=200, headers={}, body=msgspec.json.encode(made))


async def _once(
    context: Context,
    request: Request,
    key: ApiKey | None,
    raw: bytes,
    prepare: Callable[[], Awaitable[Effect]],
) -> Response:
    """Does it, once where the request says so, and shows the secret that was made.

    Raises:
        Problem: 409, that secret is not there any more.
        Conflict: the database refused it.
    """
    if "idempotency-key" in request.headers:
        if key is None:
            raise Problem(401, "unauthorized", "an API key is needed")
        once = Once(key.id, f"POST {request.url.path}", key_of(request))
        answer = await context.ledger.answer(once, raw, prepare)
    else:
        effect = await prepare()
        await context.database.write(effect.statements)
        answer = Response(effect.body, effect.status, effect.headers)
    return await _with_secret(context, answer, key)


async def _with_secret(context: Context, answer: Response, key: ApiKey | None) -> Response:
    """The answer to a request that made a secret, out of what the ledger keeps of it."""
    made = _made.decode(bytes(answer.body))
    endpoint = await webhook_endpoints.get(context.database, made.endpoint_id)
    body = None
    if endpoint is not None and endpoint.signer.generation == made.generation:
        keys = context.signing_keys
        body = await shown_with_secret(context.database, endpoint, keys, context.now)
    if body is None:
        raise Problem(
            409, "secret_gone", "this was done, and the receiver or its secret is gone since"
        )
    if "Idempotent-Replayed" not in answer.headers:
        context.wakeups.wake()
        log.info(
            "receiver.secret_made",
            endpoint_id=body.id,
            generation=made.generation,
            api_key_id=key.id if key else None,
        )
    response = json_response(body, answer.status_code)
    for name in ("Location", "Idempotent-Replayed"):
        if name in answer.headers:
            response.headers[name] = answer.headers[name]
    return response


def _newest_key(context: Context) -> SigningKey:
    if not context.signing_keys:
        raise Problem(503, "no_signing_key", "this server has no key to derive secrets from")
    return context.signing_keys[0]


# ----------------------------------------------------------------------------------- as they are


async def listing(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """All of them, the oldest first."""
    filters.parsed(request.query_params, {})
    found = await webhook_endpoints.listing(context.database)
    data = await shown(context.database, found, context.now)
    return json_response(EndpointPageBody(data=data))


async def show(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """One receiver."""
    return await _show(context, _id_of(request))


async def enable(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Sends it events again, those from now on."""
    endpoint_id = _id_of(request)
    await context.database.write([webhook_endpoints.enable(endpoint_id, context.now)])
    return await _changed(context, endpoint_id, "receiver.enabled", key)


async def disable(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Sends it nothing more."""
    endpoint_id = _id_of(request)
    reason = "disabled over the API"
    await context.database.write(webhook_endpoints.disable(endpoint_id, reason, context.now))
    return await _changed(context, endpoint_id, "receiver.disabled", key)


async def delete(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Takes it away for good."""
    endpoint_id = _id_of(request)
    found, *_ = await context.database.write(webhook_endpoints.delete(endpoint_id, context.now))
    if not found:
        raise _no_such_endpoint()
    context.wakeups.wake()
    log.info("receiver.deleted", endpoint_id=endpoint_id, api_key_id=key.id if key else None)
    return Response(status_code=204)


async def test(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """Sends it an event that is about nothing."""
    endpoint = await find(context, request)
    [found] = await context.database.write([deliveries.test(endpoint.id, context.now)])
    if not found:
        raise disabled()
    context.wakeups.wake()
    delivery = await deliveries.get(context.database, found[0][0])
    if delivery is None:  # it was sent, and is past its retention already
        raise Problem(404, "no_such_delivery", "there is no delivery with this id")
    return json_response(delivery_body(delivery, whole=True), 202)


async def find(context: Context, request: Request) -> WebhookEndpoint:
    """The receiver that the path names.

    Raises:
        Problem: 404, there is none.
    """
    return await _get(context, _id_of(request))


def disabled() -> Problem:
    """It is sent nothing as it is."""
    return Problem(409, "endpoint_disabled", "the receiver is disabled: enable it first")


async def _changed(context: Context, endpoint_id: str, event: str, key: ApiKey | None) -> Response:
    response = await _show(context, endpoint_id)
    context.wakeups.wake()
    log.info(event, endpoint_id=endpoint_id, api_key_id=key.id if key else None)
    return response


async def _show(context: Context, endpoint_id: str) -> Response:
    endpoint = await _get(context, endpoint_id)
    [body] = await shown(context.database, [endpoint], context.now)
    return json_response(body)


async def _get(context: Context, endpoint_id: str) -> WebhookEndpoint:
    endpoint = await webhook_endpoints.get(context.database, endpoint_id)
    if endpoint is None:
        raise _no_such_endpoint()
    return endpoint


def _id_of(request: Request) -> str:
    endpoint_id = request.path_params["id"]
    if not isinstance(endpoint_id, str) or not ids.ENDPOINT_ID.fullmatch(endpoint_id):
        raise _no_such_endpoint()
    return endpoint_id


def _no_such_endpoint() -> Problem:
    return Problem(404, "no_such_endpoint", "there is no receiver with this id")
