"""`secrets`: settings that are kept encrypted, with age (docs/secrets.md)."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from functools import partial
from pathlib import Path
from typing import Final

from indexer import age, environment
from indexer.cli import secret_report
from indexer.cli.command import Command, CommandFailed, Commands, env_files
from indexer.cli.doctor import show
from indexer.cli.output import say
from indexer.cli.replacing import create
from indexer.cli.secret_edit import Edit, beside
from indexer.errors import ConfigError
from indexer.settings import Settings


_PLAIN: Final = Path(".env")
_ENCRYPTED: Final = Path(".env.age")
_IDENTITY_MODE: Final = 0o600
#: Less what the umask takes: it says nothing to whom it is not for.
_FILE_MODE: Final = 0o644

_ENCRYPT = """
    Encrypts a file of settings to one or more recipients; whoever has the identity of one of
    them opens it. The plain file stays: take the secrets out of it, or remove it.

    examples:
      axiompay secrets encrypt --to age1…              .env becomes .env.age
      axiompay secrets encrypt production.env --to age1… --to age1… -o production.env.age
"""
_EDIT = """
    Opens an encrypted file in your editor (VISUAL, EDITOR, else vi) and puts it back when it is
    saved. The text is in memory only, where the system can do that, and for you only. Settings
    that no process would start with are said; on a terminal you may edit again. If anything goes
    wrong, the file is as it was.

    Its recipients stand in its first line and may be changed there, or by --to.

    examples:
      axiompay secrets edit
      axiompay secrets edit production.env.age
      EDITOR=true axiompay secrets edit --to age1… --to age1…      only changes the recipients
"""
_CHECK = """
    Opens the files of settings, reads every setting as a start would, and lists by name what is
    set, where, and what is wrong or unsafe. Values are never shown. Exit code 1 when something
    is wrong.

    examples:
      axiompay secrets check
      axiompay secrets check production.env.age
"""
_KEYGEN = """
    Makes an identity, in the form of age-keygen. With -o it is written to a file that only its
    owner may read, and its recipient is printed; without, the identity is printed.

    examples:
      axiompay secrets keygen -o identity.txt
      axiompay secrets keygen | systemd-creds encrypt --name=axiom_age_identity - identity.cred
"""


def add_to(commands: Commands) -> None:
    """Adds the four commands; none of them needs settings that are right."""
    bare = partial(Command, configured=False)
    encrypt = commands.add("encrypt", bare(_encrypt), "encrypt a file of settings", _ENCRYPT)
    _add_file(encrypt, f"plain settings (default: {_PLAIN})")
    _add_to(encrypt, "whom to encrypt to (default: the identity that is set)")
    encrypt.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: FILE with .age behind"
    )
    edit = commands.add("edit", bare(_edit), "edit an encrypted file", _EDIT)
    _add_file(edit, f"encrypted settings (default: {_ENCRYPTED})")
    _add_to(edit, "its recipients from now on (default: as before)")
    edit.add_argument("--unchecked", action="store_true", help="save it whatever the settings are")
    summary = "what is set, where, and is it safe?"
    check = commands.add("check", bare(_check), summary, _CHECK, as_json=True)
    _add_file(check, "settings (default: as a start reads them)")
    keygen = commands.add("keygen", bare(_keygen), "make an identity", _KEYGEN)
    keygen.add_argument("-o", "--output", type=Path, metavar="FILE", help="a new file")


def _add_file(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help=text)


def _add_to(parser: ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--to", type=_recipient, action="append", default=[], metavar="age1…", help=text
    )


def _recipient(text: str) -> str:
    try:
        return age.read_recipient(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


async def _encrypt(arguments: Namespace, _: Settings) -> int:
    path = _file(arguments, _PLAIN)
    output: Path = arguments.output or path.with_name(f"{path.name}.age")
    data = environment.file_bytes(path)
    if age.is_encrypted(data):
        raise CommandFailed(f"{path} is encrypted already: `axiompay secrets edit` changes it")
    text = environment.file_text(path, {})
    if lines := environment.faulty_lines(text):
        raise ConfigError((f"{path} is not understood in line {lines[0]}: write NAME=value",))
    recipients = tuple(dict.fromkeys(arguments.to or _own()))
    try:
        content = age.encrypt(text, recipients)
    except ValueError as error:
        raise ConfigError((f"{path} {error}",)) from error
    create(output, content, mode=_FILE_MODE)
    say(f"{output} is for {len(recipients)} recipient(s)")
    say(f"{path} still holds it in clear: take what is secret out of it, or remove it")
    return 0


def _own() -> tuple[str, ...]:
    """Whoever has the identity that is set here."""
    identities = environment.identities(environment.merged(os.environ, *_plain_files()))
    return tuple(map(age.recipient_of, identities))


def _plain_files() -> tuple[Path, ...]:
    return (_PLAIN,) if _PLAIN.is_file() else ()


async def _edit(arguments: Namespace, _: Settings) -> int:
    path = _file(arguments, _ENCRYPTED)
    to = tuple(dict.fromkeys(arguments.to))
    changed = Edit(path, os.environ, to=to, unchecked=arguments.unchecked).run()
    say(f"{path} is changed; what runs reads it at its next start" if changed else "unchanged")
    return 0


async def _check(arguments: Namespace, _: Settings) -> int:
    files = env_files(arguments)
    if arguments.file is not None:
        files = (*beside(arguments.file), arguments.file)
    return show(secret_report.examine(os.environ, files), as_json=arguments.json)


async def _keygen(arguments: Namespace, _: Settings) -> int:
    identity, recipient = age.new_identity()
    text = f"# public key: {recipient}\n{identity}\n"
    if arguments.output is None:
        print(text, end="")
        if sys.stdout.isatty():
            say("keep it: what is encrypted to it opens with nothing else")
    else:
        create(arguments.output, text.encode(), mode=_IDENTITY_MODE)
        print(recipient)
    return 0


def _file(arguments: Namespace, default: Path) -> Path:
    file: Path | None = arguments.file
    named: Path = getattr(arguments, "env_file", default)
    return named if file is None else file
