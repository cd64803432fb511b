"""An encrypted file, opened, edited, judged, and put back in one piece."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from indexer import age, environment
from indexer.cli import editor
from indexer.cli.command import CommandFailed
from indexer.cli.editor import Watch
from indexer.cli.output import say
from indexer.cli.replacing import ChangedMeanwhile, create, held, replace
from indexer.errors import ConfigError
from indexer.settings import Settings


_DRAFT_MODE: Final = 0o600


class Unfit(CommandFailed):
    """What was typed was not saved.

    Attributes:
        problems: one sentence each.
        hard: it cannot be saved; otherwise it is for a person to decide.
    """

    def __init__(self, *problems: str, hard: bool) -> None:
        super().__init__("; ".join((*problems, "the file is as it was")))
        self.problems = problems
        self.hard = hard


def beside(path: Path) -> tuple[Path, ...]:
    """The plain file that this one is read over: `.env` under `.env.age`, and no other."""
    plain = path.with_name(".env")
    return (plain,) if path.name == ".env.age" and plain.is_file() else ()


class Edit:
    """One edit of one file, which nobody else edits meanwhile."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        *,
        to: tuple[str, ...] = (),
        unchecked: bool = False,
    ) -> None:
        """Knows what to do.

        Args:
            path: encrypted.
            environ: says what opens it, and by which editor.
            to: its recipients from now on; empty: as it names them itself.
            unchecked: it is saved whatever its settings are.
        """
        self._path = path
        self._environ = environ
        self._to = to
        self._unchecked = unchecked
        self._opening: tuple[str, ...] = ()

    def run(self) -> bool:
        """Opens the editor, again if a person wants it; returns whether the file was changed.

        Raises:
            CommandFailed, ConfigError: why it was not.
        """
        with Watch() as watch, held(self._path):
            read = environment.file_bytes(self._path)
            self._opening = environment.identities(
                environment.merged(self._environ, *beside(self._path))
            )
            try:
                text = age.decrypt(read, self._opening)
                named = self._recipients(text, age.recipient_count(read))
            except ValueError as error:
                raise ConfigError((f"{self._path} {error}",)) from error
            with editor.private_place(self._environ) as place:
                draft = place / (self._path.name.removesuffix(".age") or "env")
                _write(draft, age.naming(text, named))
                known = self._problems(draft)
                while True:
                    editor.run(editor.command_of(self._environ), draft, watch)
                    typed = self._accepted(draft, named, known, watch)
                    if typed == age.naming(text, named) and not self._to:
                        return False
                    if typed is not None and self._saved(typed, read, watch):
                        return True

    def _recipients(self, text: str, count: int) -> tuple[str, ...]:
        """Whom the file is for: as told, as it says, or who has just opened it, if nobody else.

        Raises:
            ValueError: nobody can know.
        """
        if self._to:
            return self._to
        if named := age.named_recipients(text):
            return named
        own = tuple(map(age.recipient_of, self._opening))
        if len(own) == count == 1:
            return own
        raise ValueError(f"is for {count} recipients and does not say whom: name them by --to")

    def _accepted(
        self, draft: Path, named: tuple[str, ...], known: tuple[str, ...], watch: Watch
    ) -> str | None:
        """What was typed; None when a person wants to go on with it.

        Raises:
            Unfit: it is not to be saved.
        """
        try:
            typed = self._typed(draft, named)
        except Unfit as unfit:
            _again(unfit, watch)
            return None
        found = tuple(each for each in self._problems(draft) if each not in known)
        wrong = found and not self._unchecked
        return None if wrong and _again(Unfit(*found, hard=False), watch) else typed

    def _typed(self, draft: Path, named: tuple[str, ...]) -> str:
        """The text with its recipients in its first line.

        Raises:
            Unfit: it cannot be saved, whatever a person says.
        """
        try:
            text = _text_of(draft)
            recipients = self._to or age.named_recipients(text) or named
            content = age.encrypt(text, recipients)
            if not self._to:  # nobody shuts himself out by a slip
                age.decrypt(content, self._opening)
        except ValueError as error:
            raise Unfit(f"what was typed {error}", hard=True) from error
        return age.naming(text, recipients)

    def _problems(self, draft: Path) -> tuple[str, ...]:
        """What a process would refuse that started here with this file."""
        try:
            Settings.from_env(self._environ, *beside(self._path), draft)
        except ConfigError as error:
            return tuple(problem.replace(str(draft), str(self._path)) for problem in error.problems)
        return ()

    def _saved(self, typed: str, read: bytes, watch: Watch) -> bool:
        """Whether it is in the file now; False when a person wants to go on with it.

        Raises:
            CommandFailed: it is not, and nobody is there or wants to.
        """
        content = age.encrypt(typed, age.named_recipients(typed))
        while True:
            watch.check()
            try:
                replace(self._path, content, read=read)
            except ChangedMeanwhile as error:
                kept = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
                create(kept, content, mode=_DRAFT_MODE)
                raise CommandFailed(f"{error}; what was typed is in {kept}, encrypted") from error
            except CommandFailed as error:
                if not editor.is_attended():
                    raise
                say(str(error))
                question = "[t]ry to write it again, [e]dit again, or [q]uit without saving?"
                answer = editor.ask(question, "teq", watch)
                if answer == "q":
                    raise
                if answer == "e":
                    return False
            else:
                return True


def _again(unfit: Unfit, watch: Watch) -> bool:
    """Whether a person wants to edit again, and not to save it as it is.

    Raises:
        Unfit: nobody is there, or wants to.
    """
    if not editor.is_attended():
        raise unfit
    for problem in unfit.problems:
        say(problem)
    save, answers = ("", "eq") if unfit.hard else (" [s]ave all the same,", "esq")
    answer = editor.ask(f"[e]dit again,{save} or [q]uit without saving?", answers, watch)
    if answer == "q":
        raise unfit
    return answer == "e"


def _text_of(draft: Path) -> str:
    """What the editor left.

    Raises:
        ValueError: it is too long, or no text, or nothing.
    """
    try:
        with draft.open("rb") as file:
            data = file.read(age.TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(data) > age.TEXT_BYTES_MAX:
        raise ValueError(f"is longer than {age.TEXT_BYTES_MAX} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("is no UTF-8 text") from None
    if not age.naming(text, ()).partition("\n")[2].strip():
        raise ValueError("is nothing but blanks")
    return text


def _write(draft: Path, text: str) -> None:
    """The text where only the editor's user reads it.

    Raises:
        CommandFailed: there is no room for it.
    """
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _DRAFT_MODE)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise CommandFailed(f"cannot write {draft}: {error.strerror}") from error
