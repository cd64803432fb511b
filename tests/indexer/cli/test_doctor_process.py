"""One process is asked, and nothing around it."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from api.limits import INDEXER_REPORT_AGE_MAX_S
from indexer.cli import doctor_process
from indexer.cli.checks import Grade
from indexer.cli.doctor_process import of_api, of_indexer
from indexer.errors import ConfigError
from indexer.settings import Settings
from store import health, migrate
from store.database import open_database
from tests.api.running import running
from tests.indexer.cli.conftest import Run
from tests.ports import free_port


NOW = 1_790_000_000
HERE = socket.gethostname()


async def test_an_api_that_answers_is_well_whatever_is_wrong_around_it(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        async with api.session.get("/readyz") as answer:
            assert answer.status == 503  # nobody follows the chain
            port = answer.url.port
        assert port is not None
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            assert (await of_api(Settings(host=host, port=port))).grade is Grade.OK


async def test_an_api_that_is_not_there_fails() -> None:
    finding = await of_api(Settings(port=free_port()))

    assert finding.grade is Grade.FAIL
    assert "cannot be reached" in finding.found
    assert finding.hint


@asynccontextmanager
async def something(status: int) -> AsyncIterator[Settings]:
    """Serves where the API should; sends nobody elsewhere who does not want to be sent."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/livez", handle)
    app.router.add_get("/elsewhere", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield Settings(port=port)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("status", [404, 307, 500])
async def test_what_answers_otherwise_is_not_the_api(status: int) -> None:
    async with something(status) as settings:
        finding = await of_api(settings)

    assert finding.grade is Grade.FAIL
    assert f"answers {status}" in finding.found


async def test_an_api_that_is_stuck_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_process, "ANSWER_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        finding = await of_api(Settings(port=listening.getsockname()[1]))

    assert finding.grade is Grade.FAIL
    assert "has not answered for 0.2 s" in finding.found


@pytest.mark.parametrize(
    ("instance", "age_s", "grade", "says"),
    [
        (f"{HERE}:7:ab", 0, Grade.OK, "told of itself 0 s ago"),
        (f"{HERE}:7:ab", INDEXER_REPORT_AGE_MAX_S, Grade.OK, "s ago"),
        (f"{HERE}:7:ab", -5, Grade.OK, "told of itself 0 s ago"),
        (f"{HERE}:7:ab", INDEXER_REPORT_AGE_MAX_S + 1, Grade.FAIL, "has told of itself for 31 s"),
        (f"{HERE}2:7:ab", 0, Grade.FAIL, "has ever told of itself"),
        ("", 0, Grade.FAIL, "has ever told of itself"),
    ],
)
async def test_an_indexer_is_well_that_told_of_itself_lately_on_this_machine(
    tmp_path: Path, instance: str, age_s: int, grade: Grade, says: str
) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/axiom.db")
    database = await open_database(settings.database_url)
    await migrate.migrate(database)
    told = health.report("indexer", None, NOW - age_s, instance=instance)
    await database.write([told, health.report("rpc", "down", NOW, instance=instance)])
    await database.close()

    finding = await of_indexer(settings, now=NOW)

    assert finding.grade is grade
    assert says in finding.found


async def test_without_a_database_no_indexer_is_well(tmp_path: Path) -> None:
    missing = await of_indexer(Settings(database_url=f"sqlite:///{tmp_path}/axiom.db"), now=NOW)
    away = await of_indexer(Settings(database_url=f"http://127.0.0.1:{free_port()}"), now=NOW)

    assert [missing.grade, away.grade] == [Grade.FAIL, Grade.FAIL]
    assert "does not exist" in missing.found
    assert "cannot be reached" in away.found
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError):
        await of_indexer(Settings(database_url="sqlite:////nowhere/at/all/axiom.db"), now=NOW)


def test_the_command_ends_with_1_for_what_is_not_well(migrated: Run) -> None:
    for process in ("api", "indexer"):
        result = migrated("doctor", "--process", process, "--json", PORT=str(free_port()))

        [finding] = [json.loads(line) for line in result.lines]
        assert result.code == 1
        assert (finding["grade"], finding["check"]) == ("FAIL", process)
