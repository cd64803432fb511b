"""A person's editor on a text that nobody else may see, and what to do while it is open.

The text lies in a directory of its own that only its owner may enter, in memory where the system
has a place for it, and is gone when the edit ends: also by SIGTERM, SIGHUP, or the end of the
editor. Ctrl-C belongs to the editor, as with every program that waits for one. Only SIGKILL
leaves the text behind.
"""

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from indexer.cli.command import CommandFailed
from indexer.cli.output import say


#: How often is looked whether the editor, or we, were told to end.
_LOOK_S: Final = 0.1
#: What an editor is given to end by itself, in looks: five seconds.
_LOOKS_TO_END: Final = 50
_ANSWER_BYTES_MAX: Final = 1024

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_OF_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)


class Watch:
    """Knows which signals came while an edit is under way; none of them ends us by itself.

    Attributes:
        ending: the signal that wants us to end; None: no one does.
        interrupted: Ctrl-C was pressed since a question was asked.
    """

    def __init__(self) -> None:
        self.ending: signal.Signals | None = None
        self.interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (*_ENDING, *_OF_THE_TERMINAL):
            # No SIG_IGN: a child would inherit it.
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _ENDING:
            self.ending = signal.Signals(number)
        else:
            self.interrupted = True

    def check(self) -> None:
        """Raises CommandFailed when we are to end."""
        if self.ending is not None:
            raise CommandFailed(f"stopped by {self.ending.name}; nothing was changed")


@contextmanager
def private_place(environ: Mapping[str, str]) -> Iterator[Path]:
    """An empty directory for one edit, gone with all that is in it afterwards.

    Raises:
        CommandFailed: there is nowhere to make it.
    """
    in_memory = (environ.get("XDG_RUNTIME_DIR") or "/dev/shm", "/dev/shm")  # noqa: S108 - mkdtemp is safe there
    for folder in (*in_memory, None):
        try:
            place = Path(tempfile.mkdtemp(prefix="axiompay-", dir=folder))  # mode 0700
        except OSError:
            continue
        if folder is None:
            say(f"warning: {place.parent} may be on a disk, which the text touches meanwhile")
        break
    else:
        raise CommandFailed("there is no directory for temporary files: set XDG_RUNTIME_DIR")
    try:
        yield place
    finally:
        shutil.rmtree(place, onerror=_still_there)


def _still_there(_function: Callable[..., object], path: str, _error: object) -> None:
    if os.path.lexists(path):
        say(f"warning: {path} could not be removed: it holds secrets")


def command_of(environ: Mapping[str, str]) -> list[str]:
    """The editor with its arguments: `VISUAL`, else `EDITOR`, else `vi`.

    Raises:
        CommandFailed: there are quotes in it that do not match.
    """
    name = next((name for name in ("VISUAL", "EDITOR") if environ.get(name, "").strip()), None)
    try:
        return shlex.split(environ[name]) if name else ["vi"]
    except ValueError as error:
        raise CommandFailed(f"{name} is no command: {error}") from error


def run(command: list[str], path: Path, watch: Watch) -> None:
    """Has the editor work on the file, until it ends.

    Raises:
        CommandFailed: it could not be started, failed or was killed, or we are to end.
    """
    watch.check()
    try:
        process = subprocess.Popen([*command, str(path)])  # noqa: S603 - the user's own choice
    except OSError as error:
        raise CommandFailed(
            f"cannot start the editor {command[0]!r}: {error.strerror}; EDITOR names another"
        ) from error
    code = _wait(process, watch)
    watch.check()
    if code:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
        raise CommandFailed(f"the editor {how}; nothing was changed")


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> int:
    looks = 0
    while True:
        try:
            return process.wait(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            if watch.ending is None:
                continue
        if looks == 0:
            process.terminate()
        if looks == _LOOKS_TO_END:
            process.kill()
        looks += 1


def ask(question: str, answers: str, watch: Watch) -> str:
    """The first letter of what a person answers; `q` when nobody does.

    Args:
        question: what is asked.
        answers: the letters that are understood.
        watch: Ctrl-C is an answer as well: `q`.

    Raises:
        CommandFailed: we are to end.
    """
    watch.interrupted = False
    while True:
        sys.stderr.write(f"{question} ")
        sys.stderr.flush()
        answer = _answer(watch)
        if answer is None:
            return "q"
        if answer[:1] and answer[:1] in answers:
            return answer[:1]


def _answer(watch: Watch) -> str | None:
    """A line in lower case; None at the end of the input, or by Ctrl-C."""
    stdin = sys.stdin.fileno()
    while not select.select([stdin], [], [], _LOOK_S)[0]:
        watch.check()
        if watch.interrupted:
            return None
    line = os.read(stdin, _ANSWER_BYTES_MAX)
    return line.decode(errors="replace").strip().lower() if line else None


def is_attended() -> bool:
    """Whether a person is there to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
