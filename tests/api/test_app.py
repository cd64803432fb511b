from pathlib import Path

from tests.api.running import MERCHANT, WATCH_KEY, Api, running


ORIGIN = "https://shop.example"


async def test_only_the_named_origins_may_call_from_a_browser(tmp_path: Path) -> None:
    async with running(tmp_path, cors_origins=(ORIGIN,)) as api:
        preflight = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
        }
        async with api.session.options("/api/pay", headers=preflight) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        for path in ("/livez", "/nothing", "/api/pay"):
            async with api.session.get(path, headers={"Origin": ORIGIN}) as response:
                assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
                exposed = response.headers["Access-Control-Expose-Headers"]
                assert set(exposed.split(", ")) == {
                    "Location",
                    "Idempotent-Replayed",
                    "Retry-After",
                }
        async with api.session.get("/livez", headers={"Origin": "https://evil.example"}) as other:
            assert "Access-Control-Allow-Origin" not in other.headers


async def test_without_origins_there_is_no_cors(api: Api) -> None:
    async with api.session.get("/livez", headers={"Origin": ORIGIN}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_the_settings_are_what_a_payment_is_made_by(tmp_path: Path) -> None:
    async with running(tmp_path, tokens={"SOL": None}, expires_in_s=60, late_grace_s=7) as api:
        payment = await api.create(token="SOL")
        record = await api.record(payment["id"])

    terms = record.payment.terms
    assert (terms.recipient, terms.watch_key) == (MERCHANT, WATCH_KEY)
    assert terms.expires_at - terms.created_at == 60
    assert terms.grace_s == 7
    assert payment["token"] == {"symbol": "SOL", "mint": None, "decimals": 9}
