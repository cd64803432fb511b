from pathlib import Path

import pytest

from api.headers import completed, safe_headers
from tests.api.running import Api, running


NAMES = {
    "cache-control",
    "x-content-type-options",
    "content-security-policy",
    "referrer-policy",
    "permissions-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
}
HSTS = "strict-transport-security"


async def test_every_answer_has_them(api: Api) -> None:
    """Whatever the status, whoever made it, streams too."""
    payment = await api.create()
    paths = {
        f"/api/pay/{payment['id']}": 200,
        f"/api/sse/payments/{payment['id']}": 200,
        "/api/pay": 401,
        "/nothing": 404,
        "/api/pay/": 404,
        "/readyz": 503,
    }
    for path, status in paths.items():
        async with api.session.get(path) as response:
            assert response.status == status, path
            headers = {name.lower(): value for name, value in response.headers.items()}
            assert headers.keys() >= NAMES | {HSTS}, path
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
    async with api.session.put("/livez") as refused:
        assert refused.status == 405
        assert {name.lower() for name in refused.headers} >= NAMES


@pytest.mark.parametrize(
    ("public_url", "is_told"),
    [("https://pay.example.com", True), ("http://localhost:8000", False), ("", False)],
)
async def test_browsers_are_told_to_stay_with_tls_where_there_is_tls(
    tmp_path: Path, public_url: str, is_told: bool
) -> None:
    async with (
        running(tmp_path, public_url=public_url) as api,
        api.session.get("/livez") as response,
    ):
        assert (HSTS in response.headers) is is_told


async def test_only_the_picture_may_be_drawn_into_other_pages(api: Api) -> None:
    payment = await api.create()
    picture, shown = f"/api/pay/{payment['id']}/qr.svg", f"/api/pay/{payment['id']}"
    for path, policy in ((picture, "cross-origin"), (shown, "same-origin")):
        async with api.session.get(path) as response:
            assert response.headers.getall("Cross-Origin-Resource-Policy") == [policy]
            assert len(response.headers.getall("Content-Security-Policy")) == 1


def test_nothing_that_is_executed_is_ever_allowed() -> None:
    policies = dict(safe_headers("https://pay.example.com"))

    assert b"unsafe" not in policies[b"content-security-policy"]
    assert b"*" not in b"".join(policies.values())


def test_what_an_answer_says_itself_wins() -> None:
    own = [(b"a", b"1"), (b"a", b"2")]

    assert completed(own, [(b"a", b"3"), (b"b", b"4")]) == [*own, (b"b", b"4")]
    assert own == [(b"a", b"1"), (b"a", b"2")]
