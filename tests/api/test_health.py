from typing import Any

import pytest

from indexer.core.ranges import Slots
from indexer.core.types import WebhookVerdict
from indexer.errors import StoreUnavailable
from store import (
    coverage,
    cursors,
    dead_letters,
    deliveries,
    gaps,
    health,
    watch_keys,
    webhook_endpoints,
    webhook_events,
)
from store.cursors import Frontier
from store.database import Statement
from store.dead_letters import DeadLetter
from store.figures import Figures
from store.gaps import GapReason
from store.watch_keys import Purpose
from store.webhook_events import Outcome
from tests.api.running import NOW, WATCH_KEY, Api
from tests.indexer.receiving import arrive
from tests.instructions import key, signature
from tests.store.sending import register


async def well(api: Api, *extra: Statement) -> None:
    """An indexer that runs, and what else a case says."""
    await api.database.write(
        [
            health.report("indexer", None, NOW),
            health.report("rpc", None, NOW),
            cursors.advance(Frontier(key=WATCH_KEY, slot=7, block_time=NOW - 13, updated_at=NOW)),
            *extra,
        ]
    )


async def reasons(api: Api) -> tuple[int, str, list[tuple[str, str]]]:
    status, body = await api.get("/readyz")
    said = [(reason["component"], reason["problem"]) for reason in body["reasons"]]
    return status, body["status"], said


async def test_a_process_that_answers_is_alive(api: Api) -> None:
    assert await api.get("/livez") == (200, {"status": "ok"})


async def test_with_an_indexer_that_runs_it_is_ready(api: Api) -> None:
    await well(api)

    status, body = await api.get("/readyz")

    assert status == 200
    assert body == {
        "status": "ready",
        "reasons": [],
        "frontiers": [
            {"key": WATCH_KEY, "slot": 7, "block_time": "2026-11-22T19:59:47Z", "age_s": 13}
        ],
        "gaps": [],
    }


async def test_a_frontier_without_a_time_has_no_age(api: Api) -> None:
    frontier = Frontier(key=WATCH_KEY, slot=8, block_time=0, updated_at=NOW)
    await well(api)
    await api.database.write([Statement("DELETE FROM cursors"), cursors.advance(frontier)])

    _, body = await api.get("/readyz")

    assert body["frontiers"] == [{"key": WATCH_KEY, "slot": 8, "block_time": None, "age_s": None}]


async def test_before_the_indexer_ran_it_is_not_ready(api: Api) -> None:
    assert await reasons(api) == (
        503,
        "unready",
        [
            ("indexer", "the indexer is not running"),
            ("frontier", "nothing of the chain has been read yet"),
        ],
    )


async def test_an_indexer_that_stopped_is_noticed(api: Api) -> None:
    await well(api)
    api.clock.now = NOW + 30
    assert (await reasons(api))[0] == 200

    api.clock.now = NOW + 31
    status, body = await api.get("/readyz")

    assert status == 503
    assert body["reasons"] == [
        {
            "component": "indexer",
            "problem": "the indexer is not running",
            "since": "2026-11-22T20:00:00Z",
        }
    ]


async def test_without_notifications_it_is_only_degraded(api: Api) -> None:
    await well(api, health.report("pubsub:0", "no slot for 5 s", NOW))

    assert await reasons(api) == (200, "degraded", [("pubsub:0", "no slot for 5 s")])


async def test_an_endpoint_that_is_behind_only_degrades(api: Api) -> None:
    await well(api, health.report("rpc:1", "40 s behind", NOW))

    assert await reasons(api) == (200, "degraded", [("rpc:1", "40 s behind")])


async def test_a_chain_that_stands_still_is_not_ready(api: Api) -> None:
    await well(api, health.report("chain", "stands still at slot 7", NOW))

    assert await reasons(api) == (503, "unready", [("chain", "stands still at slot 7")])


async def test_an_open_gap_is_shown_until_it_is_closed(api: Api) -> None:
    pruned = gaps.note(WATCH_KEY, Slots(1, 2), GapReason.PRUNED, NOW - 9)
    await well(api, gaps.note(WATCH_KEY, Slots(8, 17), GapReason.START, NOW - 5), pruned)

    status, body = await api.get("/readyz")

    assert (status, body["status"]) == (200, "degraded")
    assert [reason["problem"] for reason in body["reasons"]] == [
        "10 slots in which something may have been missed will be swept",
        "2 slots in which something may have been missed are kept by no endpoint",
    ]
    assert body["gaps"][1] == {
        "key": WATCH_KEY,
        "first_slot": 8,
        "last_slot": 17,
        "reason": "start",
        "since": "2026-11-22T19:59:55Z",
    }

    await api.database.write([gaps.close_up_to(WATCH_KEY, 17, NOW)])
    left = [("gaps", "2 slots in which something may have been missed are kept by no endpoint")]
    assert await reasons(api) == (200, "degraded", left)

    await api.database.write(
        [*coverage.add(WATCH_KEY, Slots(1, 17), NOW), gaps.close_pruned(WATCH_KEY, NOW)]
    )
    assert await reasons(api) == (200, "ready", [])


async def test_what_a_part_complains_of_is_passed_on_with_its_time(api: Api) -> None:
    await well(api, health.report("rpc", "no endpoint answers", NOW - 5))
    await api.database.write([health.report("rpc", "no endpoint answers", NOW)])

    status, body = await api.get("/readyz")

    assert (status, body["status"]) == (503, "unready")
    assert body["reasons"] == [
        {"component": "rpc", "problem": "no endpoint answers", "since": "2026-11-22T19:59:55Z"}
    ]


async def test_the_last_word_of_a_part_that_is_gone_does_not_count(api: Api) -> None:
    await well(api, health.report("pubsub:7", "closed", NOW - 31))

    assert (await reasons(api))[0] == 200


async def test_a_frontier_that_stands_still_is_noticed(api: Api) -> None:
    await well(api)
    api.clock.now = NOW + 61
    await api.database.write([health.report("indexer", None, NOW + 61)])

    assert await reasons(api) == (
        503,
        "unready",
        [("frontier", "the frontier has not moved for 61 s")],
    )


async def test_of_several_watch_keys_the_one_that_is_behind_speaks_for_all(api: Api) -> None:
    east = Frontier(key=key("east"), slot=5, block_time=NOW - 99, updated_at=NOW - 61)
    await watch_keys.add(api.database, key("east"), "east", Purpose.SHARED, now=NOW - 99)
    await well(api, cursors.advance(east))

    _, body = await api.get("/readyz")

    assert [(each["key"], each["slot"]) for each in body["frontiers"]] == sorted(
        [(WATCH_KEY, 7), (key("east"), 5)]
    )
    assert await reasons(api) == (
        503,
        "unready",
        [("frontier", "the frontier has not moved for 61 s")],
    )


@pytest.mark.parametrize(("age_s", "said"), [(60, []), (61, ["frontier"])])
async def test_a_watch_key_in_use_is_read_within_a_minute(
    api: Api, age_s: int, said: list[str]
) -> None:
    await watch_keys.add(api.database, key("east"), "east", Purpose.SHARED, now=NOW - age_s)
    await well(api)

    _, _, found = await reasons(api)

    assert [component for component, _ in found] == said
    assert all(
        problem == "nothing of the watch key 'east' has been read yet" for _, problem in found
    )


async def test_a_retired_watch_key_that_nobody_may_pay_by_is_not_missed(api: Api) -> None:
    await watch_keys.add(api.database, key("old"), "old", Purpose.SHARED, now=NOW - 999)
    await watch_keys.retire(api.database, "old", now=NOW - 998)
    await well(api)

    assert await reasons(api) == (200, "ready", [])


async def test_dead_letters_degrade_but_do_not_take_the_api_out(api: Api) -> None:
    letter = DeadLetter(
        signature=signature("odd"),
        key=WATCH_KEY,
        slot=7,
        reason="malformed",
        detail="no such shape",
        payload=b"{",
        attempts=1,
        next_try_at=None,
        created_at=NOW,
        updated_at=NOW,
    )
    await well(api, dead_letters.park(letter))

    assert await reasons(api) == (
        200,
        "degraded",
        [("dead_letters", "1 transaction could not be examined and is set aside")],
    )


@pytest.mark.parametrize(
    "part", ["inbox", "callbacks", "cards", "deliveries", "helius", "retention"]
)
async def test_what_stands_beside_the_chain_only_degrades(api: Api, part: str) -> None:
    await well(api, health.report(part, "does not work", NOW))

    assert await reasons(api) == (200, "degraded", [(part, "does not work")])


async def test_replicas_that_fail_only_degrade(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await well(api)
    failing = Figures(replicas_failing=["one:8080", "two:8080"])
    monkeypatch.setattr(api.database, "_figures", lambda: failing)

    problem = "one:8080, two:8080: no answer that is new enough; others are read instead"
    assert await reasons(api) == (200, "degraded", [("replicas", problem)])


async def test_a_part_that_nobody_named_is_not_done_without(api: Api) -> None:
    await well(api, health.report("inboxes", "does not work", NOW))

    assert (await reasons(api))[:2] == (503, "unready")


async def test_webhooks_that_were_given_up_degrade_until_somebody_looked(api: Api) -> None:
    receiver = await register(api.database)
    await well(api)
    event_ids = [await arrive(api.database, now=NOW, name=name) for name in ("one", "two")]
    failed = Outcome(verdict=WebhookVerdict.FAILED, detail="", payment_ids=())
    for event_id in event_ids:
        await api.database.write(webhook_events.finish(event_id, failed, NOW))
    [[(delivery_id,)]] = await api.database.write([deliveries.test(receiver, NOW)])
    await api.database.write([deliveries.failed(delivery_id, NOW)])

    assert await reasons(api) == (
        200,
        "degraded",
        [
            ("webhook_events", "2 webhooks could not be processed and are set aside"),
            ("webhook_deliveries", "1 webhook could not be delivered and is given up"),
        ],
    )

    await api.database.write([webhook_events.reopen(event_id, NOW) for event_id in event_ids])
    await api.database.write(webhook_endpoints.disable(receiver, "gone", NOW))
    assert await reasons(api) == (200, "ready", [])


@pytest.mark.parametrize(
    ("ahead_s", "status"), [(-100_000, "ready"), (300, "ready"), (301, "degraded")]
)
async def test_a_chain_of_the_future_is_a_clock_that_is_slow(
    api: Api, ahead_s: int, status: str
) -> None:
    """A chain of the past may be a node that is behind, or a sweep that has far to go."""
    frontier = Frontier(key=WATCH_KEY, slot=8, block_time=NOW + ahead_s, updated_at=NOW)
    await api.database.write([health.report("indexer", None, NOW), cursors.advance(frontier)])

    http, said, reasons_ = await reasons(api)

    assert (http, said) == (200, status)
    problem = "the clock of the indexer's machine is 301 s behind the chain's"
    expected = [("clock", f"{problem}: payments expire too early")]
    assert reasons_ == ([] if status == "ready" else expected)


async def test_a_database_of_another_release_is_noticed(api: Api) -> None:
    await well(api)
    newer = Statement(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (99, '0099_x.sql', 'x')"
    )
    await api.database.write([newer])

    status, _, [(component, problem)] = await reasons(api)

    assert (status, component) == (503, "schema")
    assert "0099_x.sql" in problem


async def test_a_database_that_does_not_answer_is_noticed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_batch: Any) -> Any:
        raise StoreUnavailable("/var/secret/axiom.db is locked")

    monkeypatch.setattr(api.database, "read", fail)

    assert await reasons(api) == (503, "unready", [("database", "the database does not answer")])
