"""A wallet that knows no references: its money is found, suggested, and matched by a person."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from indexer import recipients, sweep
from indexer.core.payment import Payment
from indexer.core.suggest import Suggestion, Why
from indexer.core.types import Paid, Reason, Status
from indexer.demo.cluster import Cluster
from indexer.demo.instructions import memo, sol_transfer
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from store import suggestions
from tests.scenario.deployment import PATIENCE_S, Deployment


LAMPORTS = 10_000_000
ROOT = Path(__file__).resolve().parents[2]


@pytest_asyncio.fixture
async def deployment(
    surfnet: Surfnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Deployment]:
    monkeypatch.setattr(sweep, "SWEEP_INTERVAL_S", 0.2)
    monkeypatch.setattr(recipients, "INTERVAL_S", 0.2)
    async with Deployment.over(surfnet, tmp_path) as deployment:
        yield deployment


async def review(deployment: Deployment, *arguments: str) -> tuple[int, str, str]:
    """Runs `axiompay review`, as a person does; its exit code, answer and talk."""
    settings = deployment.settings
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "indexer", "review", *arguments),
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AXIOM_")},
            "AXIOM_DATABASE_URL": settings.database_url,
            "AXIOM_RPC_URLS": ",".join(settings.rpc_urls),
            "AXIOM_TOKENS": "SOL",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def suggested(deployment: Deployment, signature: str) -> list[Suggestion]:
    """What the transfer is suggested for, once it is."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await suggestions.of_signature(deployment.database, signature)):
            await asyncio.sleep(0.05)
    return found


async def shown(deployment: Deployment) -> list[dict[str, Any]]:
    code, out, err = await review(deployment, "list", "--json")
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


async def test_a_transfer_without_a_reference_is_suggested_and_matched_by_a_person_once(
    deployment: Deployment, cluster: Cluster, wallet: Wallet
) -> None:
    shop = str(Keypair().pubkey())
    orders = [await deployment.create("0.01", recipient=shop) for _ in range(2)]
    first, second = orders
    await deployment.start()
    transfer = sol_transfer(wallet.key, Pubkey.from_string(shop), LAMPORTS)
    landed = await wallet.run(memo(f"for {first.terms.id}"), transfer)

    found = await suggested(deployment, landed.signature)

    by_payment = {each.payment_id: each.why for each in found}
    assert by_payment == {
        first.terms.id: Why.AMOUNT_AND_MEMO,
        second.terms.id: Why.AMOUNT,
    }
    await deployment.swept_past(landed.slot)
    assert [await deployment.events(each) for each in orders] == [["payment.created"]] * 2
    listed = await shown(deployment)
    assert {(each["kind"], each["signature"]) for each in listed} == {
        ("suggestion", landed.signature)
    }

    code, out, err = await review(
        deployment, "match", landed.signature, first.terms.id, "--note", "she called", "--json"
    )

    assert (code, err) == (0, "")
    assert json.loads(out)["status"] == "settled"
    await check_settled(deployment, first, landed.signature)
    for payment in orders:
        code, out, err = await review(deployment, "match", landed.signature, payment.terms.id)
        assert (code, out) == (1, "")
        assert "already" in err
    assert await shown(deployment) == []
    await check_settled(deployment, first, landed.signature)
    assert await deployment.events(second) == ["payment.created"]

    # The daemon goes on over all of it, and changes nothing any more.
    await deployment.stop()
    await deployment.start()
    last = await wallet.run(sol_transfer(wallet.key, Pubkey.from_string(shop), LAMPORTS))
    (again,) = await suggested(deployment, last.signature)
    assert again.payment_id == second.terms.id
    await check_settled(deployment, first, landed.signature)


async def check_settled(deployment: Deployment, payment: Payment, signature: str) -> None:
    record = await deployment.record(payment)
    state = record.payment.state
    assert (state.status, state.paid, state.review) == (Status.SETTLED, Paid.EXACT, ())
    (verdict,) = record.verdicts
    assert (verdict.signature, verdict.credit) == (signature, LAMPORTS)
    assert verdict.reasons == (Reason.MATCHED,)
    assert await deployment.events(payment) == ["payment.created", "payment.settled"]
