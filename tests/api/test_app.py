from pathlib import Path

from tests.api.running import MERCHANT, WATCH_KEY, running


async def test_the_settings_are_what_a_payment_is_made_by(tmp_path: Path) -> None:
    async with running(tmp_path, tokens={"SOL": None}, expires_in_s=60, late_grace_s=7) as api:
        payment = await api.create(token="SOL")
        record = await api.record(payment["id"])

    terms = record.payment.terms
    assert (terms.recipient, terms.watch_key) == (MERCHANT, WATCH_KEY)
    assert terms.expires_at - terms.created_at == 60
    assert terms.grace_s == 7
    assert payment["token"] == {"symbol": "SOL", "mint": None, "decimals": 9}
