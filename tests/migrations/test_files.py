"""The files as they are shipped."""

import re
from importlib.resources import files

import pytest

from store import migrate


SHIPPED = migrate.known()


async def test_the_schema_for_people_is_the_sum_of_the_files() -> None:
    """If this fails: `python -m store.migrate --write-schema`."""
    shown = files("migrations").joinpath("schema.sql").read_text(encoding="utf-8")

    assert shown == await migrate.schema_of_all_migrations()


def test_every_file_is_taken_for_what_it_is() -> None:
    names = {file.name for file in files("migrations").iterdir() if file.name.endswith(".sql")}

    assert names == {migration.name for migration in SHIPPED} | {"schema.sql"}


@pytest.mark.parametrize("migration", SHIPPED, ids=lambda migration: migration.name)
def test_every_statement_can_be_one_of_a_batch(migration: migrate.Migration) -> None:
    """On a libSQL server as well: nothing that it refuses, nothing that ends the transaction."""
    for sql in migration.statements:
        code = re.sub(r"--.*", "", sql)

        assert not re.search(r"^\s*(PRAGMA|ATTACH|VACUUM|BEGIN|COMMIT|END|ROLLBACK)\b", code)
        assert not re.search(r"\b(TEMP|TEMPORARY|DEFERRABLE)\b", code)


@pytest.mark.parametrize("migration", SHIPPED, ids=lambda migration: migration.name)
def test_every_table_is_strict(migration: migrate.Migration) -> None:
    tables = [sql for sql in migration.statements if re.search(r"^CREATE TABLE", sql, re.MULTILINE)]

    assert tables
    assert [sql for sql in tables if not re.search(r"\) STRICT(, WITHOUT ROWID)?;$", sql)] == []
