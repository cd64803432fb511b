"""The whole command line, put together from its commands."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib.metadata import version

from indexer.cli import (
    audit,
    backup,
    demo,
    dlq,
    doctor,
    gaps,
    keys,
    listing,
    payments,
    payments_restore,
    replay,
    review,
    schema,
    secret_files,
    serve,
    watch,
    webhooks,
)
from indexer.cli.command import Commands, add_env_file


_DESCRIPTION = """\
Watches Solana for payments and says, once and for certain, which of them have been paid.

first steps:
  axiompay demo                                    see it work, on a local Solana runtime
  axiompay doctor                                  are the settings right, is the chain in reach?
  axiompay up                                      the product: indexer and API in one process
  axiompay keys create shop --scopes payments:read,payments:write
  axiompay payments create 12.5 USDC               a payment and its Solana Pay URL
"""

_EPILOG = """\
Settings come from AXIOM_ variables, .env.age and .env; .env.example describes each of them.
Exit codes: 0 done, 1 failed or not as it should be, 2 wrong usage or settings.
"""


def build_parser() -> ArgumentParser:
    """The parser; each leaf sets `command`."""
    parser = ArgumentParser(
        prog="axiompay",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"axiompay {version('axiompay')}")
    add_env_file(parser)
    commands = Commands(parser)
    serve.add_to(commands)
    schema.add_to(commands)
    doctor.add_to(commands)
    backup.add_to(commands)
    below = commands.group("payments", "create, show, list, cancel, export and restore payments")
    payments.add_to(below)
    listing.add_to(below)
    payments_restore.add_to(below)
    review.add_to(commands.group("review", "decide on money that is in doubt or names nobody"))
    audit.add_to(commands)
    replay.add_to(commands)
    gaps.add_to(commands.group("gaps", "slots in which something may have been missed"))
    dlq.add_to(commands.group("dlq", "transactions that could not be examined"))
    webhooks.add_to(commands.group("webhooks", "what came in, what is sent, and to whom"))
    keys.add_to(commands.group("keys", "create, list and revoke API keys"))
    watch.add_to(commands.group("watch", "the keys by which payments are found, and their change"))
    secret_files.add_to(commands.group("secrets", "settings that are kept encrypted"))
    demo.add_to(commands)
    return parser
