"""A file is replaced whole, by one at a time, and stays whose it was."""

import os
import stat
from pathlib import Path

import pytest

from indexer.cli.command import CommandFailed
from indexer.cli.replacing import ChangedMeanwhile, create, held, replace


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    return path


def test_it_is_replaced_with_its_mode(file: Path) -> None:
    file.chmod(0o640)

    replace(file, b"after", read=b"before")

    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_it_stays_whose_it_was(file: Path) -> None:
    os.chown(file, 1234, 5678)

    replace(file, b"after", read=b"before")

    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 5678)


def test_what_was_changed_meanwhile_is_left(file: Path) -> None:
    with pytest.raises(ChangedMeanwhile):
        replace(file, b"after", read=b"what was there earlier")

    assert file.read_bytes() == b"before"
    assert list(file.parent.iterdir()) == [file]


def test_what_is_gone_is_not_made_anew(file: Path) -> None:
    file.unlink()

    with pytest.raises(CommandFailed, match="cannot write"):
        replace(file, b"after", read=b"before")

    assert list(file.parent.iterdir()) == []


def test_only_one_holds_a_file(file: Path) -> None:
    with held(file), pytest.raises(CommandFailed, match="being edited by another"), held(file):
        pass
    with held(file):
        pass


def test_who_waited_holds_what_is_there_now(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking, the one before put another file in its place."""
    real = os.open

    def late(path: Path, flags: int) -> int:
        monkeypatch.setattr(os, "open", real)
        handle = real(path, flags)
        replace(file, b"after", read=b"before")
        return handle

    monkeypatch.setattr(os, "open", late)
    with held(file), pytest.raises(CommandFailed, match="being edited by another"), held(file):
        pass


def test_a_file_that_never_stands_still_is_given_up(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = file.with_name("other")
    other.touch()
    real = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: real(other, flags))

    with pytest.raises(CommandFailed, match="replaced all the time"), held(file):
        pass


def test_a_file_that_is_not_there_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="No such file"), held(tmp_path / "nothing"):
        pass


def test_a_new_file_has_its_mode_and_takes_nobodys_place(tmp_path: Path) -> None:
    path = tmp_path / "new"
    create(path, b"content", mode=0o600)

    with pytest.raises(CommandFailed, match="exists already"):
        create(path, b"other", mode=0o600)

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"content", 0o600)


def test_a_file_that_could_not_be_written_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(CommandFailed, match="No space left"):
        create(tmp_path / "new", b"content", mode=0o600)

    assert list(tmp_path.iterdir()) == []
