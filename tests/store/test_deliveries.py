import pytest

from indexer.errors import Conflict
from store import deliveries, events, payments, webhook_endpoints
from store.database import Database, Statement
from store.deliveries import Attempt, Counts, Delivery, DeliveryState, Due
from tests.builders import NOW, make_event, make_payment
from tests.store.sending import (
    due,
    endpoint_id,
    history,
    listed,
    places,
    receiver,
    register,
    tell,
    told,
)


WAITING, DELIVERED, FAILED, DROPPED = DeliveryState
DAY_S = 86_400


def attempt(number: int = 1, *, problem: str | None = None, at: int = NOW) -> Attempt:
    status = 200 if problem is None else 500
    return Attempt(
        number=number, at=at, duration_ms=12, status=status, problem=problem, response="said"
    )


async def run(database: Database, *batch: Statement) -> None:
    await database.write(list(batch))


async def stored(database: Database, delivery_id: int) -> Delivery:
    found = await deliveries.get(database, delivery_id)
    assert found is not None
    return found


# ------------------------------------------------------------ an event and its deliveries


async def test_an_event_and_its_deliveries_are_one_write(database: Database) -> None:
    ids = [await register(database, number) for number in (1, 2, 3)]

    await tell(database, 1)

    found = await listed(database)
    assert sorted(each.endpoint_id for each in found) == ids
    assert {each.event_seq for each in found} == {1}
    for each in found:
        assert (each.state, each.attempts, each.ended_at) == (WAITING, 0, None)
        assert each.next_try_at == each.created_at == NOW
        assert (each.type, each.version, each.ordinal) == ("payment.created", 1, 0)
        assert each.payment_id == make_payment(1).terms.id


async def test_a_write_that_is_refused_leaves_neither_event_nor_delivery(
    database: Database,
) -> None:
    await register(database)
    await tell(database, 1)
    batch = [*told(make_payment(2)), events.append(make_event(make_payment(1)))]

    with pytest.raises(Conflict):
        await database.write(batch)

    assert await events.last_seq(database) == 1
    assert len(await listed(database)) == 1


async def test_a_receiver_is_told_of_the_types_it_asked_for(database: Database) -> None:
    all_types = await register(database, 1)
    one_type = await register(database, 2, event_types=["payment.detected"])
    two = await register(database, 3, event_types=["payment.created", "payment.reverted"])
    others = await register(database, 4, event_types=["payment.settled"])

    await tell(database, 1, count=3)

    types = {
        id_: [each.type for each in await listed(database, id_)]
        for id_ in (all_types, one_type, two, others)
    }
    assert types == {
        all_types: ["payment.created", "payment.detected", "payment.reverted"],
        one_type: ["payment.detected"],
        two: ["payment.created", "payment.reverted"],
        others: [],
    }


async def test_who_is_disabled_or_deleted_gets_no_delivery(database: Database) -> None:
    disabled, deleted, there = [await register(database, number) for number in (1, 2, 3)]
    await run(database, *webhook_endpoints.disable(disabled, "said why", NOW))
    await run(database, *webhook_endpoints.delete(deleted, NOW))

    await tell(database, 1)

    assert [each.endpoint_id for each in await listed(database)] == [there]


async def test_what_happened_before_a_receiver_was_registered_is_not_sent(
    database: Database,
) -> None:
    await tell(database, 1)
    await register(database)

    assert await listed(database) == []


# -------------------------------------------------------------------------- what is due


async def test_what_is_due_has_all_that_is_sent(database: Database) -> None:
    id_ = await register(database)
    payment = make_payment(order_id="order 7")
    [event] = history(payment, 1, at=NOW - 5)
    await run(database, *payments.insert(payment, event))

    [found] = await due(database, id_)

    [event_row] = await events.after(database, 0, limit=10)
    assert found == Due(
        id=found.id,
        attempts=0,
        tried=0,
        created_at=NOW - 5,
        event_seq=1,
        payment_id=payment.terms.id,
        type="payment.created",
        version=1,
        ordinal=0,
        data=event_row.data,
        order_id="order 7",
    )


@pytest.mark.parametrize("apart_s", [-3_600, 3_600])
async def test_what_was_never_tried_is_due_whatever_clock_its_writer_has(
    database: Database, apart_s: int
) -> None:
    id_, there = await register(database, 1), NOW + apart_s
    await tell(database, 1, at=NOW)
    [old] = await due(database, id_)
    await run(database, deliveries.delivered(old.id, NOW))
    await tell(database, 2, at=there)
    await run(database, *webhook_endpoints.disable(id_, "said why", there))
    await tell(database, 3, at=there)
    await run(database, webhook_endpoints.enable(id_, there))
    await run(database, *deliveries.redeliver_since(id_, NOW - 7_200, there))
    await run(database, deliveries.redeliver(old.id, there), deliveries.test(id_, there))

    assert places(await due(database, id_)) == [(1, 1), (2, 1), (3, 1)]
    assert len(await due(database, id_)) == 4, "and the test"
    assert await deliveries.due_at(database, [id_]) == {id_: 0}
    assert [each.next_try_at for each in await listed(database)] == [there] * 4
    assert {(await stored(database, n.id)).next_try_at for n in await listed(database)} == {there}


async def test_what_failed_waits_its_turn_behind_what_was_not_tried_yet(
    database: Database,
) -> None:
    """And in the order in which it is due."""
    id_ = await register(database)
    await tell(database, 1, 2, 3, 4)
    first, second, third, _ = await due(database, id_)
    for each, at in ((third, NOW - 2), (first, NOW - 1), (second, NOW + 1)):
        await run(database, deliveries.again(each.id, at))

    assert places(await due(database, id_)) == [(4, 1), (3, 1), (1, 1)]
    assert places(await due(database, id_, NOW + 1)) == [(4, 1), (3, 1), (1, 1), (2, 1)]


async def test_events_of_a_payment_are_due_one_after_another(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1, 2, count=3)
    order: list[tuple[int, int]] = []

    for _ in range(3):
        found = await due(database, id_)
        order += places(found)
        await run(database, *(deliveries.delivered(each.id, NOW) for each in found))

    assert order == [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]
    assert await due(database, id_) == []


async def test_one_that_failed_holds_up_its_payment_there_and_nothing_else(
    database: Database,
) -> None:
    one, other = await register(database, 1), await register(database, 2)
    await tell(database, 1, 2, count=2)
    first, _ = await due(database, one)

    await run(database, deliveries.again(first.id, NOW + 300))

    assert places(await due(database, one)) == [(2, 1)]
    assert places(await due(database, other)) == [(1, 1), (2, 1)]
    assert places(await due(database, one, NOW + 299)) == [(2, 1)]
    assert (1, 1) in places(await due(database, one, NOW + 300))


@pytest.mark.parametrize("end", [deliveries.delivered, deliveries.failed])
async def test_the_next_one_is_due_when_the_one_before_has_its_end(
    database: Database, end: object
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    [first] = await due(database, id_)

    await run(database, end(first.id, NOW))  # type: ignore[operator]  # a statement's maker

    assert places(await due(database, id_)) == [(1, 2)]


async def test_what_is_made_up_for_later_still_goes_before_what_happened_later(
    database: Database,
) -> None:
    id_ = await register(database, event_types=["payment.detected"])
    await tell(database, 1, count=2)
    await run(
        database,
        Statement("UPDATE webhook_endpoints SET event_types = '[]'"),
        *deliveries.redeliver_since(id_, NOW, NOW),
    )

    assert places(await listed(database)) == [(1, 2), (1, 1)], "the earlier one was made later"
    assert places(await due(database, id_)) == [(1, 1)]


async def test_no_more_is_read_than_asked_for_the_oldest_first(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1, 2, 3)

    assert places(await due(database, id_, limit=2)) == [(1, 1), (2, 1)]


async def test_when_something_is_due_next_does_not_count_what_is_held_back(
    database: Database,
) -> None:
    id_ = await register(database)
    other = await register(database, 2, event_types=["payment.detected"])
    idle = await register(database, 3, event_types=["payment.settled"])
    ids = [id_, other, idle]
    assert await deliveries.due_at(database, ids) == {}
    await tell(database, 1, count=2)
    assert await deliveries.due_at(database, ids) == {id_: 0, other: 0}
    assert await deliveries.due_at(database, [other]) == {other: 0}
    [first] = await due(database, id_)

    await run(database, deliveries.again(first.id, NOW + 300))

    assert await deliveries.due_at(database, ids) == {id_: NOW + 300, other: 0}


async def test_a_receiver_that_is_back_is_sent_everything_at_once(database: Database) -> None:
    one, other = await register(database, 1), await register(database, 2)
    await tell(database, 1, 2)
    for id_ in (one, other):
        await run(
            database, *(deliveries.again(d.id, NOW + DAY_S) for d in await due(database, id_))
        )

    await run(database, deliveries.hasten(one, NOW + 1))

    assert len(await due(database, one, NOW + 1)) == 2
    assert await due(database, other, NOW + 1) == []


# ------------------------------------------------------------------------ attempts and ends


async def test_a_delivery_keeps_every_attempt(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    tries = (attempt(1, problem="answered 500"), attempt(2, at=NOW + 5))

    await run(database, deliveries.tried(found.id, tries[0]), deliveries.again(found.id, NOW + 5))
    [again] = await due(database, id_, NOW + 5)
    assert (again.attempts, again.tried) == (1, 1)
    await run(
        database, deliveries.tried(found.id, tries[1]), deliveries.delivered(found.id, NOW + 5)
    )

    delivery = await stored(database, found.id)
    assert (delivery.state, delivery.attempts, delivery.ended_at) == (DELIVERED, 2, NOW + 5)
    assert delivery.history == tries
    [entry] = await listed(database)
    assert entry.history == ()


async def test_an_attempt_that_two_processes_made_is_kept_once(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)

    for _ in range(2):
        await run(database, deliveries.tried(found.id, attempt()))

    assert len((await stored(database, found.id)).history) == 1


async def test_what_has_ended_does_not_end_again(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    await run(database, deliveries.delivered(found.id, NOW))

    await run(database, deliveries.failed(found.id, NOW + 9), deliveries.again(found.id, NOW + 9))

    delivery = await stored(database, found.id)
    assert (delivery.state, delivery.ended_at, delivery.attempts) == (DELIVERED, NOW, 1)


async def test_what_arrived_after_it_was_dropped_has_been_delivered(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1, 2)
    first, second = await due(database, id_)
    await run(database, *webhook_endpoints.disable(id_, "said why", NOW))

    await run(database, deliveries.delivered(first.id, NOW), deliveries.failed(second.id, NOW))

    assert [each.state for each in await listed(database)] == [DELIVERED, DROPPED]


async def test_what_was_asked_for_too_long_ago_is_given_up(database: Database) -> None:
    one, other = await register(database, 1), await register(database, 2)
    await tell(database, 1, at=NOW - 100)
    await tell(database, 2, at=NOW - 99)

    await run(database, deliveries.give_up(one, NOW - 99, NOW))

    assert [each.state for each in await listed(database, one)] == [FAILED, WAITING]
    assert [each.state for each in await listed(database, other)] == [WAITING, WAITING]


async def test_an_attempt_at_nothing_is_refused(database: Database) -> None:
    with pytest.raises(Conflict):
        await run(database, deliveries.tried(7, attempt()))


# ------------------------------------------------------------------------- asked for again


@pytest.mark.parametrize("state", [DELIVERED, FAILED, DROPPED, WAITING])
async def test_any_delivery_can_be_sent_again_as_if_never_tried(
    database: Database, state: DeliveryState
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    await run(database, deliveries.tried(found.id, attempt()), deliveries.again(found.id, NOW + 99))
    match state:
        case DeliveryState.DELIVERED:
            await run(database, deliveries.delivered(found.id, NOW))
        case DeliveryState.FAILED:
            await run(database, deliveries.failed(found.id, NOW))
        case DeliveryState.DROPPED:
            await run(database, *webhook_endpoints.disable(id_, "said why", NOW))
            await run(database, webhook_endpoints.enable(id_, NOW))
        case _:
            pass

    [rows] = await database.write([deliveries.redeliver(found.id, NOW + 7)])

    assert rows == [(found.id,)]
    delivery = await stored(database, found.id)
    assert (delivery.state, delivery.attempts, delivery.ended_at) == (WAITING, 0, None)
    assert len(delivery.history) == 1, "what was tried stays on record"
    [again] = await due(database, id_, NOW + 7)
    assert (again.id, again.tried) == (found.id, 1)


async def test_nothing_is_sent_again_to_who_is_not_enabled(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    await run(database, *webhook_endpoints.disable(id_, "said why", NOW))

    batch = [
        deliveries.redeliver(found.id, NOW),
        deliveries.redeliver(found.id + 1, NOW),
        deliveries.test(id_, NOW),
        deliveries.test(endpoint_id(9), NOW),
    ]

    assert await database.write(batch) == [[]] * 4
    assert [each.state for each in await listed(database)] == [DROPPED]


async def test_what_was_given_up_and_is_asked_for_again_has_all_its_time(
    database: Database,
) -> None:
    id_ = await register(database)
    await tell(database, 1, at=NOW - DAY_S)
    [found] = await due(database, id_)
    await run(database, deliveries.failed(found.id, NOW), deliveries.redeliver(found.id, NOW))

    await run(database, deliveries.give_up(id_, NOW, NOW))

    assert (await stored(database, found.id)).state is WAITING


async def test_everything_that_was_missed_since_a_time_is_sent(database: Database) -> None:
    """Given up, dropped, while it was disabled: but not what it took, and not what is older."""
    id_ = await register(database, event_types=["payment.created"])
    await tell(database, 1, at=NOW - 50)  # too old
    await tell(database, 2, 3, 4, count=2, at=NOW)
    old, taken, failed, _ = await due(database, id_)
    await run(
        database,
        deliveries.failed(old.id, NOW),
        deliveries.delivered(taken.id, NOW),
        deliveries.failed(failed.id, NOW),
    )
    await run(database, *webhook_endpoints.disable(id_, "said why", NOW))  # the last is dropped
    await tell(database, 5, count=2, at=NOW + 1)
    await run(database, webhook_endpoints.enable(id_, NOW + 2))

    *_, [(count,)] = await database.write(deliveries.redeliver_since(id_, NOW, NOW + 3))

    assert count == 3
    assert sorted(places(await due(database, id_, NOW + 3))) == [(3, 1), (4, 1), (5, 1)]
    states = {places([each])[0][0]: each.state for each in await listed(database)}
    assert states == {1: FAILED, 2: DELIVERED, 3: WAITING, 4: WAITING, 5: WAITING}


async def test_who_is_not_enabled_is_not_made_up_for(database: Database) -> None:
    id_ = await register(database)
    await run(database, *webhook_endpoints.disable(id_, "said why", NOW))
    await tell(database, 1)

    *_, [(count,)] = await database.write(deliveries.redeliver_since(id_, NOW, NOW))

    assert count == 0
    assert await listed(database) == []


async def test_a_test_is_about_nothing(database: Database) -> None:
    id_ = await register(database, event_types=["payment.settled"])
    [[(number,)]] = await database.write([deliveries.test(id_, NOW)])
    await run(database, deliveries.test(id_, NOW))

    first, second = await due(database, id_)

    assert first.id == number != second.id
    assert (first.event_seq, first.payment_id, first.type, first.data) == (None,) * 4
    assert first.created_at == NOW


# ------------------------------------------------------------------------------ pruning


async def test_what_ended_long_ago_is_forgotten_with_its_attempts(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1, 2, 3)
    old, young, _ = await due(database, id_)
    for each, at in ((old, NOW), (young, NOW + 10)):
        await run(database, deliveries.tried(each.id, attempt()), deliveries.delivered(each.id, at))

    [rows] = await database.write([deliveries.prune(NOW + 10, 100)])

    assert rows == [(old.id,)]
    assert places(await listed(database)) == [(2, 1), (3, 1)]
    [left] = await database.read([Statement("SELECT delivery_id FROM webhook_attempts")])
    assert left == [(young.id,)]


async def test_what_waits_is_never_forgotten(database: Database) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    await run(database, deliveries.tried(found.id, attempt(problem="no")))

    assert await database.write([deliveries.prune(NOW + 1_000 * DAY_S, 100)]) == [[]]


async def test_so_many_are_forgotten_at_once_the_oldest_first(database: Database) -> None:
    id_ = await register(database)
    await tell(database, *range(1, 6))
    found = await due(database, id_)
    await run(database, *(deliveries.delivered(d.id, NOW - n) for n, d in enumerate(found)))

    [rows] = await database.write([deliveries.prune(NOW + 1, 2)])

    assert sorted(rows) == [(found[3].id,), (found[4].id,)]


async def test_what_was_forgotten_is_not_sent_a_second_time_by_itself(
    database: Database,
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    [found] = await due(database, id_)
    await run(database, deliveries.delivered(found.id, NOW))
    await run(database, deliveries.prune(NOW + 1, 100))
    await tell(database, 2)

    assert places(await due(database, id_)) == [(2, 1)]


# ------------------------------------------------------------------------------- listing


async def test_a_page_has_what_fits_every_filter_newest_first(database: Database) -> None:
    one, other = await register(database, 1), await register(database, 2)
    await tell(database, 1, 2, count=2)
    found = await due(database, one)
    await run(database, *(deliveries.delivered(each.id, NOW) for each in found))
    ids = [each.id for each in await listed(database)][::-1]
    payment_id = make_payment(2).terms.id

    async def page(**filters: object) -> list[Delivery]:
        return await deliveries.page(database, **({"limit": 100} | filters))  # type: ignore[arg-type]  # filters by name

    assert [each.id for each in await page()] == ids
    assert [each.id for each in await page(limit=3)] == ids[:3]
    assert [each.id for each in await page(before=ids[2])] == ids[3:]
    assert {each.endpoint_id for each in await page(endpoint_id=other)} == {other}
    assert {each.id for each in await page(state=DELIVERED)} == {each.id for each in found}
    assert {each.payment_id for each in await page(payment_id=payment_id)} == {payment_id}
    [exact] = await page(endpoint_id=one, state=DELIVERED, payment_id=payment_id)
    assert places([exact]) == [(2, 1)]
    assert (
        await page(endpoint_id=one, state=DELIVERED, payment_id=payment_id, before=exact.id) == []
    )


async def test_what_never_was_is_not_found(database: Database) -> None:
    assert await deliveries.get(database, 1) is None


async def test_a_receiver_is_shown_with_its_last_attempt(database: Database) -> None:
    one, other, silent = [await register(database, number) for number in (1, 2, 3)]
    await tell(database, 1, 2)
    first, second = await due(database, one)
    await run(
        database,
        deliveries.tried(first.id, attempt(1, problem="first")),
        deliveries.tried(second.id, attempt(1, problem="second")),
        deliveries.tried(second.id, attempt(2, problem="third")),
    )
    [only, _] = await due(database, other)
    await run(database, deliveries.tried(only.id, attempt()))

    found = await deliveries.last_attempts(database, [one, other, silent])

    assert found == {one: attempt(2, problem="third"), other: attempt()}


async def test_how_all_stand_is_counted(database: Database) -> None:
    assert await deliveries.counts(database) == Counts(
        waiting=0, delivered=0, failed=0, dropped=0, oldest_waiting_at=None
    )
    one, other = await register(database, 1), await register(database, 2)
    for number in range(1, 4):
        await tell(database, number, at=NOW + number)
    first, second, _ = await due(database, one, NOW + 9)
    await run(database, deliveries.delivered(first.id, NOW), deliveries.failed(second.id, NOW))
    await run(database, *webhook_endpoints.disable(other, "said why", NOW))

    assert await deliveries.counts(database) == Counts(
        waiting=1, delivered=1, failed=1, dropped=3, oldest_waiting_at=NOW + 3
    )
    endpoint = await receiver(database, one)
    assert (endpoint.waiting, endpoint.failed) == (1, 1)
    assert await deliveries.given_up(database) == 1
    await run(database, *webhook_endpoints.disable(one, "said why", NOW))
    assert await deliveries.given_up(database) == 0, "nobody waits for those of a disabled one"
