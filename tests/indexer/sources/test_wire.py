"""What bytes and errors of JSON-RPC mean."""

from typing import Any

import msgspec
import pytest

from indexer.errors import SourceError, SourceRejected, SourceUnavailable
from indexer.redact import secrets_of
from indexer.sources import wire
from tests import vectors


ASKED = wire.Asked("getSlot", "https://node.example")


def answer(**members: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", **members})


def test_a_request_is_one_json_rpc_object() -> None:
    body = wire.encode_request(7, "getSlot", [{"commitment": "finalized"}])

    assert msgspec.json.decode(body) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "getSlot",
        "params": [{"commitment": "finalized"}],
    }


@pytest.mark.parametrize("result", [None, 0, False, [], {}, "", {"amount": 18446744073709551615}])
def test_a_result_is_handed_on_as_it_is(result: Any) -> None:
    raw = wire.decode_answer(answer(id=7, result=result), 7, ASKED)

    assert isinstance(raw, bytes)
    assert msgspec.json.decode(raw) == result


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON-RPC answer"),
        (b"<html>502 Bad Gateway</html>", "502 Bad Gateway"),
        (b"[]", "no JSON-RPC answer"),
        (b'{"id":"\xff"}', "no JSON-RPC answer"),
        (answer(id=7), "neither result nor error"),
        (answer(id=8, result=1), "an answer to request 8, not 7"),
        (answer(id="7", result=1), "an answer to request '7', not 7"),
        (answer(result=1), "an answer to request None, not 7"),
    ],
)
def test_what_is_no_answer_to_the_question_is_asked_again(body: bytes, says: str) -> None:
    fault = wire.decode_answer(body, 7, ASKED)

    assert isinstance(fault, wire.Fault)
    assert isinstance(fault.error, SourceUnavailable)
    assert fault.rests
    assert says in str(fault.error)
    assert str(fault.error).startswith("getSlot at https://node.example: ")


@pytest.mark.parametrize(
    ("error", "is_retryable", "rests"),
    [
        ({"code": 429, "message": "Too many requests for a specific RPC call"}, True, True),
        ({"code": -32429, "message": "rate limited"}, True, True),
        # The same number means "slot skipped" on a node and "slow down" at a provider.
        ({"code": -32007, "message": "50/second request limit reached"}, True, True),
        ({"code": -32007, "message": "Slot 5 was skipped"}, False, False),
        ({"code": -32004, "message": "Block not available for slot 5"}, True, False),
        ({"code": -32014, "message": "Block status not yet available"}, True, False),
        ({"code": -32016, "message": "Minimum context slot"}, True, False),
        ({"code": -32005, "message": "Node is unhealthy"}, True, True),  # without data
        ({"code": -32005, "message": "behind", "data": {"numSlotsBehind": 42}}, True, True),
        ({"code": -32019, "message": "Long term storage"}, True, True),
        ({"code": -32603, "message": "Internal error"}, True, True),
        ({"code": -31999, "message": "never seen before"}, True, True),
        ({"code": "E_BUSY", "message": "a code that is no number"}, True, True),
        ({}, True, True),
        ("unauthorized", True, True),
        ({"code": -32600, "message": "Invalid request"}, False, False),
        ({"code": -32601, "message": "Method not found"}, False, False),
        ({"code": -32602, "message": "Invalid params"}, False, False),
        ({"code": -32015, "message": "Transaction version (1)"}, False, False),
        ({"code": -32020, "message": "Filter transaction not found"}, False, False),
        ({"code": -32001, "message": "Block cleaned up"}, False, False),
        ({"code": -32011, "message": "Transaction history is not available"}, False, False),
    ],
)
def test_what_a_json_rpc_error_means(error: Any, is_retryable: bool, rests: bool) -> None:
    fault = wire.decode_answer(answer(id=7, error=error), 7, ASKED)

    assert isinstance(fault, wire.Fault)
    assert isinstance(fault.error, SourceUnavailable if is_retryable else SourceRejected)
    assert fault.rests is rests
    code = error.get("code") if isinstance(error, dict) else None
    assert fault.error.code == (code if isinstance(code, int) else 0)


@pytest.mark.parametrize(
    ("code", "kind", "codes"),
    [
        (-32007, SourceRejected, wire.SKIPPED_CODES),
        (-32009, SourceRejected, wire.SKIPPED_CODES),
        (-32001, SourceRejected, wire.PRUNED_CODES),
        (-32011, SourceRejected, wire.PRUNED_CODES),
        (-32004, SourceUnavailable, wire.NOT_YET_CODES),
        (-32014, SourceUnavailable, wire.NOT_YET_CODES),
        (-32016, SourceUnavailable, wire.NOT_YET_CODES),
    ],
)
def test_a_block_that_is_not_given_is_skipped_or_pruned_or_not_there_yet(
    code: int, kind: type[SourceError], codes: frozenset[int]
) -> None:
    fault = wire.refused(ASKED, {"code": code, "message": "Slot 5"})

    assert isinstance(fault.error, kind)
    assert isinstance(fault.error, SourceRejected | SourceUnavailable)
    assert fault.error.code in codes
    assert not fault.rests
    assert not wire.SKIPPED_CODES & wire.PRUNED_CODES & wire.NOT_YET_CODES


def test_an_error_counts_whatever_its_id_is() -> None:
    """A server that cannot read a request answers with an id of null."""
    fault = wire.decode_answer(answer(id=None, error={"code": -32600, "message": "x"}), 7, ASKED)

    assert isinstance(fault, wire.Fault)
    assert isinstance(fault.error, SourceRejected)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (408, b"", SourceUnavailable),
        (429, b"", SourceUnavailable),
        (429, answer(id=1, error={"code": -32602, "message": "x"}), SourceUnavailable),
        (500, b"oops", SourceUnavailable),
        (502, b"<html>", SourceUnavailable),
        (503, b"", SourceUnavailable),
        (504, b"", SourceUnavailable),
        (500, answer(id=1, error={"code": -32602, "message": "x"}), SourceRejected),
        (400, answer(id=1, error={"code": 429, "message": "slow down"}), SourceUnavailable),
        (400, b"", SourceRejected),
        (401, b"", SourceRejected),
        (403, answer(id=1, error={"code": 429, "message": "x"}), SourceRejected),
        (404, b"", SourceRejected),
        (301, b"", SourceRejected),
        (413, b"", SourceRejected),
    ],
)
def test_what_an_http_status_means(status: int, body: bytes, expected: type[Exception]) -> None:
    assert isinstance(wire.failed(ASKED, status, 3.0, body).error, expected)


def test_a_pause_that_the_server_asked_for_is_kept() -> None:
    error = wire.failed(ASKED, 429, 3.0, b"").error

    assert isinstance(error, SourceUnavailable)
    assert error.retry_after_s == 3.0


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        (None, DATE, None),
        ("0", DATE, 0.0),
        (" 12 ", None, 12.0),
        ("86400", None, wire.RETRY_AFTER_S_MAX),
        ("-1", None, None),
        ("1.5", None, None),
        ("\u0661", None, None),  # a digit, but not one of HTTP's
        ("soon", DATE, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:27:30 GMT", DATE, 0.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", DATE, 30.0),
        ("Fri, 21 Oct 2050 07:28:00 GMT", DATE, wire.RETRY_AFTER_S_MAX),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "no date", None),
    ],
)
def test_retry_after(value: str | None, date: str | None, expected: float | None) -> None:
    assert wire.retry_after_s(value, date) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://mainnet.example/v2/SECRETSECRET", "https://mainnet.example"),
        ("https://node.example/?api-key=SECRET", "https://node.example"),
        ("https://user:SECRET@node.example:8899/x#SECRET", "https://node.example:8899"),
        ("wss://node.example/SECRET", "wss://node.example"),
        ("http://[::1]:8899", "http://[::1]:8899"),
        ("SECRET", "(no URL)"),
        ("https://node.example:SECRET/", "(no URL)"),
        ("https://[SECRET/", "(no URL)"),
        ("", "(no URL)"),
    ],
)
def test_a_logged_url_shows_the_host_only(url: str, expected: str) -> None:
    assert wire.logged_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://node.example/?api-key=sekrit%2Fkey",
        "https://node.example/v2/sekrit%2Fkey",
        "https://me:sekrit%2Fkey@node.example/",
    ],
)
@pytest.mark.parametrize("echo", ["bad key sekrit/key", "bad key sekrit%2Fkey"])
def test_a_key_that_a_server_echoes_is_not_repeated(url: str, echo: str) -> None:
    asked = wire.Asked("getSlot", wire.logged_url(url), secrets_of(url))

    error = wire.refused(asked, {"code": -32602, "message": echo}).error

    assert "sekrit" not in str(error)
    assert "bad key …" in str(error)


def test_a_long_message_is_cut() -> None:
    error = wire.refused(ASKED, {"code": 1, "message": "x" * 100_000}).error

    assert len(str(error)) < 400


def test_the_real_answer_about_an_unsupported_version() -> None:
    live = vectors.load("stream/live_2026-09-28_getTransaction_error_v1_not_supported.json")

    fault = wire.decode_answer(msgspec.json.encode(live["response"]), 1, ASKED)

    assert isinstance(fault, wire.Fault)
    assert isinstance(fault.error, SourceRejected)
    assert fault.error.code == wire.UNSUPPORTED_VERSION
    assert '"maxSupportedTransactionVersion": 1' in str(fault.error)
