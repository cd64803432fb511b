"""Payments: create, show, list, cancel, draw.

Nothing is answered before it is durable: the payment, its event and the answer to its
idempotency key are one write.
"""

import re
import secrets
from functools import partial
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import cards, filters
from api.body import decode, read_json_body
from api.context import Context
from api.errors import FieldError, Problem, invalid, unavailable
from api.idempotency import Effect, Once, key_of
from api.limits import CANCEL_TRIES_MAX, STORE_RETRY_AFTER_S
from api.presentation import payment_body, url_to_pay
from api.schema import NewPaymentBody, PageBody
from indexer.core import creation, events, settle
from indexer.core.creation import NewPayment
from indexer.core.payment import AnyPayment
from indexer.core.types import Provider, Status
from indexer.errors import Conflict
from indexer.log import get_logger
from store import everything, payments
from store.everything import AnyRecord
from store.keys import ApiKey
from store.payments import Record


log = get_logger(__name__)

_ID: Final = re.compile(r"pay_[0-9a-z]{26}", re.ASCII)
_ID_BYTES: Final = 16
_REFERENCE_BYTES: Final = 32
_CREATE_ROUTE: Final = "POST /api/pay"

#: The policy of a picture: nothing in it is executed or fetched, whatever it says.
_PICTURE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


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
        response = await context.ledger.answer(once, raw, partial(_prepare, context, raw))
    except Conflict:
        # The id is 128 random bits: what is taken is the reference that the caller brought.
        taken = FieldError("reference", "another payment has it, and a reference is used once")
        raise invalid(taken, status=409, code="reference_taken") from None
    if "Idempotent-Replayed" not in response.headers:
        context.wakeups.wake()
        path = response.headers["Location"]
        log.info("payment.created", payment_id=path.rpartition("/")[2], api_key_id=key.id)
    return response


async def _prepare(context: Context, raw: bytes) -> Effect:
    """The payment that the body asks for, ready to be stored."""
    body = decode(raw, NewPaymentBody)
    asked = _asked(body)
    if body.provider == Provider.PAYMOB:
        customer = cards.customer_of(body.customer)
        return await cards.prepare(context.cards, context.policy, asked, customer, now=context.now)
    if body.customer is not None:
        raise invalid(FieldError("customer", "is for payments by card: leave it out"))
    return await _prepare_on_chain(context, asked)


async def _prepare_on_chain(context: Context, asked: NewPayment) -> Effect:
    keys = creation.keys_to_read(asked, context.policy)
    accounts = await context.accounts.read(keys)
    rent_exempt_minimum = await context.accounts.rent_exempt_minimum()
    now = context.now
    payment, warnings = creation.create(
        asked,
        context.policy,
        accounts,
        rent_exempt_minimum=rent_exempt_minimum,
        id=creation.payment_id(secrets.token_bytes(_ID_BYTES)),
        fresh_reference=creation.reference(secrets.token_bytes(_REFERENCE_BYTES)),
        now=now,
    )
    body = payment_body(Record(payment=payment), private=True)
    for warning in warnings:
        log.warning("payment.warning", payment_id=payment.terms.id, warning=warning)
    return Effect(
        statements=payments.insert(payment, events.created(payment, now)),
        status=201,
        headers={
            "Content-Type": "application/json",
            "Location": f"/api/pay/{payment.terms.id}",
        },
        body=msgspec.json.encode(body),
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
    if not isinstance(payment_id, str) or not _ID.fullmatch(payment_id):
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
    for _ in range(CANCEL_TRIES_MAX):
        record = await find(context, request)
        if record.payment.state.status is Status.CANCELED:
            return json_response(payment_body(record, private=True))
        canceled = _canceled(record, context.now)
        batch = everything.save(
            record,
            canceled,
            events=events.of_change(record.payment, canceled, context.now),
            now=context.now,
        )
        try:
            await context.database.write(batch)
        except Conflict:
            continue  # it has changed since it was read: decide anew
        context.wakeups.wake()
        log.info("payment.canceled", payment_id=canceled.terms.id, version=canceled.version)
        after = everything.changed(record, canceled)
        return json_response(payment_body(after, private=True))
    raise unavailable("payment_busy", "the payment kept changing; try again", STORE_RETRY_AFTER_S)


def _canceled(record: AnyRecord, now: int) -> AnyPayment:
    status = record.payment.state.status
    if status is not Status.PENDING:
        raise Problem(
            409, "not_cancelable", f"only a pending payment can be canceled, this one is {status}"
        )
    return settle.cancel(record.payment, now, decided=record.decided)


async def qr_svg(context: Context, request: Request, _key: ApiKey | None) -> Response:
    """The Solana Pay URL, or that of the page to pay on by card, as a picture."""
    record = await find(context, request)
    url = url_to_pay(record)
    if url is None:
        raise Problem(404, "no_code", "there is no page on which this payment can be paid")
    picture = await context.qr_codes.svg(url)
    headers = {"Content-Security-Policy": _PICTURE_POLICY}
    return Response(picture, headers=headers, media_type="image/svg+xml")
