"""The simulated world keeps its promises: virtual time, equal runs, crashes that are crashes."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import StoreUnavailable
from store.database import Statement
from tests.simulation import __main__ as command
from tests.simulation.database import Disk, Handle, Troubles
from tests.simulation.life import Doom, Life
from tests.simulation.loop import Stuck, VirtualLoop, run
from tests.simulation.seeds import Result
from tests.simulation.world import World


ROOT = Path(__file__).resolve().parents[2]
PUT = Statement("INSERT INTO deployment (name, value) VALUES ('a', 'b')")
COUNT = Statement("SELECT count(*) FROM deployment")


def test_an_hour_of_waiting_takes_no_time() -> None:
    async def main(loop: VirtualLoop) -> float:
        before = loop.time()
        await asyncio.sleep(3_600)
        return loop.time() - before

    assert run(main, 4_000) == pytest.approx(3_600)


def test_a_deadlock_names_who_waits() -> None:
    async def main(_loop: VirtualLoop) -> None:
        waits = asyncio.create_task(asyncio.Event().wait(), name="the one that waits")
        await waits

    with pytest.raises(Stuck, match="the one that waits"):
        run(main, 10)


def test_a_loop_without_end_is_found() -> None:
    async def main(_loop: VirtualLoop) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no step of the clock"):
        run(main, 10)


def test_what_takes_too_long_is_ended() -> None:
    async def main(_loop: VirtualLoop) -> None:
        await asyncio.sleep(11)

    with pytest.raises(Stuck, match="limit"):
        run(main, 10)


def test_two_runs_of_a_seed_are_equal_whatever_strings_hash_to() -> None:
    code = "from tests.simulation.world import World\nfor s in (1, 8): print(World(s).run().digest)"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = "".join(f"{World(seed).run().digest}\n" for seed in (1, 8))

    assert told == {here}


def test_two_seeds_are_two_worlds() -> None:
    assert World(1).run().digest != World(2).run().digest


@pytest.mark.parametrize(("point", "stored"), [("write 1, before", 0), ("write 1, after", 1)])
def test_a_dead_process_is_never_answered(point: str, stored: int) -> None:
    async def main(loop: VirtualLoop) -> int:
        disk = Disk()
        handle = Handle(disk, loop, 1, Troubles(random.Random(1)))
        life = Life(1, handle, Doom(point=point))
        database = handle.database()
        writing = asyncio.create_task(database.write([PUT]))
        later = asyncio.create_task(asyncio.sleep(0.5))
        await life.ended.wait()
        later_write = asyncio.create_task(database.write([PUT]))
        reading = asyncio.create_task(database.read([COUNT]))
        await later
        assert not any(task.done() for task in (writing, later_write, reading))
        return int(disk.rows(COUNT.sql)[0][0])

    assert run(main, 10) == stored


@pytest.mark.parametrize(("after", "stored"), [(0.0, 0), (1.0, 1)])
def test_a_write_that_fails_may_be_stored_all_the_same(after: float, stored: int) -> None:
    async def main(loop: VirtualLoop) -> int:
        disk = Disk()
        troubles = Troubles(random.Random(1), write_fails=1.0, after=after)
        database = Handle(disk, loop, 1, troubles).database()
        with pytest.raises(StoreUnavailable):
            await database.write([PUT])
        return int(disk.rows(COUNT.sql)[0][0])

    assert run(main, 10) == stored


def test_a_cancelled_write_is_applied_unless_the_process_dies() -> None:
    async def main(loop: VirtualLoop) -> int:
        disk = Disk()
        database = Handle(disk, loop, 1, Troubles(random.Random(1), latency_s=1.0)).database()
        writing = asyncio.create_task(database.write([PUT]))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.sleep(2)
        return int(disk.rows(COUNT.sql)[0][0])

    assert run(main, 10) == 1


# ----------------------------------------------------------------------------- the command


def test_a_failing_seed_is_told_with_the_command_that_reruns_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(seed: int) -> Result:
        objections = ["money was lost"] if seed == 7 else []
        return Result(seed=seed, objections=objections, tail=["1.000 node0 lies"])

    monkeypatch.setattr(command, "examine_all", lambda seeds, _jobs, **_: map(failing, seeds))

    assert command.main(["--seeds", "5", "--from", "5", "--jobs", "1"]) == 1

    told = capsys.readouterr().out
    assert "./run simulate --seed 7 --trace" in told
    assert "money was lost" in told
    assert "1 failed: 7" in told


def test_runs_that_differ_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = iter(("a", "b"))
    monkeypatch.setattr(
        command,
        "examine",
        lambda seed, **_: Result(seed=seed, objections=[], digest=next(digests)),
    )

    assert command.main(["--seed", "3"]) == 1
    assert "two runs differ" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--seed", "-1"], ["--trace"]])
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)

    assert caught.value.code == 2
