"""The command line: reads arguments and settings, runs one command, answers with an exit code.

    0   done
    1   failed, or something is not as it should be
    2   wrong usage or settings

A command's result goes to standard output and nothing else does; all talk goes to standard
error. What goes wrong in an expected way is one line there that says how to fix it.
"""

import errno
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Final, assert_never

import uvloop

from indexer import log
from indexer.cli.arguments import build_parser
from indexer.cli.command import Command, Voice, env_files
from indexer.cli.output import say
from indexer.errors import AxiomError, ConfigError, InvalidInput, InvariantError
from indexer.log import LogLevel
from indexer.settings import Settings, unknown_variables


DONE: Final = 0
FAILED: Final = 1
MISUSED: Final = 2

_STDOUT: Final = 1
_STDERR: Final = 2

#: What a file system says that takes no more.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    Args:
        argv: without the program's name; None takes those of the process.

    Raises:
        SystemExit: for `--help` and unusable arguments.
    """
    _open_standard_streams()
    given = sys.argv[1:] if argv is None else argv
    for argument in given:
        if not _is_text(argument):
            say(f"{argument!r:.120} is no argument: it is not UTF-8 text")
            return MISUSED
    arguments = build_parser().parse_args(given)
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted. Python would complain at exit when it
        # flushes what nobody reads.
        _forget_output()
        return DONE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _forget_output()
        return _fail(f"the answer cannot be written: {error.strerror}")
    except KeyboardInterrupt:
        return _fail("stopped by Ctrl-C")
    except AxiomError as error:
        return explain([error])
    except BaseExceptionGroup as group:
        errors = [error for error in _leaves(group) if isinstance(error, AxiomError)]
        if len(errors) < len(list(_leaves(group))):
            raise
        return explain(errors)


def _open_standard_streams() -> None:
    """Leads nowhere what was closed before we began.

    Otherwise the next file that is opened gets the number of a standard stream, and the event
    loop ends the process when it is to close it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - as long as the process


def _forget_output() -> None:
    """What is still to be written goes nowhere, also when Python flushes it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_text(argument: str) -> bool:
    """Python lets bytes that are no UTF-8 through, and nothing behind it can store them."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _run(arguments: Namespace) -> int:
    command: Command = arguments.command
    settings = _settings(arguments, command) if command.configured else Settings()
    code: int = uvloop.run(command.run(arguments, settings))
    sys.stdout.flush()
    return code


def _settings(arguments: Namespace, command: Command) -> Settings:
    files = env_files(arguments)
    for sentence in unknown_variables(os.environ, *files):
        say(f"warning: {sentence}")
    settings = Settings.from_env(os.environ, *files)
    log.configure(_level(settings.log_level, command.voice), settings.log_format)
    log.hide(settings.secret_values())
    return settings


def _level(level: LogLevel, voice: Voice) -> LogLevel:
    """A command that answers at once does not tell what it does, unless asked for every detail."""
    match voice:
        case Voice.TELLS:
            return level
        case Voice.ANSWERS:
            return level if level is LogLevel.DEBUG else LogLevel.ERROR
        case _:
            assert_never(voice)


def explain(errors: Sequence[AxiomError]) -> int:
    """One line for each; a wrong setting or argument decides the exit code."""
    codes = set()
    for error in errors:
        match error:
            case InvariantError():
                raise error  # a bug of ours: its traceback is what helps
            case ConfigError():
                for problem in error.problems:
                    say(problem)
                codes.add(MISUSED)
            case InvalidInput():
                say(str(error))
                codes.add(MISUSED)
            case _:
                codes.add(_fail(str(error)))
    return max(codes)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(message: str) -> int:
    say(message)
    return FAILED
