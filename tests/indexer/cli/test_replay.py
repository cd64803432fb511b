"""`axiompay replay`, as a process of its own, over nodes that the test runs."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from indexer.core.types import Status
from store import deployment
from tests.chain import key, sol_transfer
from tests.indexer.cli.conftest import Run
from tests.indexer.replaying import contents, staged, states
from tests.indexer.stage import AMOUNT, SHOP, WATCH_KEY, Stage, forged
from tests.servers.fake_rpc import Call, null


ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 60
RANGE = ("--from-slot", "900", "--to-slot", "950")


@dataclass(frozen=True)
class Result:
    code: int | None
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


def environment(it: Stage, folder: Path, more: dict[str, str]) -> dict[str, str]:
    settings = {
        "DATABASE_URL": f"sqlite:///{folder}/axiom.db",
        "RPC_URLS": ",".join(node.url for node in it.nodes),
        "RPC_RATE": "0",
    }
    inherited = {name: each for name, each in os.environ.items() if not name.startswith("AXIOM_")}
    return {**inherited, **{f"AXIOM_{name}": each for name, each in (settings | more).items()}}


async def start(
    it: Stage, folder: Path, arguments: Sequence[str], more: dict[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "indexer",
        "replay",
        *arguments,
        cwd=folder,
        env=environment(it, folder, more) | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def replay(it: Stage, folder: Path, *arguments: str, **settings: str) -> Result:
    child = await start(it, folder, arguments, settings)
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise
    return Result(child.returncode, out.decode(), err.decode())


# ------------------------------------------------------------------------------- what it does


@pytest.mark.parametrize("strategy", ["auto", "signatures", "blocks"])
async def test_a_range_is_settled_and_reported(strategy: str, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=910)

        result = await replay(it, tmp_path, *RANGE, "--strategy", strategy, "--json")

        assert (await it.record(order)).payment.state.status is Status.SETTLED
    report = result.report
    assert result.code == 0, result.err
    assert result.err.splitlines()[0].startswith(
        f"axiompay: {'signatures' if strategy == 'auto' else strategy} (run 1): slots 900 to 950"
    )
    assert report["run"] == 1
    assert report["complete"] is True
    assert (report["first_slot"], report["last_slot"], report["done_to"]) == (900, 950, 950)
    assert report["outcomes"] == {
        "credited": 1,
        "already_credited": 0,
        "orphan": 0,
        "invalid": 0,
        "unreadable": 0,
    }
    assert report["coverage"] == [{"key": WATCH_KEY, "first_slot": 900, "last_slot": 950}]
    assert report["seconds"] > 0
    assert report["blocks"] == (51 if strategy == "blocks" else 0)


async def test_a_person_reads_the_same_as_a_table(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=910)

        dry = await replay(it, tmp_path, *RANGE, "--dry-run")
        real = await replay(it, tmp_path, *RANGE)

    assert (dry.code, real.code) == (0, 0)
    line = next(line for line in dry.out.splitlines() if found.signature in line)
    assert line.split() == [
        found.signature,
        "910",
        "would_credit",
        f"{order.terms.id}:{AMOUNT}",
        "-",
    ]
    assert "credited  1" in real.out
    assert f"{WATCH_KEY} 900 to 950" in real.out


async def test_a_dry_run_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)
        before = await contents(it)

        result = await replay(it, tmp_path, *RANGE, "--strategy", "blocks", "--dry-run", "--json")

        assert await contents(it) == before
    assert result.code == 0
    assert result.report["run"] is None
    assert result.report["outcomes"]["would_credit"] == 1
    [named] = result.report["named"]
    assert named["credits"][0]["credit_base_units"] == str(AMOUNT)


@pytest.mark.parametrize("by", ["signature", "reference"])
async def test_one_transaction_or_one_payment(by: str, tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        order = await it.expect()
        found = it.pay(order, slot=910)
        what = {"signature": found.signature, "reference": order.terms.reference}[by]

        result = await replay(it, tmp_path, f"--{by}", what, "--json")

        assert (await it.record(order)).payment.state.status is Status.SETTLED
    assert result.code == 0
    assert result.report["outcomes"]["credited"] == 1


async def test_the_cluster_is_noted_where_no_daemon_ran(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        await replay(it, tmp_path, *RANGE, "--dry-run")
        before = await deployment.get(it.database, "genesis_hash")
        await replay(it, tmp_path, *RANGE)
        after = await deployment.get(it.database, "genesis_hash")

    assert (before, after) == (None, it.chain.genesis_hash)


async def test_requests_are_bounded(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        under_way, most = 0, 0
        answer = it.node._answer_http

        async def counting(request: web.Request) -> web.StreamResponse:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                return await answer(request)
            finally:
                under_way -= 1

        it.node._answer_http = counting  # type: ignore[method-assign]  # replaced for this test
        await it.node.stop()
        await it.node.start()
        bounds = ("--concurrency", "2", "--rps", "500")

        result = await replay(it, tmp_path, *RANGE, "--strategy", "blocks", *bounds)

    assert result.code == 0
    assert most <= 2


# ----------------------------------------------------------------------------- what goes wrong


async def test_what_cannot_be_read_is_said_and_kept(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        it.pay(await it.expect(), slot=910)
        it.node.fail("getTransaction", null(), times=None)

        result = await replay(it, tmp_path, *RANGE, "--json")

        assert len(await it.letters()) == 1
    assert result.code == 1
    assert result.report["complete"] is False
    assert "1 transactions could not be read and are kept" in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--from-slot", "900", "--to-slot", "1001"), "slot 1001 is not final"),
        (("--from-slot", "900", "--to-slot", str(2**63 - 1)), "is not final"),
        (("--from-slot", "100", "--to-slot", "950"), "nothing before slot 500"),
        (("--reference", key("nobody")), f"no payment has the reference {key('nobody')}"),
        (("--signature", forged("x")), f"{forged('x')}: no node has it finalized"),
    ],
    ids=["future", "far future", "pruned", "reference", "signature"],
)
async def test_what_cannot_be_replayed_is_refused(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    async with staged(tmp_path) as it:
        it.node.first_available = 500
        before = await contents(it)

        result = await replay(it, tmp_path, *arguments)

        after = await contents(it)
    del before["deployment"], after["deployment"]
    assert (result.code, result.out) == (1, "")
    assert says in result.err
    assert "Traceback" not in result.err
    assert after == before


async def test_another_cluster_is_refused(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        await deployment.put_once(it.database, "genesis_hash", key("elsewhere"))

        result = await replay(it, tmp_path, *RANGE)

    assert result.code == 2
    assert "serves the cluster with genesis hash" in result.err


async def test_an_endpoint_that_is_gone_says_how_to_go_on(tmp_path: Path) -> None:
    async with staged(tmp_path) as it:
        asked = 0
        answer = it.node._answer

        def leaving(call: Call) -> dict[str, Any]:
            nonlocal asked
            asked += call.method == "getBlock"
            if asked > 150:
                error = {"code": -32007, "message": "skipped, or missing"}
                return {"jsonrpc": "2.0", "id": call.id, "error": error}
            return answer(call)

        it.node._answer = leaving  # type: ignore[method-assign]  # replaced for this test
        wide = ("--from-slot", "500", "--to-slot", "950", "--strategy", "blocks", "--json")

        broken = await replay(it, tmp_path, *wide)
        it.node._answer = answer  # type: ignore[method-assign]  # replaced for this test
        mended = await replay(it, tmp_path, *wide, "--resume")

    assert broken.code == 1
    assert broken.report["complete"] is False
    assert broken.report["done_to"] == 627
    assert "everything up to slot 627" in broken.err
    assert "--resume" in broken.err
    assert "no endpoint gives its block" in broken.report["failure"]
    assert (mended.code, mended.report["resumed"], mended.report["run"]) == (0, True, 1)
    assert mended.report["blocks"] == 451


async def test_killed_in_the_middle_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    ends = []
    for kill_at in (None, 1, 60, 200, 400):
        folder = tmp_path / f"{kill_at}"
        folder.mkdir()
        async with staged(folder) as it:
            ends.append(await killed_and_resumed(it, folder, kill_at))

    assert all(end == ends[0] for end in ends[1:])
    assert [row[1] for row in ends[0][0]].count("settled") == 40


async def killed_and_resumed(it: Stage, folder: Path, kill_at: int | None) -> Any:
    """What is stored when the process gets SIGKILL at its so-manieth block, and is run again."""
    orders = [await it.expect(name=f"{n}") for n in range(40)]
    for n, order in enumerate(orders):
        references = [order.terms.reference]
        slot = 505 + 11 * n
        it.chain.add(sol_transfer(key("b"), SHOP, AMOUNT, references=references, slot=slot))
    wide = ("--from-slot", "500", "--to-slot", "990", "--strategy", "blocks", "--json")
    if kill_at is not None:
        child = await start(it, folder, wide, {})
        kill_when(it, lambda count: count >= kill_at, child)
        async with asyncio.timeout(LIMIT_S):
            await child.communicate()
        assert child.returncode == -signal.SIGKILL
    result = await replay(it, folder, *wide, "--resume")
    assert result.code == 0, result.err
    logs = [await it.events(order) for order in orders]
    return await states(it), logs, await it.table("coverage", "key, first_slot, last_slot")


def kill_when(it: Stage, is_time: Callable[[int], bool], child: asyncio.subprocess.Process) -> None:
    answer = it.node._answer

    def killing(call: Call) -> dict[str, Any]:
        if child.returncode is None and is_time(it.node.count("getBlock")):
            child.kill()
        return answer(call)

    it.node._answer = killing  # type: ignore[method-assign]  # replaced for this test


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "give --from-slot and --to-slot, or --signature, or --reference"),
        (("--from-slot", "1"), "go together"),
        (("--to-slot", "1"), "go together"),
        (("--from-slot", "2", "--to-slot", "1"), "slot 1 comes before --from-slot 2"),
        (("--from-slot", "-1", "--to-slot", "1"), "--from-slot"),
        (("--from-slot=-1", "--to-slot", "1"), "'-1' is no slot"),
        (("--from-slot", "1", "--to-slot", str(2**63)), "is no slot"),
        (("--from-slot", "1", "--to-slot", "9" * 5_000), "is no slot"),
        (("--from-slot", "٣", "--to-slot", "4"), "is no slot"),
        (("--from-slot", "1.5", "--to-slot", "4"), "is no slot"),
        (("--from-slot", "", "--to-slot", "4"), "is no slot"),
        (("--signature", "x"), "'x' is no signature"),
        (("--signature", key("a")), "is no signature"),
        (("--signature", "1" * 100_000), "is no signature"),
        (("--signature", "é" * 88), "is no signature"),
        (("--reference", forged("a")), "is no key"),
        (("--reference", ""), "is no key"),
        (("--reference", key("a"), "--signature", forged("a")), "or --signature, or"),
        (("--reference", key("a"), *RANGE), "or --signature, or --reference"),
        (("--reference", key("a"), "--resume"), "only slots are resumed"),
        (("--reference", key("a"), "--strategy", "blocks"), "blocks needs --from-slot"),
        ((*RANGE, "--strategy", "magic"), "invalid choice"),
        ((*RANGE, "--resume", "--dry-run"), "records nothing"),
        ((*RANGE, "--concurrency", "0"), "no number from 1 to 256"),
        ((*RANGE, "--concurrency", "257"), "no number from 1 to 256"),
        ((*RANGE, "--concurrency", "9" * 5_000), "no number from 1 to 256"),
        ((*RANGE, "--rps", "0"), "no number of requests"),
        ((*RANGE, "--rps", "nan"), "no number of requests"),
        ((*RANGE, "--rps", "inf"), "no number of requests"),
        ((*RANGE, "--rps", "x"), "no number of requests"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    arguments: tuple[str, ...], says: str, migrated: Run
) -> None:
    result = migrated("replay", *arguments)

    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert len(result.err) < 2_500


def test_without_a_database_nothing_is_made(run: Run, tmp_path: Path) -> None:
    result = run("replay", *RANGE)

    assert result.code == 1
    assert "does not exist" in result.err
    assert list(tmp_path.iterdir()) == []
