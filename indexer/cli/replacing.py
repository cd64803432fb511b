"""Files that are written whole or not at all, by one process at a time."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from indexer.cli.command import CommandFailed


#: How often a file may be replaced between opening and locking it.
_TRIES: Final = 100


class ChangedMeanwhile(CommandFailed):
    """Somebody else wrote the file since it was read."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps the file from others who hold files this way. Ends with the process, at the latest.

    Raises:
        CommandFailed: somebody else holds it, or it cannot be opened.
    """
    handle = _hold(path)
    try:
        yield
    finally:
        os.close(handle)


def _hold(path: Path) -> int:
    for _ in range(_TRIES):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CommandFailed(f"cannot read {path}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before us may have put another file in its place.
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError as error:
            os.close(handle)
            raise CommandFailed(f"{path} is being edited by another process") from error
        except OSError as error:
            os.close(handle)
            raise CommandFailed(f"cannot lock {path}: {error.strerror}") from error
        os.close(handle)
    raise CommandFailed(f"{path} is replaced all the time: try again later")


def replace(path: Path, content: bytes, *, read: bytes) -> None:
    """Puts new content in the place of what was read; mode and owner stay.

    Raises:
        ChangedMeanwhile: it is not what was read any more.
        CommandFailed: it cannot be written; the file is as it was.
    """
    path = path.resolve()  # a link stays one
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, content, like=path)
        if path.read_bytes() != read:
            raise ChangedMeanwhile(f"{path} was changed by somebody else meanwhile")
        draft.replace(path)
        _keep(path.parent)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}, which is as it was: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def create(path: Path, content: bytes, *, mode: int) -> None:
    """Makes the file.

    Raises:
        CommandFailed: there is one already, or it cannot be written; then there is none.
    """
    try:
        _write(path, content, mode=mode)
        _keep(path.parent)
    except FileExistsError as error:
        raise CommandFailed(f"{path} exists already, and is not overwritten") from error
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error


def _write(path: Path, content: bytes, *, mode: int = 0o600, like: Path | None = None) -> None:
    """A new file that is on the disk when this returns, or is not there."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            if like is not None:
                _take_after(handle, like.stat())
            file.write(content)
            file.flush()
            os.fsync(handle)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _take_after(handle: int, wanted: os.stat_result) -> None:
    """Owner and mode as wanted: a daemon of another user must be able to read it still."""
    found = os.fstat(handle)
    if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(handle, wanted.st_uid, wanted.st_gid)
    os.fchmod(handle, stat.S_IMODE(wanted.st_mode))


def _keep(folder: Path) -> None:
    """Has the folder's new entry survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
