"""`axiompay audit`: what is printed, and with which exit code."""

import json
from pathlib import Path

import pytest

from indexer import audit as audit_module
from indexer.cli import audit as command
from indexer.errors import ConfigError, SourceUnavailable
from store import deployment
from store.database import Statement
from tests.chain import BLOCK_TIME, key
from tests.indexer.cli.commanding import Commanding
from tests.indexer.cli.conftest import Run
from tests.indexer.stage import AMOUNT, FINAL_SLOT, SHOP, stage
from tests.servers.fake_rpc import http


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LOOK_PAUSE_S", 0.0)


async def test_zero_drift_is_a_short_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await it.settle(it.pay(await it.expect()))

        result = await Commanding(it, tmp_path, capsys)("audit")

        assert result.code == 0
        assert result.err == ""
        token, numbers = (
            result.lines[1].split(),
            dict(line.rsplit(None, 1) for line in result.lines[3:]),
        )
        assert token == ["SOL", "0.005", "0.005", "0.005", "0"]
        assert {name.strip(): number for name, number in numbers.items()} == {
            "payments": "1",
            "transactions": "1",
            "finalized slot": str(FINAL_SLOT),
            "behind": "0",
            "doubtful": "0",
            "not told": "0",
            "differences": "0",
        }


async def test_drift_is_listed_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        order = await it.expect()
        await it.settle(it.pay(order))
        await it.database.write([Statement("UPDATE transfers SET net = '1'")])

        result = await Commanding(it, tmp_path, capsys)("audit")

        assert result.code == 1
        assert [line.split()[:2] for line in result.lines[1:3]] == [
            [order.terms.id, "transfer.net"],
            [order.terms.id, "books"],
        ]
        assert result.lines[1].split()[-2:] == ["1", str(AMOUNT)]
        assert result.lines[-1].split() == ["differences", "2"]


async def test_machines_get_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with stage(tmp_path) as it:
        order, open_ = await it.expect(), await it.expect(name="open")
        doubtful = await it.expect(name="doubtful")
        await it.settle(
            it.pay(order), it.pay(doubtful, extra_lamports={SHOP: -1}, name="doubtful", slot=990)
        )
        late = it.pay(open_, name="not swept yet")
        await it.database.write([Statement("UPDATE payments SET late = 1")])

        result = await Commanding(it, tmp_path, capsys)("audit", "--json")

        said = json.loads(result.out)
        assert result.code == 1
        assert (said["complete"], said["drift"], said["failure"]) == (True, True, None)
        assert (said["payments"], said["transactions"]) == (3, 3)
        assert said["tokens"] == [
            {
                "symbol": "SOL",
                "mint": None,
                "decimals": 9,
                "credits": str(AMOUNT),
                "legs": str(AMOUNT),
                "gained": str(AMOUNT),
                "beside": "0",
            }
        ]
        assert {
            "payment_id": order.terms.id,
            "what": "payment.late",
            "where": None,
            "stored": True,
            "chain": False,
        } in said["differences"]
        assert [(each["payment_id"], each["where"]) for each in said["behind"]] == [
            (open_.terms.id, late.signature)
        ]
        assert said["unproven"] == []
        assert [(each["payment_id"], each["reasons"]) for each in said["doubtful"]] == [
            (doubtful.terms.id, ["books_do_not_balance"])
        ]


async def test_people_see_what_is_behind_and_what_is_doubtful(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        doubtful, open_ = await it.expect(), await it.expect(name="open")
        await it.settle(it.pay(doubtful, extra_lamports={SHOP: -1}, slot=990))
        it.pay(open_, name="not swept yet")

        result = await Commanding(it, tmp_path, capsys)("audit")

        assert result.code == 0
        assert f"the store has not come to slot {FINAL_SLOT} yet" in result.out
        assert "books_do_not_balance" in result.out
        assert "0.004999999 SOL" in result.out


async def test_a_chain_out_of_reach_is_never_called_zero_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await it.expect()
        it.node.fail("getSignaturesForAddress", http(404), times=None)
        run = Commanding(it, tmp_path, capsys)

        for arguments in (("audit",), ("audit", "--json")):
            with pytest.raises(SourceUnavailable, match="nothing can be said"):
                await run(*arguments)
            out = capsys.readouterr().out
            if "--json" in arguments:
                said = json.loads(out)
                assert (said["complete"], said["drift"]) == (False, None)
                assert said["failure"]
            else:
                assert out.splitlines()[-1].split(None, 1) == ["differences", "not known"]


async def test_another_cluster_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against it, every payment would differ."""
    async with stage(tmp_path) as it:
        await it.expect()
        await deployment.put_once(it.database, "genesis_hash", key("another cluster"))

        with pytest.raises(ConfigError, match=r"AXIOM_RPC_URLS: .* was filled from"):
            await Commanding(it, tmp_path, capsys)("audit")


async def test_the_period_is_a_time_with_a_zone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stage(tmp_path) as it:
        await it.expect(name="old", created_at=BLOCK_TIME - 1)
        await it.expect(name="new", created_at=BLOCK_TIME)
        run = Commanding(it, tmp_path, capsys)

        result = await run("audit", "--since", "2026-09-21T14:13:20+00:00", "--json")

        assert json.loads(result.out)["payments"] == 1
        for wrong in ("2026-11-22", "yesterday", "2026-11-22T00:00:00"):
            with pytest.raises(SystemExit):
                await run("audit", "--since", wrong)


def test_a_node_that_does_not_answer_ends_with_1(migrated: Run) -> None:
    result = migrated("audit", RPC_URLS="http://127.0.0.1:1")

    # No payment: nothing had to be asked.
    assert result.code == 0
    assert result.lines[-1].split() == ["differences", "0"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        ([], "nothing at all"),
        (["a", "b"], "a, b"),
        ({"credit": "1"}, "credit 1"),
        ("x" * 200, "x" * 120 + "…"),
    ],
)
def test_a_cell_is_short(value: object, shown: str) -> None:
    assert command._cell(value) == shown
