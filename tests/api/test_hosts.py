from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from api.hosts import EXEMPT_PATHS, Hosts, host_of
from tests.api.running import Api, running


def scope(*hosts: bytes, path: str = "/api/pay", version: str = "1.1") -> dict[str, Any]:
    headers = [(b"accept", b"*/*"), *((b"host", host) for host in hosts)]
    return {"type": "http", "headers": headers, "path": path, "http_version": version}


def refused(names: set[str] | None, *hosts: bytes, **more: str) -> int | None:
    problem = Hosts(names).refusal(scope(*hosts, **more))
    return None if problem is None else problem.status


@pytest.mark.parametrize(
    "host",
    [b"pay.example.com", b"PAY.Example.com:443", b"pay.example.com.", b"[::1]:8000", b"[0::0:1]"],
)
def test_our_names_are_ours_however_they_are_written(host: bytes) -> None:
    assert refused({"pay.example.com", "::1"}, host) is None


@pytest.mark.parametrize(
    "host", [b"evil.example", b"example.com", b"xpay.example.com", b"pay.example.com.evil", b"::1"]
)
def test_all_other_names_are_refused(host: bytes) -> None:
    assert refused({"pay.example.com", "::1"}, host) in (400, 421)


def test_one_host_is_needed() -> None:
    assert refused(None) == 400
    assert refused(None, b"a", b"a") == 400
    assert refused(None, b"a, b") == 400
    assert refused(None, b"a") is None
    assert refused(None, version="1.0") is None
    assert refused({"a"}, version="1.0") == 421


@pytest.mark.parametrize("path", sorted(EXEMPT_PATHS))
def test_probes_may_use_any_name_but_only_one(path: str) -> None:
    assert refused({"a"}, b"10.1.2.3:8000", path=path) is None
    assert refused({"a"}, path=path, version="1.0") is None
    assert refused({"a"}, b"a", b"a", path=path) == 400
    assert refused({"a"}, b"b", path=path + "/") == 421


@given(st.binary(max_size=300))
def test_no_header_breaks_it(value: bytes) -> None:
    host = host_of(value)

    assert host is None or host in value.decode("latin-1").lower() or ":" in host


async def test_a_page_that_rebinds_its_name_to_us_reads_nothing(tmp_path: Path) -> None:
    """The browser sends the page's own name, and no other header makes up for it."""
    async with running(tmp_path, public_url="", cors_origins=("*",)) as api:
        payment = await api.create()
        path = f"/api/pay/{payment['id']}"
        for name in ("Origin", "X-Forwarded-Host", "Forwarded", "X-Original-Host"):
            headers = {name: "localhost", "Host": "rebound.evil.example", **api.reader}
            async with api.session.get(path, headers=headers) as response:
                assert response.status == 421, name
                problem = await response.json(content_type="application/problem+json")
                assert problem["code"] == "unknown_host"
                assert payment["id"] not in str(problem)
        assert (await api.get(path))[0] == 200


async def test_what_is_refused_for_its_host_touches_nothing(api: Api) -> None:
    headers = {"Host": "evil.example", "Idempotency-Key": "k", **api.writer}
    async with api.session.post("/api/pay", json={"amount": "1"}, headers=headers) as response:
        assert response.status == 421
    assert (await api.get("/api/pay", api.reader))[1]["data"] == []


async def test_any_name_is_any(tmp_path: Path) -> None:
    async with (
        running(tmp_path, allowed_hosts=("*",)) as api,
        api.session.get("/api/pay/x", headers={"Host": "any.example"}) as response,
    ):
        assert response.status == 404


async def test_named_hosts_stand_for_the_default_ones(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_hosts=("shop.example",)) as api:
        for host, status in (("shop.example", 404), ("localhost", 421), ("pay.example.com", 421)):
            async with api.session.get("/api/pay/x", headers={"Host": host}) as response:
                assert response.status == status, host
