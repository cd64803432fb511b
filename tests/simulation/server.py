"""The store on a libSQL server: the real writer and readers, a real server, and time that is not.

A world has a server of its own, which is asked over loopback while virtual time stands still. What
the product sends is what is carried out there, byte for byte; only the way is made up: requests
that never arrive, or long after everybody has given them up, or after the death of the process
that sent them; answers that are lost; a server that says that it is busy, or is killed with
signal 9.

Beside it a mirror, the same SQL on SQLite in memory, does again what the server says that it
did. It is what the world looks at between two commits of one request, where no server shows
anything, and each row that either answers must be the other's: no world ends well on a server that
does not do what SQLite does.
"""

import asyncio
import json
import tempfile
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

import apsw

from indexer.demo.sqld.launcher import Sqld
from store import migrate
from store.connection import Rows, Statement
from store.database import Database
from store.hrana import ReadRequest, WriteRequest
from store.libsql import Lost, NotSent, TimedOut
from store.libsql_readers import LibsqlReaders
from store.libsql_writer import LibsqlWriter
from tests.simulation.database import Disk, Troubles, Way, at_once
from tests.simulation.loop import VirtualLoop


#: Seconds of real time for one request: the machine may be busy.
ANSWER_S_MAX: Final = 60.0
#: How long after it was given up a request may still arrive, in virtual seconds. The writer has
#: ten to learn what became of it.
LATE_S_MAX: Final = 15.0
#: Chance that a request which is on its way arrives all the same when its sender dies.
OUTLIVES: Final = 0.3

_BUSY: Final = json.dumps(
    {"results": [{"type": "error", "error": {"message": "is busy", "code": "SQLITE_BUSY"}}]}
).encode()


class Fate(StrEnum):
    """What happens to a request on its way."""

    ANSWERED = "answered"
    NOT_SENT = "not sent"
    NOT_LET_IN = "not let in: busy"
    LOST_THERE = "lost on the way there"
    LOST_BACK = "lost on the way back"
    LATE = "late"
    KILLED = "the server is killed after it"


#: Of requests that go wrong. A server that is killed takes time to start again, so it is rare.
_FATES: Final = {
    Fate.NOT_SENT: 20,
    Fate.NOT_LET_IN: 20,
    Fate.LOST_THERE: 20,
    Fate.LOST_BACK: 20,
    Fate.LATE: 18,
    Fate.KILLED: 2,
}


class ServerDisk(Disk):
    """A server's database, and who is told of each commit; its mirror is `connection`."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="axiom-world-")
        _lay_out(Path(self._folder.name))
        self._server = Sqld(Path(self._folder.name))
        self._server.start()
        self._line = _Line(self._server.url)

    def way(self, loop: VirtualLoop, process: int, troubles: Troubles) -> Way:
        return Wire(self, loop, process, troubles)

    def apply(self, batch: Sequence[Statement], process: int) -> list[Rows]:
        request = WriteRequest([batch])
        [outcome], _ = request.outcomes(self.carry_out(request.body(), process))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def answer(self, batch: Sequence[Statement]) -> list[Rows]:
        request = ReadRequest(batch)
        return request.outcome(self.carry_out(request.body(), 0))[0]

    def carry_out(self, body: bytes, process: int) -> bytes:
        """The server's answer to a request; tells of each batch in it that was applied."""
        raw = self._line.post(body)
        self._follow(_executed(body, raw), process)
        return raw

    def restart(self) -> None:
        """The server is killed and starts again, over what it had made durable."""
        self._line.close()
        self._server.restart()

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Every table, every row; the server has the same, or this raises AssertionError.

        Without `writes`, whose rows hold the hour and the names of writers.
        """
        tables = super().dump()
        del tables["writes"]
        for name, rows in tables.items():
            [found] = self.answer([Statement(self._everything_in(name))])
            mirrored = [tuple(row.values()) for row in rows]
            assert found == mirrored, f"{name}: the server has {found}, not {mirrored}"
        return tables

    def close(self) -> None:
        self._line.close()
        self._server.kill()
        self._folder.cleanup()
        super().close()

    def _follow(self, steps: Sequence["_Step"], process: int) -> None:
        """The mirror does what the server did, step by step."""
        if not any(step.statement.sql == "COMMIT" for step in steps):
            return  # nothing of it stays
        batch: list[Statement] = []
        was_undone = False
        for step in steps:
            sql, parameters = step.statement
            if sql.startswith("BEGIN READONLY"):
                sql = "BEGIN"
            try:
                rows = self.connection.execute(sql, parameters).fetchall()
            except apsw.Error as error:
                raise AssertionError(f"the server did {sql!r}, SQLite says {error}") from error
            assert rows == step.rows, f"{sql}: the server says {step.rows}, SQLite {rows}"
            match sql:
                case "SAVEPOINT batch":
                    batch, was_undone = [], False
                case "ROLLBACK TO batch":
                    was_undone = True
                case "RELEASE batch":
                    if not was_undone:
                        self.committed(process, batch)
                case _:
                    batch.append(step.statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A request on its way.

    Attributes:
        outlives: it is carried out even when its sender has died meanwhile.
        answer: what the sender waits for.
    """

    body: bytes
    is_write: bool
    fate: Fate
    outlives: bool
    answer: "asyncio.Future[bytes]"


class Wire(Way):
    """The way of one process to a server: what the real writer and readers call a `Server`."""

    name = "sqld"

    def __init__(
        self, disk: ServerDisk, loop: VirtualLoop, process: int, troubles: Troubles
    ) -> None:
        super().__init__(loop, process, troubles)
        self._disk = disk

    def database(self) -> Database:
        server: Any = self  # the rest of a `Server` nobody asks for
        writer = LibsqlWriter(server)
        return Database(writer, LibsqlReaders(server, [], writer))

    async def post(self, body: bytes, *, timeout_s: float) -> bytes:
        """The server's answer; raises as `Server.post` does."""
        sent = self._sent(body)
        delay_s = self._troubles.delay_s()
        if sent.fate is Fate.LATE:
            delay_s = timeout_s + LATE_S_MAX * self._troubles.rng.random()
        self._loop.call_later(delay_s, self._arrive, sent)
        try:
            async with asyncio.timeout(timeout_s):
                return await sent.answer
        except TimeoutError:
            raise TimedOut(f"{self.name} has not answered for {timeout_s:g} s") from None

    async def close(self) -> None:
        pass

    def _sent(self, body: bytes) -> _Sent:
        troubles, is_write = self._troubles, b'"BEGIN IMMEDIATE"' in body
        fate = Fate.ANSWERED
        if self._draw(troubles.write_fails if is_write else troubles.read_fails):
            [fate] = troubles.rng.choices(list(_FATES), list(_FATES.values()))
        return _Sent(
            body=body,
            is_write=is_write,
            fate=fate,
            outlives=is_write and self._draw(OUTLIVES),
            answer=self._loop.create_future(),
        )

    def _arrive(self, sent: _Sent) -> None:
        if self.is_dead:
            if sent.outlives:
                self._carried_out(sent)
            return
        point = self._point(is_write=sent.is_write)
        if self._dies(f"{point}, before" if sent.is_write else point) and not sent.outlives:
            return
        result = self._carried_out(sent)
        if sent.is_write:
            self.at(f"{point}, after")
        self._tell(sent.answer, result)

    def _point(self, *, is_write: bool) -> str:
        if is_write:
            self.writes += 1
            return f"write {self.writes}"
        self.reads += 1
        return f"read {self.reads}"

    def _carried_out(self, sent: _Sent) -> bytes | Exception:
        match sent.fate:
            case Fate.NOT_SENT:
                return NotSent(f"{self.name} cannot be reached (simulated)")
            case Fate.NOT_LET_IN:
                return _BUSY
            case Fate.LOST_THERE:
                return Lost(f"{self.name} broke off (simulated)")
            case Fate.ANSWERED:
                return self._disk.carry_out(sent.body, self.process)
            case Fate.LOST_BACK | Fate.LATE:
                self._disk.carry_out(sent.body, self.process)
                return Lost(f"{self.name} broke off (simulated)")
            case Fate.KILLED:
                self._disk.carry_out(sent.body, self.process)
                self._disk.restart()
                return Lost(f"{self.name} was killed (simulated)")
            case _:
                assert_never(sent.fate)


# ---------------------------------------------------------------- what goes over the wire


class _Line:
    """Requests to the server, one after another."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_S_MAX)

    def post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v3/pipeline", body, headers)
        response = self._connection.getresponse()
        raw = response.read()
        assert response.status == 200, f"the server answers {response.status}: {raw[:200]!r}"
        return raw

    def close(self) -> None:
        self._connection.close()  # the next request opens it again


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A statement that the server executed, and its rows."""

    statement: Statement
    rows: Rows


def _executed(body: bytes, raw: bytes) -> list[_Step]:
    """What the server says that it executed; read without the product's own reader."""
    asked = json.loads(body)["requests"][0]["batch"]["steps"]
    item = json.loads(raw)["results"][0]
    if item["type"] != "ok":
        return []
    answered = item["response"]["result"]["step_results"]
    return [
        _Step(
            statement=Statement(
                step["stmt"]["sql"], tuple(map(_value, step["stmt"].get("args", ())))
            ),
            rows=[tuple(map(_value, row)) for row in result["rows"]],
        )
        for step, result in zip(asked, answered, strict=True)
        if result is not None
    ]


def _value(told: Mapping[str, Any]) -> Any:
    match told["type"]:
        case "null":
            return None
        case "integer":
            return int(told["value"])
        case "blob":
            return b64decode(told["base64"] + "==")
        case _:
            return told["value"]


@cache
def _migrated() -> Mapping[str, bytes]:
    """The files of a server whose database has the schema of all migrations, made once."""
    with tempfile.TemporaryDirectory(prefix="axiom-world-") as folder:
        server = Sqld(Path(folder))
        server.start()
        line = _Line(server.url)
        try:
            _migrate(line)
            server.stop()
            files = [path for path in Path(folder, "data").rglob("*") if path.is_file()]
            return {str(path.relative_to(folder)): path.read_bytes() for path in files}
        finally:
            line.close()
            server.kill()


def _migrate(line: _Line) -> None:
    class Inline:
        async def write(self, batch: Sequence[Statement]) -> list[Rows]:
            request = WriteRequest([batch])
            [outcome], _ = request.outcomes(line.post(request.body()))
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        async def read(self, batch: Sequence[Statement]) -> list[Rows]:
            request = ReadRequest(batch)
            return request.outcome(line.post(request.body()))[0]

        async def close(self) -> None:
            pass

    inline = Inline()
    at_once(migrate.migrate(Database(inline, inline)))


def _lay_out(folder: Path) -> None:
    for name, content in _migrated().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
