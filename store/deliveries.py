"""Deliveries: one event for one receiver, and every attempt at it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from store.database import Database, Statement
from store.queries import QUERIES
from store.rows import json_text


class DeliveryState(StrEnum):
    """Where a delivery stands. Failed: given up. Dropped: its receiver is there no more."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try.

    Attributes:
        number: 1, 2, 3 … over the delivery's whole life.
        at: unix seconds.
        status: of the answer; None: there was none.
        problem: why it is no success; None: it is one.
        response: the beginning of the answer's body.
    """

    number: int
    at: int
    duration_ms: int
    status: int | None
    problem: str | None
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one receiver.

    Attributes:
        event_seq: number of the event; None: a test. So are the next four.
        payment_id: whose event it is.
        type: of the event.
        version: of the payment, after the event.
        ordinal: of the event among those of that version.
        attempts: since it was last asked for.
        next_try_at: unix seconds; of one that waits. Not tried yet: when it was asked for.
        ended_at: unix seconds; None: it waits.
        history: every attempt, oldest first; empty where not asked for.
    """

    id: int
    endpoint_id: str
    event_seq: int | None
    payment_id: str | None
    type: str | None
    version: int | None
    ordinal: int | None
    state: DeliveryState
    attempts: int
    next_try_at: int
    created_at: int
    ended_at: int | None
    history: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A delivery that is to be tried now, with all that is sent.

    Attributes:
        attempts: before this one, since it was last asked for.
        tried: attempts before this one, over its whole life.
        event_seq: None: a test, and so are all that follow.
        created_at: unix seconds, when it happened.
        data: JSON text.
        order_id: the merchant's own number of the payment.
    """

    id: int
    attempts: int
    tried: int
    created_at: int
    event_seq: int | None
    payment_id: str | None
    type: str | None
    version: int | None
    ordinal: int | None
    data: str | None
    order_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How deliveries stand, over all receivers.

    Attributes:
        oldest_waiting_at: unix seconds, when the oldest that waits was made; None: none waits.
    """

    waiting: int
    delivered: int
    failed: int
    dropped: int
    oldest_waiting_at: int | None


# --------------------------------------------------------------------------------- what is due


async def due(database: Database, endpoint_id: str, now: int, limit: int) -> list[Due]:
    """What is to be tried now at one receiver: what was not tried yet, then what failed.

    Whatever clock the writer of the event had: what was not tried yet is due at once. Never one
    whose payment has an earlier one waiting there: events of a payment go out in order.
    """
    statement = Statement(QUERIES["webhook_deliveries_due"], (endpoint_id, now, limit))
    [found] = await database.read([statement])
    return [_due(row) for row in found]


async def due_at(database: Database, endpoint_ids: Collection[str]) -> dict[str, int]:
    """When the next one is to be tried at each of these receivers, unix seconds, by its id.

    0: at once, because it was not tried yet. Those at which none waits are left out.
    """
    statement = Statement(QUERIES["webhook_deliveries_next"], (json_text(sorted(endpoint_ids)),))
    [found] = await database.read([statement])
    return dict(found)


def tried(delivery_id: int, attempt: Attempt) -> Statement:
    """Adds an attempt to the record."""
    values = (
        delivery_id, attempt.number, attempt.at, attempt.duration_ms, attempt.status,
        attempt.problem, attempt.response,
    )  # fmt: skip
    return Statement(QUERIES["webhook_attempt_insert"], values)


def delivered(delivery_id: int, now: int) -> Statement:
    """It was received."""
    values = (delivery_id, DeliveryState.DELIVERED, now)
    return Statement(QUERIES["webhook_delivery_end"], values)


def failed(delivery_id: int, now: int) -> Statement:
    """It is given up."""
    return Statement(QUERIES["webhook_delivery_end"], (delivery_id, DeliveryState.FAILED, now))


def again(delivery_id: int, next_try_at: int) -> Statement:
    """It is tried again then."""
    return Statement(QUERIES["webhook_delivery_again"], (delivery_id, next_try_at))


def hasten(endpoint_id: str, now: int) -> Statement:
    """All that waits for a receiver is due now: it is there again.

    The attempt that failed while it was not is given back.
    """
    return Statement(QUERIES["webhook_deliveries_hasten"], (endpoint_id, now))


def give_up(endpoint_id: str, asked_before: int, now: int) -> Statement:
    """What a receiver that is not there has not taken for too long has failed."""
    values = (endpoint_id, asked_before, now)
    return Statement(QUERIES["webhook_deliveries_give_up"], values)


# ------------------------------------------------------------------------------ what is asked for


def redeliver(delivery_id: int, now: int) -> Statement:
    """Sends it once more, as if it had never been tried; returns its id.

    Nothing is returned when there is none, or its receiver is not enabled.
    """
    return Statement(QUERIES["webhook_delivery_redeliver"], (delivery_id, now))


def redeliver_since(endpoint_id: str, since: int, now: int) -> list[Statement]:
    """Sends what a receiver has not taken of the events from that time on (unix seconds).

    Also of those that happened while it was disabled. The last returns how many wait then.
    """
    return [
        Statement(QUERIES["webhook_deliveries_make_up"], (endpoint_id, since, now)),
        Statement(QUERIES["webhook_deliveries_revive"], (endpoint_id, since, now)),
        Statement(QUERIES["webhook_deliveries_waiting_since"], (endpoint_id, since)),
    ]


def test(endpoint_id: str, now: int) -> Statement:
    """A delivery that is about nothing; returns its id, or nothing without such a receiver."""
    return Statement(QUERIES["webhook_delivery_test"], (endpoint_id, now))


def prune(before: int, limit: int) -> Statement:
    """Deletes what ended before that time, with its attempts; returns the ids."""
    return Statement(QUERIES["webhook_deliveries_prune"], (before, limit))


# -------------------------------------------------------------------------------------- reading


async def page(
    database: Database,
    *,
    endpoint_id: str | None = None,
    state: DeliveryState | None = None,
    payment_id: str | None = None,
    before: int | None = None,
    limit: int,
) -> list[Delivery]:
    """Deliveries that fit all filters, the newest first, before the one of that id."""
    name = "webhook_deliveries_page"
    if payment_id is not None:
        name = "webhook_deliveries_page_of_payment"
    elif endpoint_id is not None:
        name = "webhook_deliveries_page_of_endpoint"
    values = (endpoint_id, state, payment_id, before, limit)
    [found] = await database.read([Statement(QUERIES[name], values)])
    return [_delivery(row) for row in found]


async def get(database: Database, delivery_id: int) -> Delivery | None:
    """One delivery with its attempts; None: there is none."""
    found, attempts = await database.read(
        [
            Statement(QUERIES["webhook_delivery_get"], (delivery_id,)),
            Statement(QUERIES["webhook_attempts_of"], (delivery_id,)),
        ]
    )
    return _delivery(found[0], tuple(_attempt(row) for row in attempts)) if found else None


async def last_attempts(database: Database, endpoint_ids: Collection[str]) -> dict[str, Attempt]:
    """The last attempt at each receiver that has one, by its id."""
    statement = Statement(QUERIES["webhook_last_attempts"], (json_text(sorted(endpoint_ids)),))
    [found] = await database.read([statement])
    return {endpoint_id: _attempt(attempt) for endpoint_id, *attempt in found}


async def given_up(database: Database) -> int:
    """How many were given up whose receivers are enabled all the same."""
    [[(count,)]] = await database.read([Statement(QUERIES["webhook_deliveries_given_up"])])
    return int(count)


async def counts(database: Database) -> Counts:
    """How all deliveries stand."""
    [by_state, [(oldest,)]] = await database.read(
        [
            Statement(QUERIES["webhook_deliveries_counts"]),
            Statement(QUERIES["webhook_deliveries_oldest"]),
        ]
    )
    found = dict.fromkeys(map(str, DeliveryState), 0) | dict(by_state)
    return Counts(**found, oldest_waiting_at=oldest)


def _due(row: Sequence[Any]) -> Due:
    (
        id_, attempts, tried_, created_at, event_seq, payment_id, type_, version, ordinal, data,
        order_id,
    ) = row  # fmt: skip
    return Due(
        id=id_,
        attempts=attempts,
        tried=tried_,
        created_at=created_at,
        event_seq=event_seq,
        payment_id=payment_id,
        type=type_,
        version=version,
        ordinal=ordinal,
        data=data,
        order_id=order_id,
    )


def _delivery(row: Sequence[Any], history: tuple[Attempt, ...] = ()) -> Delivery:
    (
        id_, endpoint_id, event_seq, payment_id, type_, version, ordinal, state, attempts,
        next_try_at, created_at, ended_at,
    ) = row  # fmt: skip
    return Delivery(
        id=id_,
        endpoint_id=endpoint_id,
        event_seq=event_seq,
        payment_id=payment_id,
        type=type_,
        version=version,
        ordinal=ordinal,
        state=DeliveryState(state),
        attempts=attempts,
        next_try_at=next_try_at,
        created_at=created_at,
        ended_at=ended_at,
        history=history,
    )


def _attempt(row: Sequence[Any]) -> Attempt:
    number, at, duration_ms, status, problem, response = row
    return Attempt(
        number=number,
        at=at,
        duration_ms=duration_ms,
        status=status,
        problem=problem,
        response=response,
    )
