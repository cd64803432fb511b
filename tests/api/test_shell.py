from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from store import everything
from tests.api.knocking import from_helius, guarded
from tests.api.running import Api


async def lines(api: Api, path: str, headers: Any = None) -> list[Any]:
    with capture_logs() as captured:
        await api.get(path, headers)
    return [line for line in captured if line["event"].startswith("http.")]


async def test_every_answer_has_the_safe_headers(api: Api) -> None:
    payment = await api.create()
    for path in (f"/api/pay/{payment['id']}", "/api/pay", "/nothing", "/livez", "/readyz"):
        async with api.session.get(path) as response:
            assert response.headers["Cache-Control"] == "no-store", path
            assert response.headers["X-Content-Type-Options"] == "nosniff", path
            assert "Server" not in response.headers


async def test_each_request_is_one_line_without_a_secret(api: Api) -> None:
    payment = await api.create()

    [line] = await lines(api, f"/api/pay/{payment['id']}?x=secret", api.reader)

    assert line["event"] == "http.request_served"
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/pay/{id}", 200)
    assert line["api_key_id"] == "key_reader"
    assert line["duration_ms"] >= 0
    assert not {payment["id"], "secret", api.reader["Authorization"]} & set(map(str, line.values()))


async def test_what_matches_no_route_has_none_in_its_line(api: Api) -> None:
    [line] = await lines(api, "/guess/axk_secret")

    assert (line["route"], line["status"]) == (None, 404)


async def test_probes_are_quiet(api: Api) -> None:
    [line] = await lines(api, "/livez")

    assert line["log_level"] == "debug"


async def test_who_is_turned_away_at_a_door_leaves_no_line(tmp_path: Path) -> None:
    async with guarded(tmp_path) as api:
        with capture_logs() as captured:
            assert (await from_helius(api, secret="no"))[0] == 401
            assert (await from_helius(api, b"no JSON"))[0] == 422
            assert (await from_helius(api))[0] == 200

    levels = [line["log_level"] for line in captured if line["event"] == "http.request_served"]
    assert levels == ["debug", "debug", "info"]


async def test_our_own_fault_is_logged_and_hidden(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> Any:
        raise KeyError("the inside")

    payment = await api.create()
    monkeypatch.setattr(everything, "get", fail)
    with capture_logs() as captured:
        status, problem = await api.get(f"/api/pay/{payment['id']}")

    assert (status, problem["code"]) == (500, "internal_error")
    assert "inside" not in str(problem)
    [failed] = [line for line in captured if line["event"] == "http.failed"]
    assert failed["exc_info"]
    assert failed["route"] == "/api/pay/{id}"
