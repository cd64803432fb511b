"""Reads variables: the process's environment over files, and secrets from files of their own.

Knows no setting by name. A file of variables is plain text (`.env`) or encrypted with age
(`.env.age`); nothing that was encrypted is written anywhere. A secret may also stand in a file
that `AXIOM_<NAME>_FILE` names, or be handed over by systemd (`LoadCredential=`, systemd.exec(5)).
"""

import difflib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from io import StringIO
from pathlib import Path
from typing import Final, TypeVar

from dotenv.parser import parse_stream

from indexer import age
from indexer.errors import ConfigError


PREFIX: Final = "AXIOM_"

#: The field that opens encrypted files; it stands outside of them, so it is no setting.
IDENTITY: Final = "age_identity"

#: Where systemd puts the credentials of a service.
CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"

#: More than any setting needs; a wrong path (a log, a device) is not read into memory.
_SECRET_BYTES_MAX: Final = 64 * 1024

T = TypeVar("T")


def merged(environ: Mapping[str, str], *files: Path | None) -> dict[str, str]:
    """Our variables of all: a later file wins, and the real environment over every file.

    Empty ones are left out, and hide those of files.

    Raises:
        ConfigError: a file cannot be read, opened, or understood.
    """
    values: dict[str, str | None] = {}
    for path in files:
        if path is not None:
            known = {**_ours(values), **_ours(environ), **_credentials(environ)}
            values.update(file_variables(path, known))
    return _ours({**values, **environ}) | _credentials(environ)


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Where systemd says that credentials are: no file of ours may say it."""
    directory = environ.get(CREDENTIALS)
    return {CREDENTIALS: directory} if directory else {}


def _ours(values: Mapping[str, str | None]) -> dict[str, str]:
    return {
        name: value.strip()
        for name, value in values.items()
        if name.startswith(PREFIX) and value and value.strip()
    }


def file_variables(path: Path, known: Mapping[str, str]) -> dict[str, str | None]:
    """The variables of a file, ours or not.

    Args:
        path: encrypted if it is named `.age` or looks like it.
        known: variables that may say by what identity it is opened, none of them empty.

    Raises:
        ConfigError: it cannot be read, opened, or understood.
    """
    text = file_text(path, known)
    if faulty := faulty_lines(text):
        named = ", ".join(map(str, faulty[:5]))
        raise ConfigError((f"{path} is not understood in line {named}: write NAME=value",))
    # Without interpolation a key that contains `$` means what it says.
    return {each.key: each.value for each in parse_stream(StringIO(text)) if each.key is not None}


def file_text(path: Path, known: Mapping[str, str]) -> str:
    """The same file as text, decrypted if need be.

    Raises:
        ConfigError: it cannot be read or opened.
    """
    data = file_bytes(path)
    if not age.is_encrypted(data) and path.suffix != ".age":
        try:
            return data.decode()
        except UnicodeDecodeError:
            # Not chained: the error holds what the file does.
            raise ConfigError((f"cannot read {path}: it is not UTF-8 text",)) from None
    try:
        return age.decrypt(data, identities(known) if age.is_encrypted(data) else ())
    except ValueError as error:
        raise ConfigError((f"{path} {error}",)) from error


def file_bytes(path: Path) -> bytes:
    """The file as it is.

    Raises:
        ConfigError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(age.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError((f"cannot read {path}: {error.strerror}",)) from error
    if len(data) > age.FILE_BYTES_MAX:
        raise ConfigError((f"{path} is larger than {age.FILE_BYTES_MAX} bytes",))
    return data


def faulty_lines(text: str) -> list[int]:
    """The lines that are no `NAME=value`, counted from 1: what they meant to set is not set."""
    found = []
    for each in parse_stream(StringIO(text)):
        # What stands alone and is no name of ours may be a secret that was pasted without one.
        is_alone = each.key is not None and each.value is None
        if each.error or (is_alone and not str(each.key).startswith(PREFIX)):
            skipped = each.original.string
            blank = len(skipped) - len(skipped.lstrip())
            found.append(each.original.line + skipped[:blank].count("\n"))
    return found


def identities(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What opens encrypted files: `AXIOM_AGE_IDENTITY`, its `_FILE`, or the credential.

    Raises:
        ConfigError: there is none, it is none, or anybody may read it.
    """
    reader = Reader(variables)
    found = reader.take(IDENTITY, _identities, secret=True, private=True)
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    if not found:
        name = f"{PREFIX}{IDENTITY.upper()}_FILE"
        raise ConfigError((f"{name} is not set: it names the file that opens encrypted files",))
    return found


def _identities(text: str) -> tuple[str, ...]:
    return age.read_identities(text.replace(",", "\n"))


def suspicious(names: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """A sentence for each of our variables that nobody reads: most likely misspelt."""
    sentences = []
    # Without the prefix, which would make any two names look alike.
    words = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(set(names) - set(known)):
        close = difflib.get_close_matches(name.removeprefix(PREFIX), words, n=1)
        hint = f"did you mean {PREFIX}{close[0]}?" if close else "no setting has this name"
        sentences.append(f"{name} is ignored: {hint}")
    return tuple(sentences)


def credential_names(variables: Mapping[str, str]) -> frozenset[str]:
    """Our names among the credentials that systemd handed over, in capitals."""
    try:
        names = [path.name.upper() for path in Path(variables[CREDENTIALS]).iterdir()]
    except (KeyError, OSError):
        return frozenset()
    return frozenset(name for name in names if name.startswith(PREFIX))


class Reader:
    """Takes typed values out of the variables and remembers what was wrong with them.

    Attributes:
        problems: one sentence for each faulty variable, naming it.
        faulty: the fields whose value was refused.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Takes from `variables`, and credentials from the directory that one of them names."""
        self._variables = variables
        self._credentials = variables.get(CREDENTIALS)
        self.problems: list[str] = []
        self.faulty: set[str] = set()

    def take(
        self,
        field: str,
        parse: Callable[[str], T],
        *,
        secret: bool = False,
        private: bool = False,
    ) -> T | None:
        """The field's value; None when it is not set, or faulty (then noted).

        Args:
            field: the setting's name in lower case.
            parse: makes a value of the text; a ValueError says what would be right.
            secret: it may stand in a file: `AXIOM_<FIELD>_FILE` names it, or a credential holds it.
            private: such a file is refused if everybody may read it.
        """
        name = PREFIX + field.upper()
        text, known = self._variables.get(name), len(self.problems)
        if secret:
            text = self._one(name, text, private=private)
        try:
            if text is not None:
                return parse(text)
        except ValueError as error:
            self.problems.append(f"{name}: {error}")
        if len(self.problems) > known:
            self.faulty.add(field)
        return None

    def _one(self, name: str, text: str | None, *, private: bool) -> str | None:
        """The text that is there, from wherever it comes; None where there is none, or two."""
        files = self._files_of(name)
        if len(files) + (text is not None) > 1:
            both = " and ".join([name] * (text is not None) + list(files))
            count = "both" if both.count(" and ") == 1 else "all"
            self.problems.append(f"{both} are {count} set: keep one of them")
            return None
        for source, path in files.items():
            return self._from_file(source, path, private=private)
        return text

    def _files_of(self, name: str) -> dict[str, Path]:
        """Files that hold the value, by what names them."""
        found = {}
        if path := self._variables.get(f"{name}_FILE"):
            found[f"{name}_FILE"] = Path(path)
        if self._credentials:
            for spelling in (name, name.lower()):
                credential = Path(self._credentials, spelling)
                if os.path.lexists(credential):
                    found[f"the credential {spelling}"] = credential
        return found

    def _from_file(self, source: str, path: Path, *, private: bool) -> str | None:
        try:
            with path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                content = stream.read(_SECRET_BYTES_MAX + 1)
            text = content.decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.problems.append(f"{source}: cannot read {path}: {reason}")
            return None
        if not text or len(content) > _SECRET_BYTES_MAX:
            size = "is empty" if not text else f"is larger than {_SECRET_BYTES_MAX} bytes"
            self.problems.append(f"{source}: {path} {size}")
            return None
        if private and mode & stat.S_IRWXO:
            self.problems.append(f"{source}: everybody may read {path}: `chmod o= {path}`")
            return None
        return text
