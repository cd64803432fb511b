"""What `doctor` finds in a database, and on the servers that hold it."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from solders.keypair import Keypair

from indexer.cli import doctor_database
from indexer.cli.checks import Finding, Grade
from indexer.cli.doctor_database import of_clock, of_database, of_servers
from indexer.demo.sqld.launcher import Sqld
from indexer.settings import Settings
from store import deployment, leases, migrate, watch_keys
from store.database import Database, open_database
from store.leases import Instance
from store.migrate import Migration
from store.watch_keys import Purpose
from tests.instructions import key
from tests.ports import free_port
from tests.servers.tokens import public_key, token


NOW = 1_790_000_000


def clock() -> float:
    return NOW


def bad(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.grade is not Grade.OK]


def of(findings: list[Finding], check: str) -> Finding:
    [found] = [each for each in findings if each.check == check]
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(database_url=f"sqlite:///{tmp_path}/axiom.db")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = await open_database(settings.database_url)
    await migrate.migrate(database)
    yield database
    await database.close()


async def test_it_is_looked_at_and_not_made(settings: Settings, tmp_path: Path) -> None:
    [missing], _ = await of_database(settings, clock=clock)
    assert missing.grade is Grade.WARN
    assert list(tmp_path.iterdir()) == []

    database = await open_database(settings.database_url)
    [old], _ = await of_database(settings, clock=clock)
    await migrate.migrate(database)
    fresh, unknown = await of_database(settings, clock=clock)
    await deployment.put_once(database, "genesis_hash", "abc")
    _, stored = await of_database(settings, clock=clock)
    await database.close()

    assert (old.grade, old.hint) == (Grade.FAIL, "run `axiompay migrate`")
    assert (of(fresh, "database").grade, unknown, stored) == (Grade.OK, None, "abc")


async def test_a_file_that_is_no_database_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "axiom.db").write_text("not a database, but long enough to be read as one" * 100)

    [finding], _ = await of_database(settings, clock=clock)

    assert finding.grade is Grade.FAIL


@pytest.mark.parametrize(
    ("runs_with", "grade", "says"),
    [
        (len(migrate.known()), Grade.WARN, "_next.sql of a newer release, which this one runs on"),
        (None, Grade.FAIL, "upgrade to the release that applied it"),
    ],
)
async def test_a_newer_schema_is_told(
    settings: Settings, database: Database, runs_with: int | None, grade: Grade, says: str
) -> None:
    number = len(migrate.known()) + 1
    newer = Migration(number, f"{number:04d}_next.sql", "0", ("CREATE TABLE n (n)",), runs_with)
    await migrate.migrate(database, migrations=[*migrate.known(), newer])

    findings, _ = await of_database(settings, clock=clock)

    assert of(findings, "database").grade is grade
    assert says in of(findings, "database").found


async def test_that_payments_can_be_given_a_watch_key_is_looked_at(
    settings: Settings, database: Database
) -> None:
    await watch_keys.add(database, key("c"), "c", Purpose.RESERVED, now=NOW)
    none, _ = await of_database(settings, clock=clock)
    for name in ("a", "b"):
        await watch_keys.add(database, key(name), name, Purpose.SHARED, now=NOW)
    await watch_keys.retire(database, "a", now=NOW)
    some, _ = await of_database(settings, clock=clock)

    assert of(none, "watch keys").grade is Grade.WARN
    assert of(none, "watch keys").found == "0 shared, 1 reserved, 0 retired"
    assert "axiompay watch add" in of(none, "watch keys").hint
    assert of(some, "watch keys") == Finding(
        Grade.OK, "watch keys", "1 shared, 1 reserved, 1 retired"
    )


def an_indexer(number: int, version: str = "1.0") -> Instance:
    return Instance(
        id=f"host:{number}", version=version, machine="", process="", started_at=NOW - 100
    )


async def indexers_found(
    settings: Settings, database: Database, *said: tuple[Instance, int]
) -> list[tuple[str, str]]:
    await watch_keys.add(database, key("a"), "a", Purpose.SHARED, now=NOW)
    await database.write([leases.beat(each, at) for each, at in said])
    findings, _ = await of_database(settings, clock=clock)
    return [(each.check, each.found) for each in bad(findings)]


async def test_several_indexers_on_one_file_are_to_have_a_redis(
    settings: Settings, database: Database
) -> None:
    two = [(an_indexer(1), NOW), (an_indexer(2), NOW - 30), (an_indexer(3), NOW - 31)]

    assert await indexers_found(settings, database, *two) == [("redis", "2 indexers without")]
    with_redis = replace(settings, redis_url="redis://127.0.0.1:1")
    findings, _ = await of_database(with_redis, clock=clock)
    assert of(findings, "indexers") == Finding(Grade.OK, "indexers", "2 of release 1.0")


async def test_one_indexer_needs_no_redis(settings: Settings, database: Database) -> None:
    assert await indexers_found(settings, database, (an_indexer(1), NOW)) == []


async def test_two_releases_beside_each_other_are_told(
    settings: Settings, database: Database
) -> None:
    settings = replace(settings, redis_url="redis://127.0.0.1:1")
    two = [(an_indexer(1, "1.0"), NOW), (an_indexer(2, "1.1"), NOW)]

    assert await indexers_found(settings, database, *two) == [("indexers", "2 of release 1.0, 1.1")]


@pytest.mark.parametrize(
    ("told", "grade", "says"),
    [
        (NOW + 0.5, Grade.OK, "agrees"),
        (NOW + 3.0, Grade.OK, "agrees"),
        (NOW - 2.0, Grade.OK, "agrees"),
        (NOW + 3.6, Grade.WARN, "3 s ahead of"),
        (NOW - 60.0, Grade.WARN, "60 s behind"),
    ],
)
def test_clocks_may_differ_by_what_the_question_took_and_a_little(
    told: float, grade: Grade, says: str
) -> None:
    finding = of_clock(told, NOW, NOW + 1.0)

    assert finding.grade is grade
    assert says in finding.found


# -------------------------------------------------------------------------------- libSQL servers


async def prepared(url: str, shown: str | None = None) -> None:
    """The schema, and a key that is shared."""
    database = await open_database(url, token=shown)
    await migrate.migrate(database)
    await watch_keys.add(database, key("a"), "a", Purpose.SHARED, now=NOW)
    await database.close()


async def test_a_server_lets_in_who_has_the_right_token_and_a_replica_keeps_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing, stranger = Keypair(), Keypair()
    (tmp_path / "public").write_text(public_key(signing))
    monkeypatch.setenv("SQLD_AUTH_JWT_KEY_FILE", str(tmp_path / "public"))
    async with (
        Sqld.running(tmp_path / "primary") as primary,
        Sqld.running(tmp_path / "replica", primary=primary) as replica,
    ):
        await prepared(primary.url, token(signing))
        right = Settings(
            database_url=primary.url,
            database_token=token(signing),
            database_replica_urls=(replica.url,),
            redis_url="redis://127.0.0.1:1",
        )
        good, _ = await of_database(right, clock=time.time)
        refused = [
            (await of_database(replace(right, database_token=wrong), clock=clock))[0]
            for wrong in (token(stranger), "nonsense", None)
        ]

    name = replica.url.removeprefix("http://")
    assert bad(good) == []
    assert of(good, "database clock").found == "agrees with this machine's"
    assert "has all" in of(good, f"replica {name}").found
    for [finding] in refused:
        assert finding.grade is Grade.FAIL
        assert "answers 401" in finding.found
        assert "AXIOM_DATABASE_TOKEN" in finding.hint
        assert token(stranger) not in str(finding)


async def test_a_replica_that_is_away_frozen_or_another_database_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_database, "ANSWER_S_MAX", 0.5)
    monkeypatch.setattr(doctor_database, "CATCH_UP_S_MAX", 0.1)
    away = f"http://127.0.0.1:{free_port()}"
    async with (
        Sqld.running(tmp_path / "primary") as primary,
        Sqld.running(tmp_path / "younger") as younger,
        Sqld.running(tmp_path / "empty") as empty,
        Sqld.running(tmp_path / "frozen", primary=primary) as frozen,
    ):
        await prepared(primary.url)
        await prepared(younger.url)
        database = await open_database(primary.url)
        for name in "xyz":
            await watch_keys.add(database, key(name), name, Purpose.SHARED, now=NOW)
        await database.close()
        frozen.pause()
        replicas = (away, younger.url, empty.url, frozen.url)
        settings = Settings(database_url=primary.url, database_replica_urls=replicas)
        _, gone, behind, other, silent = await of_servers(settings, clock=clock)
        backwards = Settings(database_url=younger.url, database_replica_urls=(primary.url,))
        _, ahead = await of_servers(backwards, clock=clock)
        frozen.resume()

    assert [each.grade for each in (gone, behind, other, silent, ahead)] == [
        Grade.FAIL,
        Grade.WARN,
        Grade.FAIL,
        Grade.FAIL,
        Grade.FAIL,
    ]
    assert "cannot be reached" in gone.found
    assert "3 writes behind" in behind.found
    assert "holds another database" in other.found
    assert "has not answered" in silent.found
    assert "ahead of the primary" in ahead.found
    assert all(each.hint for each in (gone, behind, other, silent, ahead))


async def test_too_many_writers_on_one_server_are_told(tmp_path: Path) -> None:
    async with Sqld.running(tmp_path / "sqld") as server:
        await prepared(server.url)
        database = await open_database(server.url)
        await database.write([leases.beat(an_indexer(number), NOW) for number in range(9)])
        await database.close()
        settings = Settings(database_url=server.url, redis_url="redis://127.0.0.1:1")
        findings, _ = await of_database(settings, clock=clock)

    [*_, too_many] = [each for each in findings if each.check == "indexers"]
    assert (too_many.grade, too_many.found) == (Grade.WARN, "9 on one server")
    assert bad(findings)[-1].check == "database clock"  # the clock of this test is not the server's


async def test_a_server_that_is_not_there_fails() -> None:
    settings = Settings(database_url=f"http://127.0.0.1:{free_port()}")

    [finding], stored = await of_database(settings, clock=clock)

    assert (finding.grade, stored) == (Grade.FAIL, None)
    assert "cannot be reached" in finding.found
    assert finding.hint == "see AXIOM_DATABASE_URL"
