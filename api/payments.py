"""Payments: create, show, list, cancel, draw.

Nothing is answered before it is durable: the payment, its event and the answer to its
idempotency key are one write.
"""

from functools import partial
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import cards, filters, offers
from api.body import decode, read_json_body
from api.context import Context
from api.errors import FieldError, Problem, invalid, unavailable
from api.idempotency import Effect, Once, key_of
from api.limits import STORE_RETRY_AFTER_S
from api.offers import Made
from api.presentation import payment_body, url_to_pay
from api.schema import NewPaymentBody, PageBody
from indexer.core.creation import NewPayment
from indexer.core.ids import PAYMENT_ID
from indexer.core.types import Provider, Status
from indexer.errors import Conflict
from indexer.log import get_logger
from store import everything
from store.everything import AnyRecord
from store.keys import ApiKey


log = get_logger(__name__)

_CREATE_ROUTE: Final = "POST /api/pay"

#: The policy of a picture: nothing in it is executed or fetched, whatever it says.
_PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def json_response(body: msgspec.Struct, status: int = 200) -> Response:
    """A struct as JSON."""
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def create(context: Context, request: Request, key: ApiKey | None) -> Response:
    """Stores a new payment, or answers as it did the first time."""
    if key is None:
        raise Problem(401, "unauthorized", "an API key is needed")
    once = Once(key.id, _CREATE_ROUTE, key_of(request))
    raw = await read_json_body(request)
    try:
        prepare = partial(_prepare, context, key.watch_key, raw)
        response = await context.ledger.answer(once, raw, prepare)
    except Conflict:
        # The id is 128 random bits: what is taken is the reference that the caller brought.
        taken = FieldError("reference", "another payment has it, and a reference is used once")
        raise invalid(taken, status=409, code="reference_taken") from None
    if "Idempotent-Replayed" not in response.headers:
        context.wakeups.wake()
        path = response.headers["Location"]
        log.info("payment.created", payment_id=path.rpartition("/")[2], api_key_id=key.id)
    return response


async def _prepare(context: Context, reserved: str | None, raw: bytes) -> Effect:
    """The payment that the body asks for, ready to be stored, with the caller's watch key."""
    body = decode(raw, NewPaymentBody)
    asked, policy = _asked(body), await context.watch_keys.policy(reserved)
    if body.provider == Provider.PAYMOB:
        customer = cards.customer_of(body.customer)
        made = await cards.prepare(context.cards, policy, asked, customer, now=context.now)
        return _effect(made)
    if body.customer is not None:
        raise invalid(FieldError("customer", "is for payments by card: leave it out"))
    return _effect(await offers.make(context.accounts, policy, asked, clock=context.clock))


def _effect(made: Made) -> Effect:
    """What is stored, and the answer to its idempotency key."""
    payment_id = made.record.payment.terms.id
    for warning in made.warnings:
        log.warning("payment.warning", payment_id=payment_id, warning=warning)
    return Effect(
        statements=made.statements,
        status=201,
        headers={"Content-Type": "application/json", "Location": f"/api/pay/{payment_id}"},
        body=msgspec.json.encode(payment_body(made.record, private=True)),
    )


def _asked(body: NewPaymentBody) -> NewPayment:
    if body.provider not in (None, *Provider):
        message = "must be " + " or ".join(f'"{provider.value}"' for provider in Provider)
        raise invalid(FieldError("provider", message))
    return NewPayment(
        amount=body.amount,
        token=body.token,
        recipient=body.recipient,
        label=body.label,
        message=body.message,
        memo=body.memo,
        expires_in_s=body.expires_in_s,
        metadata=body.metadata or {},
        order_id=body.order_id,
        reference=body.reference,
    )


async def show(context: Context, request: Request, key: ApiKey | None) -> Response:
    """One payment; with an API key also what is the merchant's own."""
    record = await find(context, request)
    await context.checks.ask(record.payment, context.now)
    return json_response(payment_body(record, private=key is not None))


async def find(context: Context, request: Request) -> AnyRecord:
    """The payment that the path names.

    Raises:
        Problem: 404, there is none.
    """
    payment_id = payment_id_of(request)
    record = await everything.get(context.database, payment_id)
    if record is None:
        raise no_such_payment()
    return record


def payment_id_of(request: Request) -> str:
    """The id in the path, which has the form of one.

    Raises:
        Problem: 404, it has not.
    """
    payment_id = request.path_params["id"]
    if not isinstance(payment_id, str) or not PAYMENT_ID.fullmatch(payment_id):
        raise no_such_payment()
    return payment_id


def no_such_payment() -> Problem:
    """Says nothing of whether the id was close."""
    return Problem(404, "no_such_payment", "there is no payment with this id")


async def listing(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """A page of payments, newest first."""
    asked = filters.parse(request.query_params)
    # One more than asked tells whether there is another page.
    records = await everything.page(
        context.database,
        status=asked.status,
        order_id=asked.order_id,
        reference=asked.reference,
        created_after=asked.created_after,
        before=asked.before,
        limit=asked.limit + 1,
    )
    shown = records[: asked.limit]
    next_cursor = None
    if len(records) > asked.limit:
        last = shown[-1].payment.terms
        next_cursor = filters.cursor(last.created_at, last.id)
    data = [payment_body(record, private=True) for record in shown]
    return json_response(PageBody(data=data, next_cursor=next_cursor))


async def cancel(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """Takes the offer back, while nobody has begun to pay. A repetition changes nothing."""
    payment_id = payment_id_of(request)
    try:
        taken_back = await offers.take_back(context.database, payment_id, clock=context.clock)
    except Conflict:
        detail = "the payment kept changing; try again"
        raise unavailable("payment_busy", detail, STORE_RETRY_AFTER_S) from None
    if taken_back is None:
        raise no_such_payment()
    record, is_new = taken_back
    status = record.payment.state.status
    if status is not Status.CANCELED:
        raise Problem(
            409, "not_cancelable", f"only a pending payment can be canceled, this one is {status}"
        )
    if is_new:
        context.wakeups.wake()
        log.info("payment.canceled", payment_id=payment_id, version=record.payment.version)
    return json_response(payment_body(record, private=True))


async def qr_svg(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """The Solana Pay URL, or that of the page to pay on by card, as a picture."""
    record = await find(context, request)
    url = url_to_pay(record)
    if url is None:
        raise Problem(404, "no_code", "there is no page on which this payment can be paid")
    picture = await context.qr_codes.svg(url)
    # The one thing that is meant to be drawn into other people's pages.
    headers = {
        "Content-Security-Policy": _PICTURE_POLICY,
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return Response(picture, headers=headers, media_type="image/svg+xml")
