"""A server's tables, a page at a time: all of one moment, none twice, none left out."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from indexer.demo.sqld.launcher import Sqld
from indexer.errors import StoreUnavailable
from store import backup_server
from store.database import Statement, open_database


def silent(done: int, total: int) -> None:
    """Nobody listens."""


async def test_values_of_every_kind_come_as_they_are(
    sqld: Sqld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also rows whose numbers have gaps, and keys of several columns that equal each other."""
    monkeypatch.setattr(backup_server, "ROWS_AT_ONCE", 3)
    database = await open_database(sqld.url)
    await database.write(
        [
            Statement("CREATE TABLE plain (x, y TEXT)"),
            Statement("CREATE TABLE pairs (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID"),
            *(Statement("INSERT INTO pairs VALUES (?, ?)", (f"{n // 5}", n)) for n in range(20)),
            *(
                Statement("INSERT INTO plain (x, y) VALUES (?, ?)", (value, "ü'\"\x00z"))
                for value in (None, 0, 2**53 + 1, -(2**63), 2**63 - 1, "", b"", b"\x00\xff")
            ),
            Statement("DELETE FROM plain WHERE x = 0"),
        ]
    )
    draft = tmp_path / "draft"
    await backup_server.fetch(sqld.url, None, draft, silent)

    queries = ("SELECT rowid, x, y FROM plain ORDER BY 1", "SELECT * FROM pairs ORDER BY 1, 2")
    with closing(apsw.Connection(str(draft))) as copy:
        found = [copy.execute(sql).fetchall() for sql in queries]
    assert found == await database.read([Statement(sql) for sql in queries])
    assert [len(rows) for rows in found] == [7, 20]
    await database.close()


async def test_rows_that_are_too_much_for_one_answer_come_one_by_one(
    sqld: Sqld, tmp_path: Path
) -> None:
    database = await open_database(sqld.url)
    await database.write([Statement("CREATE TABLE large (x TEXT)")])
    for _ in range(12):
        await database.write([Statement("INSERT INTO large VALUES (?)", ("x" * 1_500_000,))])
    await database.close()

    await backup_server.fetch(sqld.url, None, tmp_path / "draft", silent)

    with closing(apsw.Connection(str(tmp_path / "draft"))) as copy:
        sizes = copy.execute("SELECT length(x) FROM large").fetchall()
    assert sizes == [(1_500_000,)] * 12


async def test_a_server_that_goes_away_is_said(sqld: Sqld, tmp_path: Path) -> None:
    sqld.kill()

    with pytest.raises(StoreUnavailable):
        await backup_server.fetch(sqld.url, None, tmp_path / "draft", silent)
