"""A daemon whose disk runs full says so, loses nothing, and goes on when there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.audit import Audit, Report
from tests.chain import BLOCK_TIME
from tests.indexer.daemons import hurry, running, settings_for, until_events
from tests.indexer.stage import FINAL_SLOT, paying, stage
from tests.servers.disk import Disk
from tests.servers.fake_rpc import eventually


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk() as disk:
        yield disk


async def test_a_full_disk_is_survived_and_shown(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch.setattr)
    async with stage(tmp_path) as it, it.chain.ticking():
        before = await it.expect(name="before", expires_at=BLOCK_TIME + 10**6)
        during = await it.expect(name="during", expires_at=BLOCK_TIME + 10**6)
        it.pay(before, slot=FINAL_SLOT)
        async with running(settings_for(tmp_path, it.node), api=True) as daemon:
            await until_events(it, before, "settled", also="detected")
            await daemon.until_ready("ready")

            disk.full = True
            it.chain.add(paying(during, slot=it.chain.tip + 1))
            problems = await daemon.until_ready("unready", "database")
            assert "disk is full: make room" in problems["database"]
            refused = disk.refused
            await eventually(lambda: disk.refused > refused + 5, timeout_s=90)
            assert not daemon.task.done()
            assert (await it.record(during)).verdicts == ()

            disk.full = False
            await until_events(it, during, "settled", also="detected")
            await daemon.until_ready("ready")
        report = Report(since=0)
        await Audit(it.database, it.rpc, report, clock=it.clock).run()
        assert report.is_clean
