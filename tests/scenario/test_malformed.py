"""Chain data that makes no sense: kept, told, tried again, and everything else goes on."""

import asyncio
import copy
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from indexer.core.types import Paid, Status
from indexer.pipeline import UNREADABLE_ATTEMPTS_MAX
from tests.chain import key, sol_transfer
from tests.indexer.daemons import hurry, running, settings_for, until_events, until_swept
from tests.indexer.stage import AMOUNT, BUYER, FINAL_SLOT, SHOP, WATCH_KEY, Stage, paying, stage
from tests.servers.fake_rpc import Call, Fault


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch.setattr)


def says(it: Stage, signature: str, answer: bytes) -> Fault:
    """Says that, byte for byte, of one transaction, and the truth of the others."""

    async def fault(call: Call) -> web.StreamResponse:
        if call.params[0] != signature:
            result = json.dumps(it.node._transaction(*call.params)).encode()
        else:
            result = answer
        body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (call.id, result)
        return web.Response(body=body, content_type="application/json")

    return fault


def edited(landed: dict[str, Any], *path: Any, value: Any) -> bytes:
    """The transaction with another value in one place."""
    own = copy.deepcopy(landed)
    place: Any = own
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(own).encode()


MESSAGE = ("transaction", "message")
MALFORMED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "a number": lambda _: b"7",
    "a string": lambda _: b'"processed"',
    "an empty object": lambda _: b"{}",
    "an error in an object": lambda _: b'{"error":{"code":-32000}}',
    "another transaction": lambda _: json.dumps(sol_transfer(BUYER, SHOP, 3)).encode(),
    "no signature": lambda tx: edited(tx, "transaction", "signatures", value=[]),
    "base64": lambda tx: edited(tx, "transaction", value=["AQ==", "base64"]),
    "parsed keys": lambda tx: edited(tx, *MESSAGE, "accountKeys", value=[{"pubkey": BUYER}]),
    "a key too few": lambda tx: edited(tx, *MESSAGE, "accountKeys", value=[BUYER, SHOP]),
    "a key twice": lambda tx: edited(tx, *MESSAGE, "accountKeys", 1, value=BUYER),
    "an account beyond the keys": lambda tx: edited(
        tx, *MESSAGE, "instructions", 0, "accounts", value=[0, 99]
    ),
    "a negative account": lambda tx: edited(
        tx, *MESSAGE, "instructions", 0, "accounts", value=[-1]
    ),
    "a fee in words": lambda tx: edited(tx, "meta", "fee", value="5000"),
    "a broken fee": lambda tx: edited(tx, "meta", "fee", value=0.5),
    "a balance below zero": lambda tx: edited(tx, "meta", "postBalances", 0, value=-1),
    "a balance beyond 64 bits": lambda tx: edited(tx, "meta", "postBalances", 1, value=2**64),
    "a balance too few": lambda tx: edited(tx, "meta", "postBalances", value=[1]),
    "a slot beyond 63 bits": lambda tx: edited(tx, "slot", value=2**63),
    "a slot in words": lambda tx: edited(tx, "slot", value="latest"),
    "inner of nothing": lambda tx: edited(
        tx, "meta", "innerInstructions", value=[{"index": 9, "instructions": []}]
    ),
    "a token balance in words": lambda tx: edited(
        tx,
        "meta",
        "postTokenBalances",
        value=[
            {"accountIndex": 1, "mint": BUYER, "owner": SHOP, "uiTokenAmount": {"amount": "1e9"}}
        ],
    ),
    "bytes that are no text": lambda tx: json.dumps(tx).encode().replace(b'"err"', b'"\xff\xfe"'),
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
async def test_it_is_kept_told_and_in_nobodys_way(
    tmp_path: Path, answer: Callable[[dict[str, Any]], bytes]
) -> None:
    with capture_logs() as logs:
        async with stage(tmp_path) as it:
            order, other = await it.expect(name="order"), await it.expect(name="other")
            landed = paying(order)
            signature = it.chain.add(landed)
            good = it.pay(other)
            it.node.fail("getTransaction", says(it, signature, answer(landed)), times=None)

            unread = await it.settle(it.found(landed), good)

            assert [each.found.signature for each in unread] == [signature]
            (letter,) = await it.letters()
            assert (letter.signature, letter.reason) == (signature, "malformed")
            assert letter.payload
            assert answer(landed).startswith(letter.payload)
            assert await it.events(other) == ["created", "settled"]
            assert await it.events(order) == ["created"]
            alarms = [line for line in logs if line["log_level"] == "error"]
            assert [line["signature"] for line in alarms] == [signature]

            it.node.heal()
            assert await it.settle(it.found(landed)) == []
            assert await it.events(order) == ["created", "settled"]
            assert await it.letters() == []


async def test_nesting_without_end_is_no_answer_at_all(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(name="order"), await it.expect(name="other")
        found, good = it.pay(order), it.pay(other)
        bottomless = b'{"meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        it.node.fail("getTransaction", says(it, found.signature, bottomless), times=None)

        (unread,) = await it.settle(found, good)

        assert unread.reason == "unavailable"
        assert await it.events(other) == ["created", "settled"]


ODD: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "an unknown field": lambda tx: edited(tx, "meta", "surprise", value={"a": [1]}),
    "no logs": lambda tx: edited(tx, "meta", "logMessages", value=None),
    "no time": lambda tx: edited(tx, "blockTime", value=None),
    "a time beyond reason": lambda tx: edited(tx, "blockTime", value=2**62),
    "a nul in an unknown key": lambda tx: edited(
        tx, *MESSAGE, "recentBlockhash", value="\0" * 10_000
    ),
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_what_is_odd_and_decides_nothing_settles(
    tmp_path: Path, answer: Callable[[dict[str, Any]], bytes]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        landed = paying(order)
        signature = it.chain.add(landed)
        it.node.fail("getTransaction", says(it, signature, answer(landed)), times=None)

        assert await it.settle(it.found(landed)) == []

        assert await it.events(order) == ["created", "settled"]


async def test_the_daemon_goes_on_and_says_what_it_set_aside(tmp_path: Path) -> None:
    """Until a person helps: here by another node's software, and a restart."""
    async with stage(tmp_path) as it, it.chain.ticking():
        order, other = await it.expect(name="order"), await it.expect(name="other")
        settings = settings_for(tmp_path, it.node)
        landed = paying(order)
        signature = it.chain.add(landed)
        it.node.fail("getTransaction", says(it, signature, b'{"slot":1}'), times=None)

        async with running(settings, api=True) as daemon:
            problems = await daemon.until_ready("degraded", "dead_letters")
            assert problems["dead_letters"].startswith("1 transaction")
            async with asyncio.timeout(90):
                while (await it.letters())[0].next_try_at is not None:
                    await asyncio.sleep(0.05)
            (letter,) = await it.letters()
            assert (letter.attempts, letter.payload) == (UNREADABLE_ATTEMPTS_MAX, b'{"slot":1}')
            it.pay(other, slot=it.chain.tip + 1)
            await until_events(it, other, "settled", also="detected")
            assert await it.events(order) == ["created"]

        it.node.heal()
        async with running(settings, api=True) as daemon:
            await until_events(it, order, "settled")
            await daemon.until_ready("ready")


# ------------------------------------------------------------------------- anything at all


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    2**64,
    1.5,
    "",
    "0",
    "\0",
    "é",
    key("x"),
    [],
    {},
    [0],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    match value:
        case dict():
            inside = [place for name in value for place in places(value[name], (*path, name))]
        case list():
            inside = [place for n, each in enumerate(value) for place in places(each, (*path, n))]
        case _:
            inside = []
    return [path, *inside] if path else inside


def spoil(landed: dict[str, Any], chance: random.Random) -> None:
    """One to three changes somewhere: another value, another value's, nothing, or twice."""
    for _ in range(chance.randint(1, 3)):
        *way, last = chance.choice(places(landed))
        place: Any = landed
        for step in way:
            place = place[step]
        match chance.randrange(4):
            case 0:
                place[last] = chance.choice(VALUES)
            case 1:
                place[last] = copy.deepcopy(_at(landed, chance.choice(places(landed))))
            case 2:
                del place[last]
            case _ if isinstance(place, list):
                place.insert(last, copy.deepcopy(place[last]))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize("seed", range(5))
async def test_no_answer_whatever_ends_the_road_or_settles_for_more_than_came(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    async with stage(tmp_path) as it:
        orders = [await it.expect(name=f"order {n}") for n in range(60)]
        good = await it.expect(name="good")
        found = []
        for number, order in enumerate(orders):
            landed = paying(order, name=f"tx {number}")
            it.node.lies[it.chain.add(landed)] = lambda tx: spoil(tx, chance)
            found.append(it.found(landed))

        await it.settle(*found, it.pay(good))
        await it.pipeline.sight(found)

        assert await it.events(good) == ["created", "settled"]
        states = [(await it.record(order)).payment.state for order in orders]
        assert all(s.received <= AMOUNT for s in states if s.status is Status.SETTLED)

        it.node.lies.clear()
        await it.settle(*found)
        assert await it.letters() == []


async def test_no_list_whatever_ends_the_daemon(tmp_path: Path) -> None:
    """Lists of signatures are spoilt one after another, then one is right."""
    chance = random.Random(1)

    async def spoilt(call: Call) -> web.StreamResponse:
        rows = {"rows": it.node._signatures(*call.params)}
        if rows["rows"]:
            spoil(rows, chance)
        body = {"jsonrpc": "2.0", "id": call.id, "result": rows.get("rows")}
        return web.json_response(body)

    async with stage(tmp_path) as it, it.chain.ticking():
        order = await it.expect()
        for n in range(5):
            it.pay(await it.expect(name=f"other {n}"), slot=FINAL_SLOT - n)
        it.node.fail("getSignaturesForAddress", spoilt, times=60)
        async with running(settings_for(tmp_path, it.node)) as daemon:
            async with asyncio.timeout(90):
                while it.node.count("getSignaturesForAddress") <= 60:
                    await asyncio.sleep(0.05)
            it.pay(order, slot=it.chain.tip + 1)
            await until_events(it, order, "settled", also="detected")
            assert not daemon.task.done()


async def test_a_block_time_of_another_unit_is_not_used(tmp_path: Path) -> None:
    """Some nodes give getTransaction's in thousands of seconds; then nothing would be late."""
    async with stage(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order)
        it.node.lies[found.signature] = lambda tx: tx.update(blockTime=tx["blockTime"] // 1_000)

        await it.settle(replace(found, block_time=None))

        record = await it.record(order)
        assert record.verdicts[0].block_time == it.chain.block_time(FINAL_SLOT)
        assert record.payment.state.paid is Paid.EXACT


async def test_doorbells_that_make_no_sense_ring_nothing(tmp_path: Path) -> None:
    async with stage(tmp_path) as it, it.chain.ticking(), running(settings_for(tmp_path, it.node)):
        await until_swept(it.database)
        order = await it.expect()
        logs = {"context": {"slot": 1}, "value": {"signature": "x", "err": None, "logs": []}}
        for result in (
            None,
            {},
            logs | {"context": {"slot": 2**64}},
            logs | {"context": {"slot": -1}},
            logs | {"value": {"signature": 7, "err": None}},
            logs | {"value": {"signature": WATCH_KEY, "err": None}},
        ):
            params = {"result": result, "subscription": 1}
            it.node.push({"jsonrpc": "2.0", "method": "logsNotification", "params": params})
        it.pay(order, slot=it.chain.tip + 1)

        await until_events(it, order, "settled", also="detected")
        assert it.node.connections == 1
