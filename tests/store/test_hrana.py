import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from indexer.errors import Conflict, InvariantError, StoreBroken, StoreError, StoreUnavailable
from store.connection import Statement
from store.hrana import ReadRequest, Steps, Unreadable, WriteRequest, mapped, read_answer


READ = Statement("SELECT 1")
PUT = Statement("INSERT INTO t VALUES (?)", (1,))


def steps_of(body: bytes) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(body)["requests"][0]["batch"]["steps"]
    return steps


def answer(results: list[Any], errors: list[Any] | None = None, index: Any = "7") -> bytes:
    result = {
        "step_results": results,
        "step_errors": errors or [None] * len(results),
        "replication_index": index,
    }
    ok = {"type": "ok", "response": {"type": "batch", "result": result}}
    return json.dumps({"baton": None, "results": [ok, {"type": "ok"}]}).encode()


def rows(*values: Any) -> dict[str, Any]:
    return {"cols": [], "rows": [list(values)] if values else [], "affected_row_count": 0}


DONE = rows()
REFUSED = {"message": "SQLite error: UNIQUE constraint failed: t.x", "code": "SQLITE_CONSTRAINT"}

VALUES: list[tuple[Any, dict[str, Any]]] = [
    (None, {"type": "null"}),
    (2**53 + 1, {"type": "integer", "value": "9007199254740993"}),
    (-(2**63), {"type": "integer", "value": "-9223372036854775808"}),
    (True, {"type": "integer", "value": "1"}),
    ("ü\0", {"type": "text", "value": "ü\0"}),
    (b"\x00\xff", {"type": "blob", "base64": "AP8="}),
    (b"", {"type": "blob", "base64": ""}),
]


@pytest.mark.parametrize(("value", "encoded"), VALUES)
def test_a_value_goes_out_and_comes_back_as_it_is(value: Any, encoded: dict[str, Any]) -> None:
    request = ReadRequest([Statement("SELECT ?", (value,))])

    assert steps_of(request.body())[1]["stmt"]["args"] == [encoded]
    assert request.outcome(answer([DONE, rows(encoded), DONE])) == ([[(value,)]], 7)


def test_a_blob_is_read_with_and_without_its_padding() -> None:
    for text in ("AP8=", "AP8"):
        found, _ = ReadRequest([READ]).outcome(
            answer([DONE, rows({"type": "blob", "base64": text}), DONE])
        )
        assert found == [[(b"\x00\xff",)]]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(InvariantError, match="64 bits"):
        Steps().add(Statement("SELECT ?", (value,)))


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvariantError, match="no Unicode"):
        ReadRequest([Statement("SELECT ?", ("\ud800",))]).body()


@pytest.mark.parametrize(
    "sql", ["INSERT INTO t VALUES (1)", "DELETE FROM t", "PRAGMA user_version"]
)
def test_a_read_batch_does_not_write(sql: str) -> None:
    with pytest.raises(InvariantError, match="a read batch writes"):
        ReadRequest([READ, Statement(sql)])


def test_a_read_names_the_index_that_it_waits_for() -> None:
    request = ReadRequest([READ])

    assert "replication_index" not in json.loads(request.body())["requests"][0]["batch"]
    batch = json.loads(request.body(index=12))["requests"][0]["batch"]
    assert batch["replication_index"] == "12"


def test_a_read_is_one_transaction_that_a_replica_sees_through() -> None:
    steps = steps_of(ReadRequest([READ, READ]).body())

    assert [step["stmt"]["sql"] for step in steps] == [
        "BEGIN READONLY",
        READ.sql,
        READ.sql,
        "COMMIT",
    ]
    assert not any("condition" in step for step in steps)  # else replicas ask the primary


def test_a_group_is_one_transaction_in_which_each_batch_may_fail_alone() -> None:
    # begin; savepoint, statement, release, rollback to, release (twice); commit, rollback
    request = WriteRequest([[PUT], [PUT]])
    sql = [step["stmt"]["sql"] for step in steps_of(request.body())]
    assert sql[0] == "BEGIN IMMEDIATE"
    assert sql[-2:] == ["COMMIT", "ROLLBACK"]
    assert sql.count("SAVEPOINT batch") == 2

    good = [DONE, rows({"type": "integer", "value": "5"}), DONE, None, None]
    bad = [DONE, None, None, DONE, DONE]
    errors = [None, *[None] * 5, None, REFUSED, *[None] * 3, None, None]
    outcomes, before = request.outcomes(answer([DONE, *good, *bad, DONE, None], errors))

    assert outcomes[0] == [[(5,)]]
    assert isinstance(outcomes[1], Conflict)
    assert str(outcomes[1]) == "UNIQUE constraint failed: t.x"
    assert before == []


def test_without_a_commit_nothing_was_applied() -> None:
    request = WriteRequest([[PUT]])
    busy = {"message": "SQLite error: database is locked", "code": "SQLITE_BUSY"}

    with pytest.raises(StoreUnavailable, match="locked"):
        request.outcomes(answer([None] * 8, [busy, *[None] * 7]))
    failed = {"message": "FOREIGN KEY constraint failed", "code": "SQLITE_CONSTRAINT"}
    given_up = answer([DONE, DONE, DONE, DONE, None, None, None, DONE], [*[None] * 6, failed, None])
    with pytest.raises(StoreUnavailable, match="the commit failed: FOREIGN KEY"):
        request.outcomes(given_up)
    with pytest.raises(StoreUnavailable, match="does not say why"):
        request.outcomes(answer([None] * 8))


def test_a_batch_without_an_end_is_our_own_fault() -> None:
    outcomes, _ = WriteRequest([[PUT]]).outcomes(
        answer([DONE, None, None, None, None, None, DONE, None])
    )

    assert isinstance(outcomes[0], InvariantError)


ERRORS: list[tuple[str | None, str, type[Exception]]] = [
    ("SQLITE_CONSTRAINT", "x", Conflict),
    ("SQLITE_CONSTRAINT_TRIGGER", "x", Conflict),
    ("PROXY_ERROR", "on the primary: UNIQUE constraint failed: t.x", Conflict),
    ("PROXY_ERROR", "SQLITE_BUSY: database is locked", StoreUnavailable),
    ("SQLITE_BUSY", "x", StoreUnavailable),
    ("SQLITE_FULL", "x", StoreUnavailable),
    ("TRANSACTION_TIMEOUT", "x", StoreUnavailable),
    ("STREAM_EXPIRED", "x", StoreUnavailable),
    ("BLOCKED", "x", StoreUnavailable),
    ("SQLITE_CORRUPT", "x", StoreBroken),
    ("SQLITE_NOTADB", "x", StoreBroken),
    ("SQL_PARSE_ERROR", "x", InvariantError),
    (None, "x", InvariantError),
]


@pytest.mark.parametrize(("code", "message", "expected"), ERRORS)
def test_an_error_of_the_server_is_one_of_ours(
    code: str | None, message: str, expected: type[Exception]
) -> None:
    assert type(mapped(code, message)) is expected


def test_a_request_that_is_refused_as_a_whole_says_why() -> None:
    refused = {"type": "error", "error": {"message": "token expired", "code": "BLOCKED"}}

    with pytest.raises(StoreUnavailable, match="token expired"):
        read_answer(json.dumps({"results": [refused]}).encode(), 3)


UNREADABLE = [
    b"",
    b"<html>",
    b"[]",
    b"{}",
    b'{"results": []}',
    b'{"results": [{"type": "ok"}]}',
    b"\xff",
    b"[" * 10_000,
    answer([DONE, DONE]),
    answer([DONE, rows({"type": "integer", "value": "1.5"}), DONE]),
    answer([DONE, rows({"type": "integer", "value": 1}), DONE]),
    answer([DONE, rows({"type": "blob", "base64": "*"}), DONE]),
    answer([DONE, rows({"type": "date", "value": "1"}), DONE]),
    answer([DONE, DONE, DONE], index="many"),
    answer([DONE, None, DONE]),
    answer([DONE, DONE, DONE]) + b"x",
]


@pytest.mark.parametrize("raw", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_answer_is_told_apart(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        ReadRequest([READ]).outcome(raw)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["results", "type", "response", "result", "step_results", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSONS)
def test_whatever_comes_it_is_an_answer_or_an_error_of_ours(body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    for request in (ReadRequest([READ]).outcome, WriteRequest([[PUT]]).outcomes):
        try:
            request(raw)
        except (Unreadable, StoreError, InvariantError):
            continue
