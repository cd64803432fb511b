"""Batches as a libSQL server reads them, and its answers: bytes in, values out, nothing sent.

Hrana 3 over HTTP (https://github.com/tursodatabase/libsql, docs/HRANA_3_SPEC.md): one request to
`/v3/pipeline` carries a list of steps, each with the condition under which it is executed. So
a whole group of batches is one request, one transaction and one answer:

    BEGIN IMMEDIATE
      SAVEPOINT batch … RELEASE          a batch that was applied
      SAVEPOINT batch … ROLLBACK TO      a batch that was refused: alone, the others stay
    COMMIT                               where the transaction is still open

No transaction stays open when the answer is on its way, whatever became of the steps.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from indexer.errors import Conflict, InvariantError, StoreBroken, StoreError, StoreUnavailable
from store.connection import Parameter, Rows, Statement


#: What became of one batch: its rows, or why not.
Outcome = list[Rows] | Exception

#: A replica would send anything else on to the primary, which would carry it out.
_READS: Final = re.compile(r"\s*(SELECT|WITH)\b", re.IGNORECASE)
_SHOWN_MAX: Final = 80

_INTEGER_MAX: Final = 2**63 - 1

#: What the surroundings did: the same batch may succeed later.
_UNAVAILABLE: Final = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_NOMEM",
    "SQLITE_INTERRUPT",
    "SQLITE_CANTOPEN",
    "SQLITE_READONLY",
    "TRANSACTION_TIMEOUT",
    "TRANSACTION_BUSY",
    "STREAM_EXPIRED",
    "BLOCKED",
)
_BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
#: Said by a replica of what the primary refused; what it was stands in the text.
_PROXIED: Final = "PROXY_ERROR"


class _Null(msgspec.Struct, tag_field="type", tag="null"):
    pass


class _Integer(msgspec.Struct, tag_field="type", tag="integer"):
    value: str


class _Float(msgspec.Struct, tag_field="type", tag="float"):
    value: float


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    value: str


class _Blob(msgspec.Struct, tag_field="type", tag="blob"):
    base64: str = ""


_Value = _Null | _Integer | _Float | _Text | _Blob


class _Result(msgspec.Struct):
    rows: list[list[_Value]]


class _Error(msgspec.Struct):
    message: str
    code: str | None = None


class _BatchResult(msgspec.Struct):
    step_results: list[_Result | None]
    step_errors: list[_Error | None]
    replication_index: str | int | None = None


class _Response(msgspec.Struct):
    result: _BatchResult | None = None


class _Item(msgspec.Struct):
    type: str
    response: _Response | None = None
    error: _Error | None = None


class _Answer(msgspec.Struct):
    results: list[_Item]
    baton: str | None = None
    base_url: str | None = None


_answer = msgspec.json.Decoder(_Answer)


class Unreadable(Exception):
    """What came is no answer to what was asked; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the server says became of the steps.

    Attributes:
        results: rows of each step; None where it was not executed or failed.
        errors: why it failed; None where it did not.
        index: the server's replication index; None when it names none.
        baton: names the stream for the next request; None: there is none to go on with.
    """

    results: list[Rows | None]
    errors: list[StoreError | InvariantError | None]
    index: int | None
    baton: str | None = None


# ------------------------------------------------------------------------------------ what is asked


class Steps:
    """The steps of one request, each under a condition."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []

    def add(self, statement: Statement, *conditions: dict[str, Any]) -> int:
        """Appends a step that is executed when all conditions hold; returns its number."""
        sql, parameters = statement
        step: dict[str, Any] = {
            "stmt": {"sql": sql, "args": [_encoded(each) for each in parameters]}
        }
        if conditions:
            step["condition"] = (
                conditions[0] if len(conditions) == 1 else {"type": "and", "conds": conditions}
            )
        self._steps.append(step)
        return len(self._steps) - 1

    def request(
        self, *, index: int | None = None, baton: str | None = None, keeps: bool = False
    ) -> bytes:
        """The body of the request.

        Args:
            index: a replica answers once it has come so far; None: at once.
            baton: of the stream that it belongs to; None: a new one.
            keeps: the stream stays open for another request.

        Raises:
            InvariantError: a text is not Unicode.
        """
        batch: dict[str, Any] = {"steps": self._steps}
        if index is not None:
            batch["replication_index"] = str(index)
        requests: list[dict[str, Any]] = [{"type": "batch", "batch": batch}]
        if not keeps:
            requests.append({"type": "close"})
        try:
            return msgspec.json.encode({"baton": baton, "requests": requests})
        except UnicodeEncodeError as error:
            raise InvariantError(f"a parameter is no Unicode text: {error}") from error

    def __len__(self) -> int:
        return len(self._steps)


def ok(step: int) -> dict[str, Any]:
    """The step was executed and did not fail."""
    return {"type": "ok", "step": step}


def failed(step: int) -> dict[str, Any]:
    """The step failed, or was not executed."""
    return {"type": "not", "cond": ok(step)}


#: A transaction is open. An error such as a full disk ends it by itself.
OPEN: Final[dict[str, Any]] = {"type": "not", "cond": {"type": "is_autocommit"}}


def refuse_unsendable(batch: Sequence[Statement]) -> None:
    """Checks one batch by itself, so that its neighbours in a group do not fail with it.

    Raises:
        InvariantError: a text is not Unicode, or an integer has more than 64 bits.
    """
    for _, parameters in batch:
        for value in parameters:
            if isinstance(value, int):
                _encoded(value)
            elif isinstance(value, str) and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise InvariantError(f"a parameter is no Unicode text: {error}") from error


def _encoded(value: Parameter) -> dict[str, Any]:
    match value:
        case None:
            return {"type": "null"}
        case str():
            return {"type": "text", "value": value}
        case bytes():
            return {"type": "blob", "base64": b64encode(value).decode()}
        case int():
            if not -_INTEGER_MAX - 1 <= value <= _INTEGER_MAX:
                raise InvariantError(f"{value} does not fit into 64 bits")
            return {"type": "integer", "value": str(int(value))}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """What a batch of reads came to.

    Attributes:
        rows: of each statement; empty where there is an error.
        error: the first thing that failed.
        index: the replication index that they were read at; None: the server names none.
        baton: of the stream, if it stays open and no transaction is open in it.
    """

    rows: list[Rows]
    error: StoreError | InvariantError | None
    index: int | None
    baton: str | None


class ReadRequest:
    """A batch of reads, all from one moment."""

    def __init__(self, batch: Sequence[Statement]) -> None:
        self._steps = Steps()
        # Without conditions: a replica sends on to the primary what it cannot see through.
        self._steps.add(Statement("BEGIN READONLY"))
        self._wanted = []
        for statement in batch:
            if not _READS.match(statement.sql):
                raise InvariantError(f"a read batch writes: {statement.sql:.{_SHOWN_MAX}}")
            self._wanted.append(self._steps.add(statement))
        self._steps.add(Statement("COMMIT"))

    def body(
        self, *, index: int | None = None, baton: str | None = None, keeps: bool = False
    ) -> bytes:
        """What is sent; see `Steps.request`."""
        return self._steps.request(index=index, baton=baton, keeps=keeps)

    def outcome(self, raw: bytes) -> tuple[list[Rows], int | None]:
        """The rows of each statement, and the replication index that they were read at.

        Raises:
            Unreadable: this is no answer to the request.
            StoreError: the server refuses.
            InvariantError: a statement is wrong.
        """
        answer = self.answer(raw)
        if answer.error is not None:
            raise answer.error
        return answer.rows, answer.index

    def answer(self, raw: bytes) -> ReadAnswer:
        """The same, and the stream to go on with, also where a statement failed.

        Raises:
            Unreadable: this is no answer to the request.
            StoreError, InvariantError: the request as a whole was refused.
        """
        answer = read_answer(raw, len(self._steps))
        error = next((each for each in answer.errors if each is not None), None)
        rows = [answer.results[number] for number in self._wanted] if error is None else []
        if None in rows:
            raise Unreadable("a statement has neither rows nor an error")
        has_ended = answer.results[-1] is not None
        return ReadAnswer(
            rows=[each for each in rows if each is not None],
            error=error,
            index=answer.index,
            baton=answer.baton if has_ended else None,
        )


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a batch stands among the steps."""

    first: int
    statements: tuple[int, ...]
    release: int


class WriteRequest:
    """A group of batches: one transaction, in which each is applied whole or not at all."""

    def __init__(
        self, batches: Sequence[Sequence[Statement]], *, before: Sequence[Statement] = ()
    ) -> None:
        """Puts the group together.

        Args:
            batches: each all or nothing.
            before: statements of the group as a whole, which do not fail.
        """
        self._steps = Steps()
        self._begin = last = self._steps.add(Statement("BEGIN IMMEDIATE"))
        for statement in before:
            last = self._steps.add(statement, ok(last))
        self._shared = range(self._begin + 1, last + 1)
        self._places = [self._append(batch, ok(last)) for batch in batches]
        self._commit = self._steps.add(Statement("COMMIT"), ok(last), OPEN)
        self._steps.add(Statement("ROLLBACK"), OPEN)

    def _append(self, batch: Sequence[Statement], begun: dict[str, Any]) -> _Places:
        steps = self._steps
        first = last = steps.add(Statement("SAVEPOINT batch"), begun, OPEN)
        numbers = []
        for statement in batch:
            last = steps.add(statement, ok(last))
            numbers.append(last)
        release = steps.add(Statement("RELEASE batch"), ok(last))
        back = steps.add(Statement("ROLLBACK TO batch"), ok(first), failed(release), OPEN)
        steps.add(Statement("RELEASE batch"), ok(back))
        return _Places(first, tuple(numbers), release)

    def body(self) -> bytes:
        """What is sent; see `Steps.request`."""
        return self._steps.request()

    def outcomes(self, raw: bytes) -> tuple[list[Outcome], list[Rows]]:
        """What became of each batch, and the rows of the statements before them.

        Raises:
            Unreadable: this is no answer to the request: whether it was applied is unknown.
            StoreError: nothing of the group was applied.
        """
        answer = read_answer(raw, len(self._steps))
        if answer.results[self._commit] is None:
            shared = (self._begin, *self._shared, self._commit)
            raise _why_not(answer, shared, self._places)
        before = [answer.results[number] or [] for number in self._shared]
        return [_outcome(answer, places) for places in self._places], before


def _outcome(answer: Answered, places: _Places) -> Outcome:
    if answer.results[places.release] is not None:
        rows = [answer.results[number] for number in places.statements]
        return [each or [] for each in rows]
    for number in (places.first, *places.statements, places.release):
        error = answer.errors[number]
        if error is not None:
            return error
    return InvariantError("a batch was neither applied nor refused")


def _why_not(
    answer: Answered, shared: Sequence[int], places: Sequence[_Places]
) -> StoreError | InvariantError:
    """Why there was no commit: the first thing that failed for all."""
    of_all = [answer.errors[number] for number in shared]
    within = [answer.errors[number] for each in places for number in each.statements]
    for error in (*of_all, *within):
        if isinstance(error, Conflict):
            return StoreUnavailable(f"the commit failed: {error}")
        if error is not None:
            return error
    return StoreUnavailable("the server did not commit, and does not say why")


# --------------------------------------------------------------------------------- what is answered


def read_answer(raw: bytes, steps: int) -> Answered:
    """What the server says became of so many steps.

    Raises:
        Unreadable: this is no answer to such a request.
        StoreError: the request as a whole was refused.
    """
    try:
        answer = _answer.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"no Hrana answer: {error}") from error
    item = answer.results[0] if answer.results else None
    if item is not None and item.type == "error" and item.error is not None:
        raise mapped(item.error.code, item.error.message)
    result = item.response.result if item is not None and item.response is not None else None
    if result is None:
        raise Unreadable("the answer holds no result of a batch")
    if len(result.step_results) != steps or len(result.step_errors) != steps:
        raise Unreadable(f"the answer is one to {len(result.step_results)} steps, not {steps}")
    return Answered(
        results=[None if each is None else _rows(each) for each in result.step_results],
        errors=[
            None if each is None else mapped(each.code, each.message) for each in result.step_errors
        ],
        index=_index(result.replication_index),
        # One that names another host to go on with is not gone on with.
        baton=answer.baton if answer.base_url is None else None,
    )


def _index(value: str | int | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError as error:
        raise Unreadable(f"no replication index: {value!r}") from error


def _rows(result: _Result) -> Rows:
    return [tuple([_decoded(value) for value in row]) for row in result.rows]


def _decoded(value: _Value) -> str | int | float | bytes | None:
    try:
        match value:
            case _Null():
                return None
            case _Integer():
                return int(value.value)
            case _Float() | _Text():
                return value.value
            case _Blob():
                # The server leaves out the padding.
                return b64decode(value.base64 + "=" * (-len(value.base64) % 4), validate=True)
    except ValueError as error:
        raise Unreadable(f"a value cannot be read: {error}") from error


def mapped(code: str | None, message: str) -> StoreError | InvariantError:
    """Our error for one that the server names."""
    text = message.removeprefix("SQLite error: ")
    if _means(code, message, "SQLITE_CONSTRAINT") or (
        code == _PROXIED and "constraint failed" in message
    ):
        return Conflict(text)
    if any(_means(code, message, each) for each in _BROKEN):
        return StoreBroken(f"the database is damaged ({text}): put a backup in its place")
    if any(_means(code, message, each) for each in _UNAVAILABLE):
        return StoreUnavailable(text)
    return InvariantError(f"{code}: {text}")


def _means(code: str | None, message: str, wanted: str) -> bool:
    return (code or "").startswith(wanted) or (code == _PROXIED and wanted in message)
