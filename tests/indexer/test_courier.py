"""What is due at one receiver arrives there: in order, signed, as often as it has to be sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from standardwebhooks.webhooks import Webhook
from structlog.testing import capture_logs

from indexer import courier as courier_module
from indexer.core.delivery import ATTEMPTS_MAX, DELAYS_S
from indexer.core.standard_webhooks import event_id, sign, signing_key
from indexer.courier import AT_ONCE
from indexer.errors import SourceRejected, SourceUnavailable, StoreUnavailable
from indexer.sources.outside import Reply
from store import deliveries, webhook_endpoints
from store.database import Database, Rows, Statement, open_database
from store.deliveries import Attempt, DeliveryState
from store.migrate import migrate
from tests.builders import NOW, make_payment
from tests.indexer.posting import (
    OK,
    PATIENCE_S,
    Clock,
    Script,
    courier_of,
    ended,
    running,
    secret,
    stored,
    tried,
    until,
)
from tests.store.sending import KEY, URL, due, listed, receiver, register, tell


WAITING, DELIVERED, FAILED, DROPPED = DeliveryState
DEAD = SourceUnavailable("no connection: Connection refused")
OTHER_KEY = signing_key("a signing key that was not there before")


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{tmp_path}/axiom.db")
    await migrate(database)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "PAUSE_S", 0.01)
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(courier_module, "PROBE_PAUSE_S_MAX", 0.02)


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ----------------------------------------------------------------------------- what is sent


async def test_an_event_is_sent_signed_and_noted(database: Database, clock: Clock) -> None:
    id_ = await register(database)
    await tell(database, 1, at=NOW - 60)
    script = Script(Reply(status=204, body=b"thank you"))
    async with running(await courier_of(database, id_, script, clock)):
        [delivery] = await ended(database, 1)

    [sent] = script.sent
    webhook_id = event_id(make_payment(1).terms.id, 1, 0)
    assert sent.url == URL
    assert sent.headers == {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(NOW),
        "webhook-signature": sign([secret(id_)], id=webhook_id, timestamp=NOW, body=sent.body),
    }
    assert (sent.json["type"], sent.json["timestamp"]) == (
        "payment.created",
        "2026-11-22T19:59:00Z",
    )
    assert sent.json["data"]["payment"]["id"] == make_payment(1).terms.id
    assert (delivery.state, delivery.ended_at, delivery.attempts) == (DELIVERED, NOW, 1)
    [attempt] = (await stored(database, delivery.id)).history
    assert attempt == Attempt(
        number=1,
        at=NOW,
        duration_ms=attempt.duration_ms,
        status=204,
        problem=None,
        response="thank you",
    )


async def test_an_event_is_sent_at_once_by_a_machine_whose_clock_is_an_hour_slow(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2, at=NOW + 3_600)
    script = Script(OK, OK)
    async with running(await courier_of(database, id_, script, clock)):
        found = await ended(database, 2)

    assert [each.state for each in found] == [DELIVERED] * 2
    assert {each.json["timestamp"] for each in script.sent} == {"2026-11-22T21:00:00Z"}
    assert [each.json["type"] for each in script.sent] == ["payment.created", "payment.detected"]


async def test_a_test_is_sent_as_one(database: Database, clock: Clock) -> None:
    id_ = await register(database)
    [[(number,)]] = await database.write([deliveries.test(id_, NOW)])
    script = Script()
    async with running(await courier_of(database, id_, script, clock)):
        await ended(database, 1)

    [sent] = script.sent
    assert sent.id == f"test_{number}"
    assert sent.json == {"type": "webhook.test", "timestamp": "2026-11-22T20:00:00Z", "data": {}}


async def test_the_same_event_has_the_same_id_and_body_each_time_and_another_signature(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    script = Script(DEAD, OK)
    async with running(await courier_of(database, id_, script, clock)):
        [delivery] = await listed(database)
        await tried(database, delivery.id)
        clock.now += 5
        await ended(database, 1)

    first, second = script.sent
    assert (first.id, first.body) == (second.id, second.body)
    assert second.headers["webhook-timestamp"] == str(NOW + 5)
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"x" * 5_000, "x" * 1_024),
        (b"a\x00b\x1b[31mc\x7fd\x9fe", "a\ufffdb\ufffd[31mc\ufffdd\ufffde"),
        (b"line\n\tline", "line\n\tline"),
        ("\u202egnp.exe".encode(), "\ufffdgnp.exe"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
    ids=["long", "control characters", "lines", "direction", "no text"],
)
async def test_of_an_answer_its_beginning_is_kept_as_text(
    database: Database, clock: Clock, body: bytes, kept: str
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    async with running(
        await courier_of(database, id_, Script(Reply(status=200, body=body)), clock)
    ):
        [delivery] = await ended(database, 1)

    [attempt] = (await stored(database, delivery.id)).history
    assert attempt.response == kept


# -------------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(database: Database, clock: Clock, status: int) -> None:
    id_ = await register(database)
    await tell(database, 1)
    async with running(await courier_of(database, id_, Script(Reply(status=status)), clock)):
        [delivery] = await ended(database, 1)

    assert delivery.state is DELIVERED


@pytest.mark.parametrize(
    ("answer", "status", "problem", "pause_s"),
    [
        (Reply(status=199), 199, "answered 199", 5),
        (Reply(status=300), 300, "answered 300", 5),
        (Reply(status=302), 302, "answered 302", 5),
        (Reply(status=400), 400, "answered 400", 5),
        (Reply(status=401), 401, "answered 401", 5),
        (Reply(status=404), 404, "answered 404", 5),
        (Reply(status=500), 500, "answered 500", 5),
        (Reply(status=429, retry_after_s=600.0), 429, "answered 429", 600),
        (Reply(status=503, retry_after_s=1.0), 503, "answered 503", 5),
        (DEAD, None, str(DEAD), 5),
        (SourceRejected("its address is not public"), None, "its address is not public", 5),
    ],
    ids=repr,
)
async def test_everything_else_is_tried_again_by_the_schedule(
    database: Database,
    clock: Clock,
    answer: Reply | Exception,
    status: int | None,
    problem: str,
    pause_s: int,
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    script = Script(answer, OK)
    async with running(await courier_of(database, id_, script, clock)):
        [delivery] = await listed(database)
        found = await tried(database, delivery.id)
        assert (found.state, found.attempts) == (WAITING, 1)
        assert found.next_try_at == NOW + pause_s
        [attempt] = found.history
        assert (attempt.status, attempt.problem) == (status, problem)

        clock.now += pause_s
        await ended(database, 1)

    assert len(script.sent) == 2
    assert (await stored(database, delivery.id)).state is DELIVERED


async def test_after_the_last_attempt_it_has_failed_and_the_next_event_goes(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    first, second = await listed(database)
    script = Script(*[Reply(status=500)] * ATTEMPTS_MAX, OK)
    async with running(await courier_of(database, id_, script, clock)):
        for number, pause_s in enumerate(DELAYS_S, start=1):
            found = await tried(database, first.id, number)
            assert (found.state, found.next_try_at) == (WAITING, clock.now + pause_s)
            clock.now += pause_s
        await ended(database, 2)

    failed = await stored(database, first.id)
    assert (failed.state, failed.attempts) == (FAILED, ATTEMPTS_MAX)
    assert [attempt.number for attempt in failed.history] == [*range(1, ATTEMPTS_MAX + 1)]
    assert (await stored(database, second.id)).state is DELIVERED
    assert script.places == [(1, 1)] * ATTEMPTS_MAX + [(1, 2)]


async def test_chance_spreads_what_failed_together(database: Database, clock: Clock) -> None:
    id_ = await register(database)
    await tell(database, 1, 2)
    ids = [each.id for each in await listed(database)]
    draws = iter((0.0, 1.0))
    courier = await courier_of(
        database, id_, Script(Reply(status=500)), clock, draw=lambda: next(draws) * 100
    )
    async with running(courier):
        found = [await tried(database, each) for each in ids]

    assert sorted(each.next_try_at - NOW for each in found) == [5, 55]


# ----------------------------------------------------------------------- order, concurrency


async def test_events_of_a_payment_go_one_after_another_those_of_others_beside_them(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, *range(1, 2 * AT_ONCE + 1), count=4)
    script = Script()
    script.gate.clear()
    async with running(await courier_of(database, id_, script, clock)):
        await until(lambda: script.at_once == AT_ONCE)
        assert {version for _, version in script.places} == {1}
        script.gate.set()
        await ended(database, 2 * AT_ONCE * 4)

    assert script.at_once_max == AT_ONCE
    for number in range(1, 2 * AT_ONCE + 1):
        assert [version for of, version in script.places if of == number] == [1, 2, 3, 4]
    assert len(script.sent) == 2 * AT_ONCE * 4, "nothing was sent twice"


async def test_one_that_ends_while_it_is_looked_for_is_not_sent_again(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read as waiting may have ended before the answer is looked at."""
    id_ = await register(database)
    await tell(database, 1)
    script = Script()
    script.gate.clear()
    read, seen_waiting = database.read, asyncio.Event()

    async def slow(batch: Sequence[Statement]) -> list[Rows]:
        found = await read(batch)
        if script.sent and "next_try_at <= ?2" in batch[0].sql and found[0]:
            seen_waiting.set()
            await until(lambda: not script.at_once)
            await ended(database, 1)
            await asyncio.sleep(0.05)  # and its end is known to the courier as well
        return found

    monkeypatch.setattr(database, "read", slow)
    async with running(await courier_of(database, id_, script, clock)):
        await until(seen_waiting.is_set)
        script.gate.set()
        await ended(database, 1)
        await tell(database, 2)
        await ended(database, 2)

    assert script.places == [(1, 1), (2, 1)]


async def test_one_that_is_held_back_is_not_asked_for_all_the_time(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    first, _ = await listed(database)
    reads, read = 0, database.read

    async def counting(batch: Sequence[Statement]) -> list[Rows]:
        nonlocal reads
        reads += 1
        return await read(batch)

    courier = await courier_of(database, id_, Script(Reply(status=500)), clock)
    task = asyncio.create_task(courier.run())  # nobody stirs it
    await tried(database, first.id)
    monkeypatch.setattr(database, "read", counting)
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait({task})

    assert reads <= 10


# ---------------------------------------------------------------------------------- secrets


async def test_between_two_secrets_both_sign_until_the_old_one_ends(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    before = await receiver(database, id_)
    await database.write([webhook_endpoints.rotate(before, key_id=KEY.id, overlap_s=60, now=NOW)])
    script = Script()
    async with running(await courier_of(database, id_, script, clock)):
        for number, at in enumerate((NOW, NOW + 59, NOW + 60), start=1):
            clock.now = at
            await tell(database, number, at=NOW)
            await ended(database, number)

    for sent, generations in zip(script.sent, ((2, 1), (2, 1), (2,)), strict=True):
        at = int(sent.headers["webhook-timestamp"])
        secrets = [secret(id_, generation) for generation in generations]
        signature = sign(secrets, id=sent.id, timestamp=at, body=sent.body)
        assert sent.headers["webhook-signature"] == signature


async def test_the_secret_is_that_of_the_moment_of_sending(
    database: Database, clock: Clock
) -> None:
    """A delivery may have been read long before its turn comes."""
    id_ = await register(database)
    await tell(database, *range(1, AT_ONCE + 2))
    script = Script()
    script.gate.clear()
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        await until(lambda: len(script.sent) == AT_ONCE)
        rotation = webhook_endpoints.rotate(courier.endpoint, key_id=KEY.id, overlap_s=0, now=NOW)
        await database.write([rotation])
        courier.endpoint = await receiver(database, id_)
        script.gate.set()
        await ended(database, AT_ONCE + 1)

    last = script.sent[-1]
    signature = sign([secret(id_, 2)], id=last.id, timestamp=NOW, body=last.body)
    assert last.headers["webhook-signature"] == signature


async def test_what_was_read_already_is_not_sent_without_its_signing_key(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, *range(1, AT_ONCE + 2))
    script = Script()
    script.gate.clear()
    courier = await courier_of(database, id_, script, clock)
    async with running(courier):
        await until(lambda: len(script.sent) == AT_ONCE)
        rotation = webhook_endpoints.rotate(
            courier.endpoint, key_id=OTHER_KEY.id, overlap_s=60, now=NOW
        )
        await database.write([rotation])
        courier.endpoint = await receiver(database, id_)
        script.gate.set()
        await ended(database, AT_ONCE)
        await until(lambda: not courier._under_way)

    assert len(script.sent) == AT_ONCE
    assert (await listed(database))[-1].state is WAITING


async def test_without_its_signing_key_a_delivery_waits_and_the_problem_is_told(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    script = Script()
    courier = await courier_of(database, id_, script, clock, keys=(OTHER_KEY,))
    async with running(courier):
        await until(lambda: courier.problem)
        said = str(courier.problem)
        assert KEY.id in said
        assert id_ in said
        assert [(each.state, each.attempts) for each in await listed(database)] == [(WAITING, 0)]

        rotation = webhook_endpoints.rotate(
            courier.endpoint, key_id=OTHER_KEY.id, overlap_s=60, now=NOW
        )
        await database.write([rotation])
        courier.endpoint = await receiver(database, id_)
        await ended(database, 1)
        assert courier.problem is None

    [sent] = script.sent
    signature = sign([secret(id_, 2, OTHER_KEY)], id=sent.id, timestamp=NOW, body=sent.body)
    assert sent.headers["webhook-signature"] == signature, "the one that is there signs alone"


async def test_a_courier_without_its_key_rests(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    reads, read = 0, database.read

    async def counting(batch: Sequence[Statement]) -> list[Rows]:
        nonlocal reads
        reads += 1
        return await read(batch)

    courier = await courier_of(database, id_, Script(), clock, keys=())
    monkeypatch.setattr(database, "read", counting)
    task = asyncio.create_task(courier.run())
    courier.stir()
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait({task})

    assert reads <= 10


async def test_the_published_verifier_accepts_what_is_sent_now(database: Database) -> None:
    """At the time of now, which that verifier insists on."""
    import time  # noqa: PLC0415 - nothing else here has a real clock

    id_ = await register(database)
    await tell(database, 1)
    script = Script()
    async with running(await courier_of(database, id_, script, time.time)):
        await ended(database, 1)

    [sent] = script.sent
    assert Webhook(secret(id_)).verify(sent.body, dict(sent.headers)) == sent.json


# ---------------------------------------------------------------------------- store, faults


async def test_an_end_that_cannot_be_stored_is_stored_later_and_sent_once(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    write, failures = database.write, iter(range(3))

    async def fail_first(batch: Sequence[Statement]) -> list[Rows]:
        if next(failures, None) is not None:
            raise StoreUnavailable("disk full")
        return await write(batch)

    monkeypatch.setattr(database, "write", fail_first)
    script = Script()
    async with running(await courier_of(database, id_, script, clock)):
        await ended(database, 2)

    assert script.places == [(1, 1), (1, 2)]


async def test_a_store_that_cannot_be_read_costs_time_only(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    read, is_down, refused = database.read, True, asyncio.Event()

    async def fail_while_down(batch: Sequence[Statement]) -> list[Rows]:
        if is_down and "next_try_at" in batch[0].sql and "page" not in batch[0].sql:
            refused.set()
            raise StoreUnavailable("locked")
        return await read(batch)

    courier = await courier_of(database, id_, Script(), clock)
    monkeypatch.setattr(database, "read", fail_while_down)
    async with running(courier):
        await until(refused.is_set)
        is_down = False
        await ended(database, 1)


async def test_one_that_was_forgotten_while_it_was_under_way_disturbs_nothing(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1)
    script = Script()
    script.gate.clear()
    async with running(await courier_of(database, id_, script, clock)):
        await until(lambda: script.at_once)
        await database.write(
            [*webhook_endpoints.disable(id_, "said why", NOW), deliveries.prune(NOW + 1, 10)]
        )
        assert await listed(database) == []
        await database.write([webhook_endpoints.enable(id_, NOW)])
        script.gate.set()
        await tell(database, 2)
        await ended(database, 1)

    assert script.places == [(1, 1), (2, 1)]


async def test_a_process_that_dies_before_it_noted_the_answer_sends_the_same_again(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    script = Script()
    script.gate.clear()
    async with running(await courier_of(database, id_, script, clock)):
        await until(lambda: script.at_once)
    assert len(await due(database, id_)) == 1

    script.gate.set()
    async with running(await courier_of(database, id_, script, clock)):
        await ended(database, 2)

    assert script.places == [(1, 1), (1, 1), (1, 2)]
    assert script.sent[0].id == script.sent[1].id


async def test_a_fault_of_ours_ends_the_process_and_not_every_one_after_it(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database)
    await tell(database, 1, count=2)
    for number, pause_s in enumerate((*DELAYS_S, 0), start=1):
        courier = await courier_of(database, id_, Script(KeyError("a bug")), clock)
        with pytest.raises(ExceptionGroup) as raised:
            async with asyncio.timeout(PATIENCE_S):
                await courier.run()
        assert raised.group_contains(KeyError)
        [first, _] = await listed(database)
        assert first.attempts == number
        clock.now += pause_s

    assert first.state is FAILED
    assert (await stored(database, first.id)).history[-1].problem == "a fault of ours: KeyError"
    script = Script()
    async with running(await courier_of(database, id_, script, clock)):
        await ended(database, 2)
    assert script.places == [(1, 2)]


async def test_a_log_line_names_the_host_and_nothing_that_is_secret(
    database: Database, clock: Clock
) -> None:
    id_ = await register(database, url="https://user.example:8443/canary-path?canary-query=1")
    await tell(database, 1)
    with capture_logs() as logs:
        script = Script(Reply(status=500, body=b"canary-answer"), OK)
        async with running(await courier_of(database, id_, script, clock)):
            [delivery] = await listed(database)
            await tried(database, delivery.id)
            clock.now += 5
            await ended(database, 1)
            await until(lambda: len(logs) >= 2)

    assert [line["event"] for line in logs] == ["webhook.not_delivered", "webhook.delivered"]
    assert {(line["endpoint_id"], line["host"]) for line in logs} == {(id_, "user.example")}
    assert [line["status"] for line in logs] == [500, 200]
    assert "canary" not in repr(logs)
    assert "whsec" not in repr(logs)
    assert "v1," not in repr(logs)
