from pathlib import Path

from api.routes import CALLS
from tests.api.running import Api, running


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
                    "Cache-Status",
                    "Idempotent-Replayed",
                    "RateLimit",
                    "RateLimit-Policy",
                    "Retry-After",
                }
        async with api.session.get("/livez", headers={"Origin": "https://evil.example"}) as other:
            assert "Access-Control-Allow-Origin" not in other.headers


async def test_a_preflight_says_what_is_allowed_and_no_more(tmp_path: Path) -> None:
    """Every method and header of the API, for the named origins only, and never with cookies."""
    async with running(tmp_path, cors_origins=(ORIGIN,)) as api:
        for call in CALLS:
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": call.method}
            async with api.session.options(call.path, headers=asked) as response:
                assert response.status == 200, call.name
                assert "Access-Control-Allow-Credentials" not in response.headers
        for origin, wanted in (
            ("https://evil.example", "authorization"),
            (f"{ORIGIN}.evil.example", "authorization"),
            (ORIGIN.upper(), "authorization"),
            ("http://shop.example", "authorization"),
            ("null", "authorization"),
            (ORIGIN, "cookie"),
        ):
            preflight = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": wanted,
            }
            async with api.session.options("/api/pay", headers=preflight) as response:
                assert response.status == 400, origin
                assert response.headers.get("Access-Control-Allow-Origin") in (None, ORIGIN)
                problem = await response.json(content_type="application/problem+json")
                assert problem["code"] == "cors_refused"


async def test_any_origin_is_any_but_without_credentials(tmp_path: Path) -> None:
    async with (
        running(tmp_path, cors_origins=("*",)) as api,
        api.session.get("/livez", headers={"Origin": "https://any.example"}) as response,
    ):
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers


async def test_without_origins_there_is_no_cors(api: Api) -> None:
    async with api.session.get("/livez", headers={"Origin": ORIGIN}) as response:
        assert "Access-Control-Allow-Origin" not in response.headers
