"""Paid in the plain ways: settled, with every event once."""

from pathlib import Path

from indexer.core.creation import solana_pay_url
from indexer.core.types import Paid, Status
from indexer.demo.surfnet.launcher import Surfnet
from indexer.demo.wallet import Wallet
from tests.scenario.deployment import Deployment


async def test_sol_paid_in_full_is_settled(
    surfnet: Surfnet, wallet: Wallet, tmp_path: Path
) -> None:
    async with Deployment.over(surfnet, tmp_path) as deployment:
        payment = await deployment.create("0.25")
        await deployment.start()
        signature = await wallet.pay(solana_pay_url(payment))
        record = await deployment.until(payment, Status.SETTLED)

        assert record.payment.state.paid is Paid.EXACT
        assert [v.signature for v in record.verdicts] == [signature]
        assert record.sightings == ()
        assert await deployment.events(payment) == [
            "payment.created",
            "payment.detected",
            "payment.settled",
        ]
