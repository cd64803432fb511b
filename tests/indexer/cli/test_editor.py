"""What an editor is, where its text lies; the rest of it is in `test_secret_edit`."""

import signal
import tempfile
from pathlib import Path

import pytest

from indexer.cli.command import CommandFailed
from indexer.cli.editor import Watch, command_of, private_place, run


@pytest.mark.parametrize(
    ("environ", "command"),
    [
        ({}, ["vi"]),
        ({"EDITOR": " "}, ["vi"]),
        ({"EDITOR": "nano -w"}, ["nano", "-w"]),
        ({"VISUAL": "'/opt/my editor'", "EDITOR": "nano"}, ["/opt/my editor"]),
        ({"VISUAL": "", "EDITOR": "nano; rm -r /"}, ["nano;", "rm", "-r", "/"]),
    ],
)
def test_the_editor_is_as_everywhere_and_no_shell_reads_it(
    environ: dict[str, str], command: list[str]
) -> None:
    assert command_of(environ) == command


def test_the_text_is_on_no_disk_where_that_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with private_place({"XDG_RUNTIME_DIR": str(tmp_path)}) as place:
        assert place.parent == tmp_path
        (place / "below").mkdir()
        (place / "below" / "file").touch()

    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_disk_is_the_last_resort_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    real = tempfile.mkdtemp

    def not_in_memory(*, prefix: str, dir: str | None) -> str:
        if dir is not None:
            raise PermissionError
        return real(prefix=prefix)

    monkeypatch.setattr(tempfile, "mkdtemp", not_in_memory)

    with private_place({}) as place:
        assert place.parent == tmp_path

    assert "may be on a disk" in capsys.readouterr().err


def test_nowhere_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(tempfile, "mkdtemp", nowhere)

    with pytest.raises(CommandFailed, match="no directory"), private_place({}):
        pass


def test_signals_mean_what_they_did_before_afterwards() -> None:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = [signal.getsignal(number) for number in numbers]

    with Watch() as watch:
        signal.raise_signal(signal.SIGINT)
        assert (watch.interrupted, watch.ending) == (True, None)
        signal.raise_signal(signal.SIGTERM)
        assert watch.ending is signal.SIGTERM

    assert [signal.getsignal(number) for number in numbers] == before


def test_no_editor_is_started_once_we_are_to_end(tmp_path: Path) -> None:
    with Watch() as watch:
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(CommandFailed, match="stopped by SIGHUP"):
            run(["touch"], tmp_path / "started", watch)

    assert list(tmp_path.iterdir()) == []
