import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request

from api.errors import Problem
from api.idempotency import Effect, Ledger, Once, key_of
from api.limits import IDEMPOTENCY_RETENTION_S
from indexer.errors import SourceUnavailable
from store import events, everything, idempotency
from store.database import Database, Statement
from tests.api.running import NOW, SOLD, Api, Clock, make_key


ROUTE = "POST /api/pay"


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


async def test_while_the_first_is_at_work_the_second_is_told_to_wait(api: Api) -> None:
    api.chain.gate = asyncio.Event()
    first = asyncio.create_task(post(api, "k"))
    while not api.chain.asked:
        await asyncio.sleep(0.005)

    status, _, headers = await post(api, "k")
    assert (status, headers["Retry-After"]) == (409, "1")

    api.chain.gate.set()
    assert (await first)[0] == 201
    assert (await post(api, "k"))[2]["Idempotent-Replayed"] == "true"


async def test_fifty_equal_requests_at_once_make_one_payment(api: Api) -> None:
    answers = await asyncio.gather(*(post(api, "k") for _ in range(50)))

    statuses = Counter(status for status, _, _ in answers)
    assert set(statuses) <= {201, 409}
    assert len({body for status, body, _ in answers if status == 201}) == 1
    assert await count(api) == 1


# --------------------------------------------------------------------------------------- races


class Racer:
    """An effect that is prepared only when all racers have begun."""

    def __init__(self, everyone: asyncio.Barrier, name: str, statements: list[Statement]) -> None:
        self._everyone = everyone
        self._name = name
        self._statements = statements

    async def __call__(self) -> Effect:
        await self._everyone.wait()
        return Effect(statements=self._statements, status=201, headers={}, body=self._name.encode())


async def test_of_two_processes_the_loser_gives_the_winners_answer(api: Api) -> None:
    """Each process has a ledger of its own: neither sees the other at work."""
    barrier = asyncio.Barrier(2)
    once = Once("key_writer", ROUTE, "k")
    racers = [
        Ledger(api.database, Clock()).answer(once, b"same", Racer(barrier, name, []))
        for name in ("one", "two")
    ]

    first, second = await asyncio.gather(*racers)

    assert first.body == second.body
    replayed = [answer.headers.get("Idempotent-Replayed") for answer in (first, second)]
    assert sorted(replayed, key=str) == [None, "true"]


async def test_of_two_processes_with_other_bodies_the_loser_is_refused(api: Api) -> None:
    barrier = asyncio.Barrier(2)
    once = Once("key_writer", ROUTE, "k")
    racers = [
        Ledger(api.database, Clock()).answer(once, body, Racer(barrier, "x", []))
        for body in (b"one", b"two")
    ]

    answers = await asyncio.gather(*racers, return_exceptions=True)

    [refused] = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, Problem)
    assert refused.status == 422


async def stored(database: Database, key: str) -> bool:
    return await idempotency.find(database, "key_writer", ROUTE, key) is not None


async def test_answers_are_forgotten_after_a_day(api: Api) -> None:
    await post(api, "old")
    api.clock.now = NOW + IDEMPOTENCY_RETENTION_S
    await post(api, "younger", order_id="2")
    assert await stored(api.database, "old")

    api.clock.now += 601
    await post(api, "youngest", order_id="3")

    assert not await stored(api.database, "old")
    assert await stored(api.database, "younger")
