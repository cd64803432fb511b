import asyncio
import json
from pathlib import Path

import pytest

from indexer.cli import main
from indexer.core.ranges import Slots
from indexer.core.types import Status
from store import gaps
from store.gaps import GapReason
from tests.chain import BLOCK_TIME
from tests.indexer.stage import FINAL_SLOT, WATCH_KEY, Stage, stage


EMPTY = Slots(FINAL_SLOT - 20, FINAL_SLOT - 10)


async def command(it: Stage, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """One command over the stage's database and node, in a thread: it has a loop of its own."""
    monkeypatch.setenv("AXIOM_DATABASE_URL", f"sqlite:///{folder}/axiom.db")
    monkeypatch.setenv("AXIOM_RPC_URLS", it.node.url)
    monkeypatch.setenv("AXIOM_WATCH_KEY", WATCH_KEY)
    monkeypatch.chdir(folder)
    return await asyncio.to_thread(main, ["gaps", *words])


async def test_open_gaps_are_listed_and_closed_ones_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await it.database.write(
            [
                gaps.note(WATCH_KEY, Slots(1, 2), GapReason.START, BLOCK_TIME),
                gaps.note(WATCH_KEY, Slots(5, 9), GapReason.RECONNECT, BLOCK_TIME + 1, source="w"),
            ]
        )
        await it.database.write([gaps.close_up_to(WATCH_KEY, 2, BLOCK_TIME + 2)])
        capsys.readouterr()

        assert await command(it, tmp_path, monkeypatch, "list", "--json") == 0
        [open_] = map(json.loads, capsys.readouterr().out.splitlines())
        assert (open_["first_slot"], open_["last_slot"], open_["reason"]) == (5, 9, "reconnect")
        assert (open_["source"], open_["closed_at"]) == ("w", None)

        assert await command(it, tmp_path, monkeypatch, "list", "--all") == 0
        assert [line.split()[1:4] for line in capsys.readouterr().out.splitlines()[1:]] == [
            ["5", "9", "reconnect"],
            ["1", "2", "start"],
        ]


@pytest.mark.parametrize("strategy", ["signatures", "blocks"])
async def test_a_repair_finds_what_was_missed_and_closes_the_gap(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        it.pay(order, slot=FINAL_SLOT - 5)
        missed = Slots(FINAL_SLOT - 10, FINAL_SLOT - 1)
        await it.database.write([gaps.note(WATCH_KEY, missed, GapReason.START, BLOCK_TIME)])

        code = await command(it, tmp_path, monkeypatch, "repair", "--strategy", strategy)

        said = capsys.readouterr()
        assert code == 0, said.err
        assert "closed 1 of 1 gaps" in said.err
        assert (await it.record(order)).payment.state.status is Status.SETTLED
        assert await gaps.listing(it.database, 9, only_open=True) == []


async def test_what_nobody_keeps_stays_open_and_the_others_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        it.node.first_available = FINAL_SLOT - 50
        await it.database.write(
            [
                gaps.note(WATCH_KEY, Slots(1, 9), GapReason.PRUNED, BLOCK_TIME),
                gaps.note(WATCH_KEY, EMPTY, GapReason.OVERFLOW, BLOCK_TIME),
            ]
        )

        assert await command(it, tmp_path, monkeypatch, "repair") == 1

        said = capsys.readouterr().err
        assert "slot 1 is pruned" in said
        assert "closed 1 of 2 gaps" in said
        [left] = await gaps.listing(it.database, 9, only_open=True)
        assert left.slots == Slots(1, 9)


async def test_what_is_not_final_is_left_to_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        half = Slots(FINAL_SLOT - 2, FINAL_SLOT + 3)
        await it.database.write([gaps.note(WATCH_KEY, half, GapReason.OVERFLOW, BLOCK_TIME)])

        assert await command(it, tmp_path, monkeypatch, "repair") == 1

        said = capsys.readouterr().err
        assert f"examining slots {FINAL_SLOT - 2} to {FINAL_SLOT}\n" in said
        assert "(overflow)" in said


async def test_without_gaps_there_is_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        assert await command(it, tmp_path, monkeypatch, "repair") == 0
        assert "closed 0 of 0 gaps" in capsys.readouterr().err
