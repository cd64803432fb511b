"""What holds for every command: exit codes, one line for what goes wrong, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from indexer import cli
from indexer.errors import (
    AxiomError,
    ConfigError,
    InvalidInput,
    InvariantError,
    SourceUnavailable,
)
from tests.indexer.cli.conftest import Run


ROOT = Path(__file__).parents[3]
RECIPIENT = "So11111111111111111111111111111111111111112"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["up", "extra"],
        ["keys"],
        ["keys", "create", "shop"],
        ["keys", "create", "shop", "--scopes", "payments:read,everything"],
        ["payments"],
        ["payments", "create", "1"],
        ["payments", "create", "1", "SOL", "--metadata", "no-equals"],
        ["payments", "create", "1", "SOL", "--expires-in-s", "soon"],
        ["payments", "show", "pay_short"],
        ["payments", "list", "--status", "paid"],
        ["payments", "list", "--limit", "0"],
        ["payments", "list", "--created-after", "2026-11-22"],
        ["payments", "list", "--lim", "5"],
        ["migrate", "--chek"],
    ],
)
def test_wrong_arguments_end_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.code == 2
    assert result.out == ""
    assert "axiompay" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dlq", "show", "\udcff"],
        ["keys", "create", "shop\udcfe", "--scopes", "payments:read"],
        ["payments", "list", "--order-id", "\udcff"],
        ["\udcff"],
    ],
)
def test_bytes_that_are_no_text_end_with_2(migrated: Run, arguments: list[str]) -> None:
    result = migrated(*arguments)

    assert result.code == 2
    assert result.out == ""
    assert result.err.endswith("is no argument: it is not UTF-8 text\n")
    assert "\\udcf" in result.err


def test_all_wrong_settings_are_listed_and_end_with_2(run: Run) -> None:
    result = run("payments", "list", PORT="x", RPC_URLS="ftp://a", TOKENS="USDC", HOTS="y")

    assert result.code == 2
    assert result.out == ""
    lines = result.err.splitlines()
    assert lines[0] == "axiompay: warning: AXIOM_HOTS is ignored: did you mean AXIOM_HOST?"
    assert {line.split(":")[1].strip() for line in lines[1:]} == {
        "AXIOM_PORT",
        "AXIOM_RPC_URLS",
        "AXIOM_TOKENS",
    }


@pytest.mark.parametrize(
    "arguments", [["--env-file", "my.env", "migrate"], ["migrate", "--env-file", "my.env"]]
)
def test_the_env_file_may_be_named_before_or_after(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "my.env").write_text("AXIOM_DATABASE_URL=sqlite:///other.db\n")

    assert run(*arguments).code == 0
    assert (tmp_path / "other.db").exists()


def test_dotenv_in_the_folder_is_read_by_itself(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AXIOM_DATABASE_URL=sqlite:///other.db\n")

    assert run("migrate").code == 0
    assert (tmp_path / "other.db").exists()


def test_a_missing_env_file_ends_with_2(run: Run) -> None:
    result = run("migrate", "--env-file", "nowhere")

    assert (result.code, result.err) == (
        2,
        "axiompay: cannot read nowhere: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([SourceUnavailable("away")], 1),
        ([ConfigError(("one", "two"))], 2),
        ([InvalidInput("amount", "is zero")], 2),
        ([AxiomError("odd"), ConfigError(("one",))], 2),
    ],
)
def test_each_error_has_its_exit_code(
    errors: list[AxiomError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.explain(errors) == code

    said = capsys.readouterr().err.splitlines()
    assert len(said) == sum(
        len(error.problems) if isinstance(error, ConfigError) else 1 for error in errors
    )
    assert all(line.startswith("axiompay: ") for line in said)


def test_an_error_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(InvariantError):
        cli.explain([InvariantError("impossible")])


def test_what_a_group_of_tasks_died_of_is_explained(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        inner = ExceptionGroup("", [SourceUnavailable("the node is away")])
        raise ExceptionGroup("", [inner, ConfigError(("AXIOM_PORT: taken",))])

    monkeypatch.setattr("indexer.daemon.run", dies)

    result = run("up")

    assert result.code == 2
    assert result.err == "axiompay: the node is away\naxiompay: AXIOM_PORT: taken\n"


def test_a_reader_that_leaves_early_is_no_error(migrated: Run, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "indexer", "payments", "export", "--env-file", "/dev/null"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()

    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("redirections", "code", "says"),
    [
        (">&-", 0, ""),
        ("<&- >&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "axiompay: the answer cannot be written: No space left on device\n"),
    ],
)
def test_an_answer_that_nobody_can_take_is_no_crash(
    migrated: Run, tmp_path: Path, redirections: str, code: int, says: str
) -> None:
    migrated("payments", "create", "1", "SOL", "--recipient", RECIPIENT)

    done = subprocess.run(
        ["sh", "-c", f'"$0" -m indexer payments export {redirections}', sys.executable],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, "", says)
