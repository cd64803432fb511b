import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request

from api.errors import Problem
from api.idempotency import key_of
from api.limits import IDEMPOTENCY_PRUNE_EVERY_S, IDEMPOTENCY_RETENTION_S
from indexer.errors import SourceUnavailable
from store import events, everything, idempotency
from store.database import Database, Statement
from store.idempotency import LEASE_S, Lease, Once
from tests.api.running import NOW, SOLD, Api, make_key


ONCE = Once("key_writer", "POST /api/pay", "k")


async def post(
    api: Api, key: str | None, headers: Mapping[str, str] | None = None, **fields: Any
) -> tuple[int, bytes, Mapping[str, str]]:
    own = {} if key is None else {"Idempotency-Key": key}
    body = json.dumps(SOLD | fields)
    sent = {**(headers or api.writer), **own, "Content-Type": "application/json"}
    async with api.session.post("/api/pay", data=body, headers=sent) as response:
        return response.status, await response.read(), response.headers.copy()


async def count(api: Api) -> int:
    return len(await everything.page(api.database, limit=1_000))


# -------------------------------------------------------------------------------------- header


def request(*values: str) -> Request:
    headers = [(b"idempotency-key", value.encode("latin-1")) for value in values]
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("abc", "abc"),
        ('"abc"', "abc"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('a"b', 'a"b'),
        (" abc ", "abc"),
        ("x" * 255, "x" * 255),
        ('"' + "x" * 255 + '"', "x" * 255),
    ],
)
def test_a_key_may_be_quoted_or_not(value: str, key: str) -> None:
    assert key_of(request(value)) == key


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("",),
        ('""',),
        ('"abc',),
        ('"a"b"',),
        ('"a\\nb"',),
        ('"abc";p=1',),
        ("a b",),
        ("a\tb",),
        ("é",),
        ("x" * 256,),
        ("a", "a"),
    ],
)
def test_what_is_no_key_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(Problem) as refused:
        key_of(request(*values))

    assert refused.value.status == 400


# ------------------------------------------------------------------------------------- replays


async def test_the_same_request_twice_has_one_effect_and_one_answer(api: Api) -> None:
    first = await post(api, "k")
    api.clock.now += 100
    second = await post(api, '"k"')

    assert first[:2] == second[:2]
    assert first[2]["Location"] == second[2]["Location"]
    assert first[2]["Content-Type"] == second[2]["Content-Type"]
    assert "Idempotent-Replayed" not in first[2]
    assert second[2]["Idempotent-Replayed"] == "true"
    assert await count(api) == 1
    assert len(await events.after(api.database, 0, limit=10)) == 1


async def test_a_replay_asks_the_chain_nothing(api: Api) -> None:
    await post(api, "k")
    api.chain.error = SourceUnavailable("down")

    assert (await post(api, "k"))[0] == 201


async def test_another_body_under_the_same_key_is_refused(api: Api) -> None:
    await post(api, "k")
    status, body, _ = await post(api, "k", amount="13")

    assert (status, json.loads(body)["code"]) == (422, "idempotency_key_reused")
    assert await count(api) == 1


async def test_a_key_belongs_to_its_api_key(api: Api) -> None:
    other = await make_key(api.database, "other", "payments:write")

    assert (await post(api, "k"))[1] != (await post(api, "k", other))[1]
    assert await count(api) == 2


async def test_without_a_key_nothing_is_created(api: Api) -> None:
    status, body, _ = await post(api, None)

    assert (status, json.loads(body)["code"]) == (400, "bad_idempotency_key")
    assert await count(api) == 0


async def test_a_refused_request_may_be_corrected_under_its_key(api: Api) -> None:
    assert (await post(api, "k", amount="0"))[0] == 422
    status, _, headers = await post(api, "k")

    assert status == 201
    assert "Idempotent-Replayed" not in headers


async def at_work(api: Api) -> None:
    """Waits until a request has asked the chain, which does not answer."""
    async with asyncio.timeout(30):
        while not api.chain.asked:
            await asyncio.sleep(0.005)


async def leases(database: Database) -> int:
    [[(number,)]] = await database.read([Statement("SELECT count(*) FROM idempotency_leases")])
    return int(number)


async def test_while_the_first_is_at_work_the_second_waits_for_its_answer(api: Api) -> None:
    api.chain.gate = asyncio.Event()
    first = asyncio.create_task(post(api, "k"))
    await at_work(api)
    second = asyncio.create_task(post(api, "k"))
    await asyncio.sleep(0.1)

    api.chain.gate.set()

    bodies = (await first)[1], (await second)[1]
    assert bodies[0] == bodies[1]
    assert (await second)[2]["Idempotent-Replayed"] == "true"
    assert await count(api) == 1


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.idempotency.IDEMPOTENCY_WAIT_S", 0.05)


@pytest.mark.usefixtures("_hasty")
async def test_who_waits_in_vain_is_told_to_come_back(api: Api) -> None:
    api.chain.gate = asyncio.Event()
    first = asyncio.create_task(post(api, "k"))
    await at_work(api)

    status, body, headers = await post(api, "k")
    assert (status, json.loads(body)["code"]) == (409, "idempotency_key_in_use")
    assert headers["Retry-After"] == "1"

    api.chain.gate.set()
    assert (await first)[0] == 201
    assert (await post(api, "k"))[2]["Idempotent-Replayed"] == "true"


async def test_another_body_while_the_first_is_at_work_is_refused_at_once(api: Api) -> None:
    api.chain.gate = asyncio.Event()
    first = asyncio.create_task(post(api, "k"))
    await at_work(api)

    status, body, _ = await post(api, "k", amount="13")
    assert (status, json.loads(body)["code"]) == (422, "idempotency_key_reused")

    api.chain.gate.set()
    assert (await first)[0] == 201
    assert await count(api) == 1


async def test_when_the_first_fails_the_one_that_waits_does_the_work(api: Api) -> None:
    api.chain.gate = asyncio.Event()
    first = asyncio.create_task(post(api, "k"))
    await at_work(api)
    second = asyncio.create_task(post(api, "k"))
    await asyncio.sleep(0.05)

    api.chain.error = SourceUnavailable("down")
    api.chain.gate.set()
    assert (await first)[0] == 503
    api.chain.error = None

    # It may have been quick enough to meet the same chain.
    assert (await second)[0] in {201, 503}
    assert (await post(api, "k"))[0] == 201
    assert await count(api) == 1


@pytest.mark.parametrize(
    ("fields", "error", "expected"),
    [({"amount": "0"}, None, 422), ({}, SourceUnavailable("down"), 503)],
)
async def test_who_is_refused_gives_the_lease_back(
    api: Api, fields: dict[str, Any], error: Exception | None, expected: int
) -> None:
    api.chain.error = error

    assert (await post(api, "k", **fields))[0] == expected

    assert await leases(api.database) == 0


async def test_a_refusal_by_the_database_gives_the_lease_back(api: Api) -> None:
    """A reference that is taken: the caller may choose another under the same key."""
    taken = json.loads((await post(api, "first"))[1])["reference"]

    assert (await post(api, "k", reference=taken))[0] == 409
    assert await leases(api.database) == 0
    assert (await post(api, "k"))[0] == 201


async def test_fifty_equal_requests_at_once_make_one_payment(api: Api) -> None:
    answers = await asyncio.gather(*(post(api, "k") for _ in range(50)))

    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) <= {201, 409}
    assert len({body for status, body, _ in answers if status == 201}) == 1
    assert [headers.get("Idempotent-Replayed") for _, _, headers in answers].count(None) == (
        1 + statuses[409]
    )
    assert await count(api) == 1
    assert await leases(api.database) == 0


# ------------------------------------------------------------------------------- dead processes


def of_another(holder: str = "another process") -> Lease:
    raw = json.dumps(SOLD).encode()
    return Lease(once=ONCE, fingerprint=hashlib.sha256(raw).hexdigest(), holder=holder)


@pytest.mark.usefixtures("_hasty")
async def test_the_work_of_a_dead_process_is_taken_over_when_its_lease_ends(api: Api) -> None:
    await idempotency.claim(api.database, of_another(), NOW)

    assert (await post(api, "k"))[0] == 409
    api.clock.now += LEASE_S - 1
    assert (await post(api, "k"))[0] == 409
    api.clock.now += 1
    status, _, headers = await post(api, "k")

    assert (status, headers.get("Idempotent-Replayed")) == (201, None)
    assert await count(api) == 1


async def test_the_lease_of_a_dead_process_is_taken_with_another_body(api: Api) -> None:
    """Nothing came of the first request: its key is as good as new."""
    await idempotency.claim(api.database, of_another(), NOW)
    api.clock.now += LEASE_S

    assert (await post(api, "k", amount="13"))[0] == 201


# ------------------------------------------------------------------------------------ forgetting


async def stored(database: Database, key: str) -> bool:
    return (await idempotency.look(database, ONCE._replace(key=key), NOW)).stored is not None


async def test_answers_are_forgotten_after_a_day(api: Api) -> None:
    await post(api, "old")
    api.clock.now = NOW + IDEMPOTENCY_RETENTION_S
    await post(api, "younger", order_id="2")
    assert await stored(api.database, "old")

    api.clock.now += IDEMPOTENCY_PRUNE_EVERY_S + 1
    await post(api, "youngest", order_id="3")

    assert not await stored(api.database, "old")
    assert await stored(api.database, "younger")


async def test_a_key_that_was_forgotten_is_as_good_as_new(api: Api) -> None:
    _, first, _ = await post(api, "k")
    api.clock.now += IDEMPOTENCY_RETENTION_S + IDEMPOTENCY_PRUNE_EVERY_S + 1
    await post(api, "another", order_id="2")

    status, second, headers = await post(api, "k")

    assert (status, headers.get("Idempotent-Replayed")) == (201, None)
    assert second != first
    assert await count(api) == 3


async def test_leases_of_the_dead_are_forgotten(api: Api) -> None:
    await idempotency.claim(api.database, of_another(), NOW)
    api.clock.now += IDEMPOTENCY_RETENTION_S

    await post(api, "another")

    assert await leases(api.database) == 0


async def test_there_is_no_forgetting_with_every_write(api: Api) -> None:
    """It holds up everyone: once in a while is enough."""
    await post(api, "first")
    await idempotency.claim(api.database, of_another(), NOW - IDEMPOTENCY_RETENTION_S)

    await post(api, "second", order_id="2")
    assert await leases(api.database) == 1

    api.clock.now += IDEMPOTENCY_PRUNE_EVERY_S
    await post(api, "third", order_id="3")
    assert await leases(api.database) == 0
