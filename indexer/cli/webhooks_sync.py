"""`webhooks sync`: makes the webhook at Helius what it should be."""

from argparse import Namespace
from typing import Any

from indexer.cli.command import Command, CommandFailed, Commands, clock, database_of
from indexer.cli.output import print_json, say
from indexer.errors import ConfigError
from indexer.helius import Plan, Upkeep
from indexer.settings import Settings
from indexer.sources.helius import Helius
from store import watching


_SYNC = """
    Makes the webhook at Helius watch what it should, and switches it on: the watch keys of
    payments for which money may still count, and the references that are watched one by one.
    The list is read, compared and replaced only when it differs; everything else of the webhook
    stays as it is. The daemon does the same every ten minutes.

    Needs AXIOM_HELIUS_API_KEY and AXIOM_HELIUS_WEBHOOK_ID. Exit code 1 when something is wrong
    that it cannot put right; with --dry-run also when anything differs.

    examples:
      axiompay webhooks sync
      axiompay webhooks sync --dry-run        only says what would change
      axiompay webhooks sync --json           the addresses too
"""


def add_to(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add(
        "sync", Command(_sync), "keep the webhook at Helius as wanted", _SYNC, as_json=True
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing")


async def _sync(arguments: Namespace, settings: Settings) -> int:
    api_key, webhook_id = settings.helius_api_key, settings.helius_webhook_id
    if api_key is None or webhook_id is None:
        problem = "AXIOM_HELIUS_API_KEY, AXIOM_HELIUS_WEBHOOK_ID: this command needs both"
        raise ConfigError((problem,))
    async with (
        database_of(settings) as database,
        Helius(settings.helius_api_url, api_key) as helius,
    ):
        if not await watching.watch_keys(database, now=int(clock())):
            raise CommandFailed(
                "there is no watch key yet: `axiompay up` makes it at its first start"
            )
        upkeep = Upkeep(
            database,
            helius,
            webhook_id,
            secrets=settings.helius_webhook_secrets,
            clock=clock,
        )
        plan = await upkeep.sync(dry_run=arguments.dry_run)
    _tell(plan, webhook_id, is_dry=arguments.dry_run, as_json=arguments.json)
    return 1 if plan.warning or (arguments.dry_run and not plan.is_empty) else 0


def _tell(plan: Plan, webhook_id: str, *, is_dry: bool, as_json: bool) -> None:
    if as_json:
        print_json(_shown(plan, webhook_id, is_dry=is_dry))
    elif plan.is_empty:
        say(f"webhook {webhook_id} is as wanted; addresses: {plan.kept}")
    else:
        to_be = "to be " if is_dry else ""
        say(
            f"webhook {webhook_id}: addresses {to_be}added: {len(plan.added)}, "
            f"{to_be}removed: {len(plan.removed)}, kept: {plan.kept}"
        )
        if plan.switches_on:
            say(f"it was off and {'would be' if is_dry else 'is'} switched on")
    if plan.warning:
        say(plan.warning)


def _shown(plan: Plan, webhook_id: str, *, is_dry: bool) -> dict[str, Any]:
    return {
        "webhook_id": webhook_id,
        "dry_run": is_dry,
        "added": plan.added,
        "removed": plan.removed,
        "kept": plan.kept,
        "switched_on": plan.switches_on,
        "warning": plan.warning,
    }
