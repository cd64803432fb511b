"""What is set, by name only: where, and what is wrong or unsafe about it."""

import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from indexer import age, environment
from indexer.cli.checks import Finding, Grade
from indexer.environment import IDENTITY, PREFIX
from indexer.errors import ConfigError
from indexer.settings import Settings, may_hold_secret, unknown_variables


_FILE: Final = "_FILE"
_MOVE: Final = "move it into an encrypted file: `axiompay secrets edit`"


def examine(environ: Mapping[str, str], files: Sequence[Path]) -> list[Finding]:
    """Every finding, in the order in which to read them.

    Args:
        environ: the process's environment.
        files: as a start reads them, the weakest first.

    Raises:
        ConfigError: a file cannot be read or opened, so that nothing can be said.
    """
    variables = environment.merged(environ, *files)
    held = {path: _ours(environment.file_variables(path, variables)) for path in files}
    return [
        *(finding for path in files for finding in _of_file(path, held[path], variables)),
        *_of_variables(variables, held, _ours(environ)),
        *_of_credentials(variables),
        *_of_secret_files(variables),
        *_of_equal_values(variables),
        *_of_settings(environ, files),
    ]


def _ours(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name.startswith(PREFIX) and value}


def _of_file(
    path: Path, held: Mapping[str, str], variables: Mapping[str, str]
) -> Iterator[Finding]:
    """Whom the file is for, or who may read it."""
    check, data = str(path), environment.file_bytes(path)
    if age.is_encrypted(data):
        count = age.recipient_count(data)
        named = len(age.named_recipients(environment.file_text(path, variables)))
        if named in {0, count}:
            yield Finding(Grade.OK, check, f"encrypted to {count}")
        else:
            hint = "`axiompay secrets edit` with --to for each of them makes it right"
            yield Finding(Grade.WARN, check, f"encrypted to {count}, but names {named}", hint)
    elif any(map(may_hold_secret, held)) and _others(path, stat.S_IRWXG | stat.S_IRWXO):
        found = "holds secrets, and others may read it"
        yield Finding(Grade.WARN, check, found, f"`chmod 600 {path}`")
    else:
        yield Finding(Grade.OK, check, "plain")


def _of_variables(
    variables: Mapping[str, str], held: Mapping[Path, Mapping[str, str]], environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Each variable, where its value comes from."""
    for name in sorted(variables):
        if not name.startswith(PREFIX):
            continue
        places = [str(path) for path, names in held.items() if name in names]
        places += ["the environment"] * (name in environ)
        found = f"set in {places[-1]}" + (f", over {places[-2]}" if len(places) > 1 else "")
        clear = [path for path, names in held.items() if name in names and _is_plain(path)]
        if clear and may_hold_secret(name):
            opens = name == f"{PREFIX}{IDENTITY.upper()}"  # and is of no use inside
            hint = f"name a file that holds it: {name}_FILE" if opens else _MOVE
            yield Finding(Grade.WARN, name, f"{found}; in clear in {clear[0]}", hint)
        else:
            yield Finding(Grade.OK, name, found)


def _of_credentials(variables: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(environment.credential_names(variables)):
        if may_hold_secret(name):
            yield Finding(Grade.OK, name, "set by a credential")
        else:
            yield Finding(Grade.WARN, name, "a credential that nobody reads", "it is no secret")


def _of_secret_files(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Files that hold one secret each, and that anybody may read."""
    for name, text in sorted(variables.items()):
        if name.endswith(_FILE) and may_hold_secret(name.removesuffix(_FILE)):
            path = Path(text)
            if _others(path, stat.S_IRWXO):
                yield Finding(Grade.WARN, name, f"everybody may read {path}", f"`chmod o= {path}`")


def _of_equal_values(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Secrets that are used twice: whoever learns one has both."""
    names = defaultdict(set)
    for name, text in variables.items():
        if may_hold_secret(name) and not name.endswith("_URLS"):
            for value in map(str.strip, text.split(",")):
                names[value].add(name)
    for alike in sorted(sorted(found) for found in names.values() if len(found) > 1):
        found = f"the same secret as in {', '.join(alike[1:])}"
        yield Finding(Grade.WARN, alike[0], found, "make one for each")


def _of_settings(environ: Mapping[str, str], files: Sequence[Path]) -> Iterator[Finding]:
    """What a start would warn of, and refuse."""
    for sentence in unknown_variables(environ, *files):
        name, _, rest = sentence.partition(" ")
        yield Finding(Grade.WARN, name, rest)
    try:
        Settings.from_env(environ, *files)
    except ConfigError as error:
        for problem in error.problems:
            name, colon, rest = problem.partition(": ")
            yield Finding(Grade.FAIL, name if colon else "settings", rest or problem)


def _is_plain(path: Path) -> bool:
    return not age.is_encrypted(environment.file_bytes(path))


def _others(path: Path, who: int) -> bool:
    """Whether some of them may do anything with the file; no, where it is not there."""
    try:
        return bool(path.stat().st_mode & who)
    except OSError:
        return False
