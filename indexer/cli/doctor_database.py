"""What `doctor` looks at in the database: is it in reach, of the right schema, and what is in it?

Of a libSQL server also its clock and its replicas: each whether it answers, and how far behind the
primary it is.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from indexer import keyring
from indexer.cli.checks import Finding, Grade
from indexer.cli.command import has_file
from indexer.errors import AxiomError, ConfigError, InvariantError
from indexer.settings import Settings
from store import deployment, leases, migrate, watch_keys
from store.database import Database, is_file, open_configured
from store.leases import Board
from store.libsql import Refused, Server
from store.libsql_look import look
from store.watch_keys import Purpose, WatchKey


CHECK: Final = "database"

#: Seconds that a server has to answer.
ANSWER_S_MAX: Final = 3.0
#: Seconds that a replica has to come as far as its primary was, which takes milliseconds.
CATCH_UP_S_MAX: Final = 2.0
_PAUSE_S: Final = 0.05
#: Seconds by which two clocks that are kept right may differ.
CLOCK_DIFFERENCE_S_MAX: Final = 2.0
#: Seconds after its last sign of life from which on an indexer is taken to be gone.
SILENT_S: Final = 30
#: More processes that write bring a libSQL server to a standstill (ADR 16).
WRITERS_MAX: Final = 8


Clock = Callable[[], float]


async def of_database(settings: Settings, *, clock: Clock) -> tuple[list[Finding], str | None]:
    """The store's state, and the genesis hash that it remembers, if any."""
    url = settings.database_url
    try:
        if not has_file(settings):
            hint = "`axiompay up` or `axiompay migrate` makes it"
            return [Finding(Grade.WARN, CHECK, f"{url} does not exist yet", hint)], None
        database = await open_configured(settings)
        try:
            return await _of_open(database, settings, clock)
        finally:
            await database.close()
    except Refused as error:
        return [Finding(Grade.FAIL, CHECK, str(error), "see AXIOM_DATABASE_TOKEN")], None
    except AxiomError as error:
        return [Finding(Grade.FAIL, CHECK, str(error), "see AXIOM_DATABASE_URL")], None


async def _of_open(
    database: Database, settings: Settings, clock: Clock
) -> tuple[list[Finding], str | None]:
    standing = await migrate.standing(database)
    schema = _of_schema(settings.database_url, standing)
    if standing.missing:
        return [schema], None
    findings = [
        schema,
        _of_watch_keys(await watch_keys.listing(database)),
        *_of_indexers(await leases.read(database), settings, clock()),
        *await _of_receivers(database, settings),
    ]
    if not is_file(settings.database_url):
        findings += await of_servers(settings, clock=clock)
    return findings, await deployment.get(database, "genesis_hash")


async def _of_receivers(database: Database, settings: Settings) -> list[Finding]:
    """Whether the keys are there that receivers know; looks, and makes none."""
    try:
        keys, unusable = keyring.peek(settings), None
    except ConfigError as error:
        keys, unusable = (), str(error)
    problem = await keyring.missing(database, settings, keys)
    if problem is None:
        return []
    return [Finding(Grade.FAIL, "signing keys", unusable or problem, "see docs/durability.md")]


def _of_schema(url: str, standing: migrate.Standing) -> Finding:
    if standing.missing:
        found = f"{url} lacks {', '.join(each.name for each in standing.missing)}"
        return Finding(Grade.FAIL, CHECK, found, "run `axiompay migrate`")
    if standing.newer:
        found = f"{url}, has {', '.join(standing.newer)} of a newer release, which this one runs on"
        hint = "an upgrade is under way, or was taken back: bring all processes to one release"
        return Finding(Grade.WARN, CHECK, found, hint)
    return Finding(Grade.OK, CHECK, f"{url}, schema up to date")


def _of_watch_keys(found: Sequence[WatchKey]) -> Finding:
    used = [each for each in found if each.retired_at is None]
    shared = sum(each.purpose is Purpose.SHARED for each in used)
    told = f"{shared} shared, {len(used) - shared} reserved, {len(found) - len(used)} retired"
    if shared:
        return Finding(Grade.OK, "watch keys", told)
    hint = "one is made when a process starts, or by `axiompay watch add`"
    return Finding(Grade.WARN, "watch keys", told, hint)


def _of_indexers(board: Board, settings: Settings, now: float) -> list[Finding]:
    """Those that are there, by what they told; that none is, the chain's checks do not need."""
    there = [each for each in board.instances.values() if now - each.seen_at <= SILENT_S]
    if not there:
        return []
    releases = sorted({each.version for each in there})
    found = f"{len(there)} of release {', '.join(releases)}"
    findings = [Finding(Grade.OK, "indexers", found)]
    if len(releases) > 1:
        hint = "an upgrade is under way, or was not ended: bring all to one release"
        findings = [Finding(Grade.WARN, "indexers", found, hint)]
    of_server = not is_file(settings.database_url)
    if len(there) > 1 and settings.redis_url is None and not of_server:
        hint = "each process is woken by none, and looks twice a second: set AXIOM_REDIS_URL"
        findings.append(Finding(Grade.WARN, "redis", f"{len(there)} indexers without", hint))
    if len(there) > WRITERS_MAX and of_server:
        hint = f"more than {WRITERS_MAX} processes that write bring a libSQL server to a standstill"
        findings.append(Finding(Grade.WARN, "indexers", f"{len(there)} on one server", hint))
    return findings


# -------------------------------------------------------------------------------- libSQL servers


async def of_servers(settings: Settings, *, clock: Clock) -> list[Finding]:
    """The primary's clock, and each replica; the database is migrated."""
    async with Server(settings.database_url, settings.database_token) as primary:
        began_at = clock()
        seen = await look(primary, timeout_s=ANSWER_S_MAX)
        ended_at = clock()
        replicas = await asyncio.gather(
            *(
                _of_replica(url, settings.database_token, primary)
                for url in settings.database_replica_urls
            )
        )
    return [of_clock(seen.clock, began_at, ended_at), *replicas]


def of_clock(told: float, began_at: float, ended_at: float) -> Finding:
    """Whether a server's clock and ours agree.

    Args:
        told: the server's time, unix seconds.
        began_at: ours when it was asked.
        ended_at: ours when it had answered: somewhere between it told.
    """
    check = f"{CHECK} clock"
    ahead_s, behind_s = told - ended_at, began_at - told
    if max(ahead_s, behind_s) <= CLOCK_DIFFERENCE_S_MAX:
        return Finding(Grade.OK, check, "agrees with this machine's")
    differs = f"{ahead_s:.0f} s ahead of" if ahead_s > 0 else f"{behind_s:.0f} s behind"
    hint = "one of the two is wrong: have both kept right, such as by NTP"
    return Finding(Grade.WARN, check, f"{differs} this machine's", hint)


async def _of_replica(url: str, token: str | None, primary: Server) -> Finding:
    async with Server(url, token) as replica:
        check = f"replica {replica.name}"
        try:
            return await _compared(check, replica, primary)
        except InvariantError as error:  # our tables are not there
            hint = "does AXIOM_DATABASE_REPLICA_URLS name a replica of AXIOM_DATABASE_URL?"
            return Finding(Grade.FAIL, check, f"holds another database: {error}", hint)
        except AxiomError as error:
            hint = "the others, or the primary, are read in its place; see "
            named = "AXIOM_DATABASE_TOKEN" if isinstance(error, Refused) else "its log"
            return Finding(Grade.FAIL, check, str(error), hint + named)


async def _compared(check: str, replica: Server, primary: Server) -> Finding:
    """How far it is, and where the primary was before it was asked."""
    wanted = (await look(primary, timeout_s=ANSWER_S_MAX)).revision
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while (seen := await look(replica, timeout_s=ANSWER_S_MAX)).revision < wanted:
        if loop.time() - began_at > CATCH_UP_S_MAX:
            found = f"{wanted - seen.revision} writes behind for {CATCH_UP_S_MAX:g} s"
            hint = "its way to the primary, its disk; restart it if the primary was restarted"
            return Finding(Grade.WARN, check, found, hint)
        await asyncio.sleep(_PAUSE_S)
    if seen.revision > (await look(primary, timeout_s=ANSWER_S_MAX)).revision:
        hint = "it follows another primary, or the primary was restored: begin it anew, empty"
        return Finding(Grade.FAIL, check, "is ahead of the primary", hint)
    behind_s = loop.time() - began_at
    return Finding(Grade.OK, check, f"has all {wanted} writes, within {behind_s * 1_000:.0f} ms")
