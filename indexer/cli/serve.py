"""`up`, `indexer` and `api`: what runs until it is stopped."""

import asyncio
import signal
from argparse import Namespace
from functools import partial

from indexer import daemon
from indexer.cli.command import Command, Commands, Voice, clock
from indexer.log import get_logger
from indexer.settings import Settings


log = get_logger(__name__)

_UP = """
    Brings the database up to date, then watches the chain and serves the API, in one process.
    Ends on Ctrl-C or SIGTERM.

    examples:
      axiompay up
      AXIOM_RPC_URLS=https://rpc.example AXIOM_RECIPIENT=<wallet> axiompay up
      axiompay --env-file production.env up
"""
_INDEXER = """
    Only watches the chain and settles payments. The database must be up to date.

    example, with an API of its own beside it:
      axiompay migrate && axiompay indexer &
      axiompay api
"""
_API = """
    Only serves the API. The database must be up to date.

    example:
      AXIOM_PORT=9000 axiompay api
"""


def add_to(commands: Commands) -> None:
    """Adds the three commands."""
    both = Command(partial(_run, indexer=True, api=True), Voice.TELLS)
    commands.add("up", both, "the product: migrate, then indexer and API", _UP)
    indexer = Command(partial(_run, indexer=True, api=False), Voice.TELLS)
    commands.add("indexer", indexer, "only the part that watches the chain", _INDEXER)
    api = Command(partial(_run, indexer=False, api=True), Voice.TELLS)
    commands.add("api", api, "only the part that serves HTTP", _API)


async def _run(_: Namespace, settings: Settings, *, indexer: bool, api: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_once(name: str) -> None:
        log.info("daemon.stopping", signal=name)
        stop.set()
        # Who asks a second time does not want to wait for streams to end.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_once, number.name)

    def ready() -> None:
        log.info(
            "daemon.ready",
            indexer=indexer,
            api=settings.public_url if api else None,
            database=settings.database_url,
        )

    await daemon.run(settings, clock=clock, indexer=indexer, api=api, stop=stop, on_ready=ready)
    return 0
