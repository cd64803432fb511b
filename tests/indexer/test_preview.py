"""Previews: what the road would make of transactions, with nothing written."""

from pathlib import Path

from indexer.core.outcome import Outcome
from indexer.pipeline import Found
from indexer.preview import previews
from tests.indexer.stage import AMOUNT, FINAL_SLOT, forged, payment, stage


async def test_a_preview_says_what_storing_would_change(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        order, other = await it.expect(), payment("nobody's")
        paid, dust, orphan = it.pay(order), it.pay(order, amount=0), it.pay(other)
        unknown = Found(signature=forged("unknown"), slot=FINAL_SLOT)
        outcomes = await it.pipeline.read([paid, dust, orphan, unknown])
        before = await it.table("verdicts")

        said = await previews(it.database, outcomes)

        assert [each.outcome for each in said] == [
            Outcome.WOULD_CREDIT,
            Outcome.INVALID,
            Outcome.ORPHAN,
            Outcome.UNREADABLE,
        ]
        assert said[0].credits == {order.terms.id: AMOUNT}
        assert said[3].reasons == ("not_found",)
        assert await it.table("verdicts") == before == []

        await it.pipeline.keep(outcomes)
        [again, *_] = await previews(it.database, outcomes)
        assert again.outcome is Outcome.ALREADY_CREDITED
