from dataclasses import replace

import pytest

from api.limits import WEBHOOK_BYTES_MAX, WEBHOOK_HEADER_CHARS_MAX
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.errors import Conflict
from indexer.inbox import PAGE_BYTES_MAX
from store import webhook_events
from store.database import Database, Rows, Statement
from store.webhook_events import Arrived, Outcome, WebhookEvent
from tests.builders import NOW, make_payment
from tests.store.keeping import create


HELIUS, QUICKNODE, PAYMOB = WebhookSource
WAITING, DONE, IGNORED, REFUSED, FAILED, UNAUTHENTICATED = WebhookVerdict

ARRIVED = Arrived(
    source=HELIUS,
    kind="transactions",
    dedupe_key="aa",
    nonce=None,
    body=b'[{"signature":"5"}]\x00\xff',
    headers={"content-type": "application/json"},
    address="192.0.2.7",
)


def numbered(number: int, source: WebhookSource = HELIUS) -> Arrived:
    return replace(ARRIVED, source=source, dedupe_key=f"{number:064x}")


async def receive(
    database: Database, arrived: Arrived, now: int = NOW, outcome: Outcome | None = None
) -> tuple[int, int, str]:
    [[row]] = await database.write([webhook_events.receive(arrived, now, outcome)])
    id_, repeats, dedupe_key = row
    return id_, repeats, dedupe_key


async def run(database: Database, *batch: Statement) -> list[Rows]:
    return await database.write(list(batch))


async def stored(database: Database, event_id: int) -> WebhookEvent:
    event = await webhook_events.get(database, event_id)
    assert event is not None
    return event


async def waiting(database: Database, now: int = NOW, limit: int = 100) -> list[int]:
    return [event.id for event in await webhook_events.waiting(database, HELIUS, now, limit)]


async def page(database: Database, limit: int = 100, **filters: object) -> list[int]:
    found = await webhook_events.page(database, limit=limit, **filters)  # type: ignore[arg-type]  # filters by name
    return [entry.id for entry in found]


# --------------------------------------------------------------------------------- what arrives


async def test_what_arrives_waits_as_it_came(database: Database) -> None:
    event_id, repeats, dedupe_key = await receive(database, ARRIVED)

    assert (repeats, dedupe_key) == (0, "aa")
    event = await stored(database, event_id)
    assert event == WebhookEvent(
        id=event_id,
        source=HELIUS,
        kind="transactions",
        dedupe_key="aa",
        nonce=None,
        verdict=WAITING,
        detail=None,
        headers={"content-type": "application/json"},
        address="192.0.2.7",
        repeats=0,
        attempts=0,
        next_try_at=NOW,
        received_at=NOW,
        updated_at=NOW,
        body_bytes=len(ARRIVED.body),
        payment_ids=(),
        body=ARRIVED.body,
    )
    assert await webhook_events.waiting(database, HELIUS, NOW, 10) == [event]


async def test_the_largest_body_that_a_door_takes_is_stored_and_read(database: Database) -> None:
    """On a libSQL server as well, with headers as long as they may be, and as many as are read."""
    headers = {f"header-{n}": "v" * WEBHOOK_HEADER_CHARS_MAX for n in range(30)}
    bodies = [bytes([n]) * WEBHOOK_BYTES_MAX for n in range(3)]
    for n, body in enumerate(bodies):
        await receive(database, replace(ARRIVED, dedupe_key=str(n), headers=headers, body=body))

    found = await webhook_events.waiting(database, HELIUS, NOW, 9, bytes_max=PAGE_BYTES_MAX)

    assert [each.body for each in found] == bodies[: PAGE_BYTES_MAX // WEBHOOK_BYTES_MAX]
    assert len(found) > 1


async def test_the_same_event_again_is_counted_and_changes_nothing_else(
    database: Database,
) -> None:
    first, _, _ = await receive(database, ARRIVED)
    before = await stored(database, first)
    other = replace(ARRIVED, kind="other", body=b"other", address="198.51.100.1", nonce="n")

    for repeats in (1, 2):
        assert await receive(database, other, NOW + repeats) == (first, repeats, "aa")

    assert await stored(database, first) == replace(before, repeats=2, updated_at=NOW + 2)


async def test_an_event_that_comes_again_after_its_end_is_not_processed_again(
    database: Database,
) -> None:
    event_id, _, _ = await receive(database, ARRIVED)
    await run(database, *webhook_events.finish(event_id, Outcome(verdict=DONE), NOW))

    await receive(database, ARRIVED, NOW + 1)

    assert (await stored(database, event_id)).verdict is DONE
    assert await waiting(database, NOW + 10) == []


async def test_a_key_belongs_to_its_source(database: Database) -> None:
    ids = {(await receive(database, replace(ARRIVED, source=each)))[0] for each in WebhookSource}

    assert len(ids) == 3


async def test_a_nonce_of_another_event_shows_and_stores_nothing(database: Database) -> None:
    first = replace(ARRIVED, source=QUICKNODE, nonce="n1")
    event_id, _, _ = await receive(database, first)
    before = await stored(database, event_id)

    found = await receive(database, replace(first, dedupe_key="bb"), NOW + 1)

    assert found == (event_id, 0, "aa")
    assert await stored(database, event_id) == before
    assert await page(database) == [event_id]


async def test_a_nonce_of_another_event_shows_also_when_the_event_is_known(
    database: Database,
) -> None:
    first = replace(ARRIVED, source=QUICKNODE, nonce="n1")
    second = replace(first, dedupe_key="bb", nonce="n2")
    await receive(database, first)
    second_id, _, _ = await receive(database, second)

    assert await receive(database, replace(first, nonce="n2")) == (second_id, 0, "bb")
    assert await receive(database, first) == (second_id - 1, 1, "aa")
    assert await receive(database, replace(first, nonce="n3")) == (second_id - 1, 2, "aa")


async def test_events_without_a_nonce_do_not_share_one(database: Database) -> None:
    ids = {(await receive(database, numbered(number)))[0] for number in range(3)}

    assert len(ids) == 3


async def test_what_needs_no_processing_arrives_with_its_verdict(database: Database) -> None:
    outcome = Outcome(verdict=REFUSED, detail="owner: is 7, not 8")
    event_id, _, _ = await receive(database, ARRIVED, NOW, outcome)

    event = await stored(database, event_id)
    assert (event.verdict, event.detail, event.next_try_at) == (
        REFUSED,
        "owner: is 7, not 8",
        None,
    )
    assert await waiting(database) == []


@pytest.mark.parametrize("column", ["kind", "dedupe_key", "nonce", "body", "headers"])
async def test_what_came_in_never_changes(database: Database, column: str) -> None:
    event_id, _, _ = await receive(database, ARRIVED)

    with pytest.raises(Conflict):
        await run(
            database,
            Statement(f"UPDATE webhook_events SET {column} = ? WHERE id = ?", ("x", event_id)),  # noqa: S608 - names of the cases above
        )


# ----------------------------------------------------------------------------- what becomes of it


@pytest.mark.parametrize("verdict", [DONE, IGNORED, REFUSED, FAILED])
async def test_an_end_says_what_became_of_it_and_of_whom_it_was(
    database: Database, verdict: WebhookVerdict
) -> None:
    first, second = make_payment(1), make_payment(2)
    await create(database, first, second)
    event_id, _, _ = await receive(database, ARRIVED)
    ids = (second.terms.id, first.terms.id)
    outcome = Outcome(verdict=verdict, detail="so", payment_ids=ids)

    await run(database, *webhook_events.finish(event_id, outcome, NOW + 5))
    await run(database, *webhook_events.finish(event_id, outcome, NOW + 9))

    event = await stored(database, event_id)
    assert (event.verdict, event.detail, event.payment_ids) == (verdict, "so", tuple(sorted(ids)))
    assert (event.attempts, event.next_try_at, event.updated_at) == (1, None, NOW + 5)
    assert await waiting(database, NOW + 100) == []


async def test_what_has_ended_does_not_end_otherwise(database: Database) -> None:
    event_id, _, _ = await receive(database, ARRIVED)
    await run(database, *webhook_events.finish(event_id, Outcome(verdict=DONE), NOW))

    again = webhook_events.again(event_id, attempts=7, next_try_at=NOW, detail="x", now=NOW)
    await run(database, *webhook_events.finish(event_id, Outcome(verdict=FAILED), NOW), again)

    event = await stored(database, event_id)
    assert (event.verdict, event.attempts, event.detail) == (DONE, 1, None)


async def test_what_is_put_off_waits_until_then(database: Database) -> None:
    event_id, _, _ = await receive(database, ARRIVED)
    again = webhook_events.again(
        event_id, attempts=3, next_try_at=NOW + 30, detail="no answer", now=NOW + 2
    )
    await run(database, again)

    assert await waiting(database, NOW + 29) == []
    assert await waiting(database, NOW + 30) == [event_id]
    event = await stored(database, event_id)
    assert (event.attempts, event.detail, event.updated_at) == (3, "no answer", NOW + 2)


async def test_what_waits_comes_in_order_and_without_what_is_in_hand(database: Database) -> None:
    ids = [(await receive(database, numbered(number)))[0] for number in range(4)]
    await run(
        database,
        webhook_events.again(ids[0], attempts=1, next_try_at=NOW + 1, detail=None, now=NOW),
    )

    assert await waiting(database, NOW) == ids[1:]
    assert await waiting(database, NOW + 1) == [*ids[1:], ids[0]], "put off means behind them"
    assert await waiting(database, NOW + 1, 2) == ids[1:3]
    rest = await webhook_events.waiting(database, HELIUS, NOW + 1, 2, excluding={ids[0], ids[2]})
    assert [event.id for event in rest] == [ids[1], ids[3]]


async def test_only_so_many_bytes_are_read_together(database: Database) -> None:
    bodies = [b"x" * 60, b"x" * 30, b"x" * 11, b"x"]
    ids = [
        (await receive(database, replace(numbered(number), body=body)))[0]
        for number, body in enumerate(bodies)
    ]

    for bytes_max, expected in ((1, ids[:1]), (90, ids[:2]), (100, ids[:2]), (102, ids)):
        found = await webhook_events.waiting(database, HELIUS, NOW, 9, bytes_max=bytes_max)
        assert [event.id for event in found] == expected


async def test_what_waits_of_others_is_not_among_it(database: Database) -> None:
    await receive(database, numbered(1, QUICKNODE))

    assert await waiting(database) == []
    [event] = await webhook_events.waiting(database, QUICKNODE, NOW, 9)
    assert event.source is QUICKNODE


@pytest.mark.parametrize("verdict", [DONE, IGNORED, REFUSED, FAILED])
async def test_what_has_ended_can_be_processed_again(
    database: Database, verdict: WebhookVerdict
) -> None:
    payment = make_payment()
    await create(database, payment)
    event_id, _, _ = await receive(database, ARRIVED)
    outcome = Outcome(verdict=verdict, detail="so", payment_ids=(payment.terms.id,))
    await run(database, *webhook_events.finish(event_id, outcome, NOW))

    assert await run(database, webhook_events.reopen(event_id, NOW + 9)) == [[(event_id,)]]

    event = await stored(database, event_id)
    assert (event.verdict, event.attempts, event.detail) == (WAITING, 0, None)
    assert await waiting(database, NOW + 9) == [event_id]


async def test_what_waits_or_was_never_authentic_is_not_opened(database: Database) -> None:
    waits, _, _ = await receive(database, ARRIVED)
    await run(database, sample())
    sampled = waits + 1
    assert (await stored(database, sampled)).verdict is UNAUTHENTICATED

    found = await run(
        database, *(webhook_events.reopen(id_, NOW) for id_ in (waits, sampled, 999_999))
    )

    assert found == [[], [], []]


# ---------------------------------------------------------------------------------- turned away


def sample(hour: int = 1, count: int = 1, address: str = "a", detail: str = "d") -> Statement:
    return webhook_events.sample(
        HELIUS, hour, count=count, address=address, detail=detail, now=NOW + hour
    )


async def test_what_was_turned_away_is_one_row_for_each_hour(database: Database) -> None:
    await run(database, sample(count=2), sample(2), sample(count=1_000, address="b", detail="e"))

    [second, first] = await webhook_events.page(database, limit=10)
    assert (first.repeats, first.address, first.detail) == (1_002, "a", "e")
    assert (second.repeats, second.address, second.detail) == (1, "a", "d")
    assert {first.verdict, second.verdict} == {UNAUTHENTICATED}
    assert (await stored(database, first.id)).body == b""
    assert await waiting(database, NOW * 2) == []


# -------------------------------------------------------------------------------------- looking


async def test_the_audit_trail_is_filtered_and_turned_page_by_page(database: Database) -> None:
    payment, other = make_payment(1), make_payment(2)
    await create(database, payment, other)
    sources = [HELIUS, PAYMOB, HELIUS, QUICKNODE, HELIUS]
    ids = []
    for number, source in enumerate(sources):
        event_id, _, _ = await receive(database, numbered(number, source), NOW + number)
        ids.append(event_id)
    a, b, c, d, e = ids
    done = Outcome(verdict=DONE, payment_ids=(payment.terms.id,))
    await run(
        database,
        *webhook_events.finish(b, done, NOW),
        *webhook_events.finish(c, done, NOW),
        *webhook_events.finish(d, Outcome(verdict=IGNORED), NOW),
    )

    assert await page(database) == [e, d, c, b, a]
    assert await page(database, 2) == [e, d]
    assert await page(database, 2, before=d) == [c, b]
    assert await page(database, source=HELIUS) == [e, c, a]
    assert await page(database, source=HELIUS, before=e) == [c, a]
    assert await page(database, verdict=DONE) == [c, b]
    assert await page(database, verdict=DONE, source=PAYMOB) == [b]
    assert await page(database, verdict=DONE, before=c) == [b]
    assert await page(database, since=NOW + 1) == [e, d, c, b]
    assert await page(database, until=NOW + 3) == [c, b, a]
    assert await page(database, since=NOW + 1, until=NOW + 3) == [c, b]
    assert await page(database, since=NOW + 1, until=NOW + 3, source=PAYMOB) == [b]
    assert await page(database, since=NOW + 1, verdict=WAITING, before=e) == []
    assert await page(database, 1, since=NOW, before=e) == [d]
    assert await page(database, since=NOW + 5) == []
    assert await page(database, until=NOW) == []
    assert await page(database, payment_id=payment.terms.id) == [c, b]
    assert await page(database, payment_id=payment.terms.id, before=c) == [b]
    assert await page(database, payment_id=payment.terms.id, source=HELIUS) == [c]
    assert await page(database, payment_id=payment.terms.id, verdict=IGNORED) == []
    assert await page(database, payment_id=payment.terms.id, since=NOW + 2) == [c]
    assert await page(database, payment_id=payment.terms.id, until=NOW + 2) == [b]
    assert await page(database, payment_id=other.terms.id) == []


async def test_a_time_is_found_also_when_the_clock_went_back(database: Database) -> None:
    times = [NOW + 5, NOW, NOW + 9, NOW + 1]
    ids = [
        (await receive(database, numbered(number), time))[0] for number, time in enumerate(times)
    ]

    assert await page(database, since=NOW + 1) == [ids[3], ids[2], ids[0]]
    assert await page(database, until=NOW + 5) == [ids[3], ids[1]]


async def test_nothing_is_found_where_nothing_is(database: Database) -> None:
    assert await webhook_events.get(database, 1) is None
    assert await page(database) == []
    assert await page(database, since=1, until=2) == []
    assert set((await webhook_events.counts(database)).values()) == {0}


async def test_events_are_counted_by_verdict(database: Database) -> None:
    ids = [(await receive(database, numbered(number)))[0] for number in range(3)]
    await run(database, *webhook_events.finish(ids[0], Outcome(verdict=DONE), NOW))
    await run(database, sample(count=50))

    counts = await webhook_events.counts(database)

    assert counts == dict.fromkeys(WebhookVerdict, 0) | {WAITING: 2, DONE: 1, UNAUTHENTICATED: 1}


# ------------------------------------------------------------------------------------- retention


async def test_old_events_are_forgotten_but_for_those_that_wait(database: Database) -> None:
    payment = make_payment()
    await create(database, payment)
    ids = [(await receive(database, numbered(number), NOW + number))[0] for number in range(4)]
    done = Outcome(verdict=DONE, payment_ids=(payment.terms.id,))
    for id_ in (ids[0], ids[2]):
        await run(database, *webhook_events.finish(id_, done, NOW))
    await run(database, *webhook_events.finish(ids[3], done, NOW))

    [gone] = await run(database, webhook_events.prune(NOW + 3))

    assert sorted(id_ for (id_,) in gone) == [ids[0], ids[2]]
    assert await page(database) == [ids[3], ids[1]]
    assert await page(database, payment_id=payment.terms.id) == [ids[3]]


async def test_forgetting_takes_a_bounded_number_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_events, "PRUNED_MAX", 2)
    await run(database, *(sample(hour) for hour in range(5)))

    removed = [len((await run(database, webhook_events.prune(NOW * 2)))[0]) for _ in range(4)]

    assert removed == [2, 2, 1, 0]
