import json

from indexer.demo.surfnet.launcher import Surfnet
from tests.indexer.cli.conftest import Run


def test_a_machine_in_order_is_found_in_order(migrated: Run, surfnet: Surfnet) -> None:
    result = migrated("doctor", RPC_URLS=surfnet.rpc_url, WS_URLS=surfnet.ws_url)

    assert result.code == 0
    assert result.err == ""
    assert "FAIL" not in result.out
    for check in ("database", f"rpc {surfnet.rpc_url}", f"websocket {surfnet.ws_url}"):
        assert check in result.out


def test_what_fails_is_found_and_ends_with_1(run: Run) -> None:
    result = run("doctor", "--json", RPC_URLS="http://127.0.0.1:1/KEY")

    findings = [json.loads(line) for line in result.lines]
    assert result.code == 1
    assert [f["check"] for f in findings if f["grade"] == "FAIL"] == [
        "rpc http://127.0.0.1:1",
        "websocket ws://127.0.0.1:2/***",
    ]
    assert all(f["hint"] for f in findings if f["grade"] != "ok")
    assert "KEY" not in result.out + result.err
