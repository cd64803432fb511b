"""The alerts name figures that are served, and tell of commands that exist."""

import re
import shlex
import time
from pathlib import Path

import pytest

from indexer.cli.arguments import build_parser
from indexer.core.profile import PartnerSecrets
from indexer.core.profile_reader import read
from indexer.partners.desk import Partners
from store import cursors, health
from store.cursors import Frontier
from store.limiter import Limiter
from store.shared import Shared
from tests.api.running import NOW, WATCH_KEY, running


ALERTS = (Path(__file__).resolve().parents[2] / "deploy" / "alerts.yml").read_text()


async def test_every_figure_that_an_alert_names_is_served(tmp_path: Path) -> None:
    named = set(re.findall(r"\baxiom_[a-z_]+", ALERTS))
    (profile,) = read(
        '[partner]\nbase_url = "https://partner.example"\nroutes.a.path = "/a"', "test"
    )
    secrets = {profile.name: PartnerSecrets()}
    limiter = Limiter(None, time.monotonic)
    async with (
        Shared("redis://127.0.0.1:1") as shared,
        Partners(
            [profile], secrets, shared=None, limiter=limiter, monotonic=time.monotonic
        ) as partners,
        running(tmp_path, partners=partners, shared=shared) as api,
    ):
        frontier = Frontier(key=WATCH_KEY, slot=1, block_time=NOW, updated_at=NOW)
        await api.database.write([health.report("indexer", None, NOW), cursors.advance(frontier)])
        await api.create()
        async with api.session.get("/metrics") as response:
            text = await response.text()
    served = set(re.findall(r"^# TYPE (axiom_[a-z_]+)", text, re.MULTILINE))
    served |= {f"{name}_{part}" for name in served for part in ("bucket", "count")}

    assert len(named) > 10
    assert named - served == set()


COMMANDS = re.findall(r"axiompay [a-z]+(?: [a-z]+)?(?: --[a-z]+(?: [a-z]+)?)*", ALERTS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_that_an_alert_names_exists(command: str) -> None:
    arguments = build_parser().parse_args(shlex.split(command)[1:])

    assert arguments.command is not None
