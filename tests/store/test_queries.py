"""Every statement of `queries.sql` fits the schema, its callers, and a libSQL server."""

import re
from pathlib import Path

import apsw
import pytest

import store
from indexer.errors import InvariantError
from store import migrate, queries
from store.connection import run
from store.queries import QUERIES


STORE = Path(store.__file__ or "").parent

#: Tables that stay small by nature: reading them whole is what their queries are for.
SMALL = {
    "sqlite_sequence",
    "instances",
    "leases",
    "replays",
    "sightings",
    "dead_letters",
    "api_keys",
    "health",
    "measures",
    "webhook_endpoints",
    "watch_keys",
}
#: Count along an index.
COUNTS = {
    "payment_counts",
    "payments_in_review_count",
    "webhook_event_counts",
    "webhook_deliveries_counts",
    "charge_counts",
}
#: An audit looks at every event once: that is what it is for.
WHOLE = {"audit_log_holes", "watch_key_take_in"}
#: Read along an index and stop at their limit.
LIMITED = {"gaps_listing", "gaps_listing_open", "ids_in_review", "card_ids_in_review"}


@pytest.fixture(scope="module")
def schema() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    for migration in migrate.known():
        run(connection, migrate.batch(migration))
    return connection


def parameter_count(sql: str) -> int:
    numbered = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    return max(numbered) if numbered else sql.count("?")


@pytest.mark.parametrize("name", QUERIES)
def test_a_statement_fits_the_schema(schema: apsw.Connection, name: str) -> None:
    schema.execute("EXPLAIN " + QUERIES[name], (None,) * parameter_count(QUERIES[name]))


@pytest.mark.parametrize("name", sorted(QUERIES.keys() - COUNTS - LIMITED - WHOLE))
def test_no_statement_reads_a_large_table_whole(schema: apsw.Connection, name: str) -> None:
    plan = schema.execute(
        "EXPLAIN QUERY PLAN " + QUERIES[name], (None,) * parameter_count(QUERIES[name])
    )
    tables = {row[0] for row in schema.execute("SELECT name FROM sqlite_schema")}
    scanned = {step.split()[1] for (*_, step) in plan if step.startswith("SCAN ")}

    assert scanned & (tables - SMALL) == set()


@pytest.mark.parametrize("name", QUERIES)
def test_a_statement_runs_on_a_server_too(name: str) -> None:
    sql = QUERIES[name]

    assert ";" not in sql
    assert not re.search(r"\b(PRAGMA|ATTACH|TEMP|TEMPORARY|VACUUM)\b", sql, re.IGNORECASE)
    assert not re.search(r"[:@$]\w", sql)
    # Numbered or not, never both: the numbers of `?` would depend on where it stands.
    assert len({bool(digits) for digits in re.findall(r"\?(\d*)", sql)}) <= 1


def test_each_statement_is_used_and_each_use_has_one() -> None:
    code = "".join(path.read_text() for path in STORE.glob("*.py"))
    words = set(re.findall(r'"(\w+)"', code))
    used = set(re.findall(r'QUERIES\["(\w+)"\]', code))

    assert QUERIES.keys() - words == set()
    assert used - QUERIES.keys() == set()


def test_a_name_stands_for_one_statement() -> None:
    with pytest.raises(InvariantError, match="twice"):
        queries._load("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")
