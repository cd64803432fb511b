"""Runs a command in the test's own loop, over the database and the nodes of a stage."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from indexer.cli.arguments import build_parser
from tests.indexer.cli.conftest import Result
from tests.indexer.daemons import settings_for
from tests.indexer.stage import Stage


class Commanding:
    """Errors are raised as they are; `indexer.cli.explain` makes lines and exit codes of them."""

    def __init__(self, it: Stage, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._settings = settings_for(folder, *it.nodes, verify_quorum=it.rpc.quorum)
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> Result:
        parsed = build_parser().parse_args(arguments)
        self._capsys.readouterr()
        with capture_logs():  # which are for standard error, once they are configured
            code: int = await parsed.command.run(parsed, self._settings)
        out, err = self._capsys.readouterr()
        return Result(code, out, err)
