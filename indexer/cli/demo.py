"""`demo`: the product at work, on a Solana runtime on this machine."""

from argparse import Namespace

from indexer.cli.command import Command, Commands, clock
from indexer.demo import scenario
from indexer.settings import Settings


_TEXT = """
    Starts a local Solana runtime (Node 18 or newer with npm is needed; the first start fetches
    it once), a database in a temporary folder, and the product. Creates payments over the API,
    pays them from a wallet made for it, well and badly, and shows how each ends.
    Nothing outside of this machine is touched, and nothing stays behind. Takes 15 seconds.

    examples:
      axiompay demo
      axiompay demo --keep       stays up, to look around with a browser or curl
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "demo", Command(_demo, configured=False), "see it work, on a local Solana runtime", _TEXT
    )
    parser.add_argument("--keep", action="store_true", help="stay up afterwards, until Ctrl-C")


async def _demo(arguments: Namespace, _: Settings) -> int:
    return await scenario.run(clock=clock, keep=arguments.keep)
