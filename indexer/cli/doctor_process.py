"""`doctor --process`: does the API or the indexer of this machine do its work?

For whoever watches over one process, such as a container's health check. It asks that process, not
the world around it: that a node is away is no reason to start the process anew.
"""

import asyncio
import socket
from enum import StrEnum
from typing import Final

import aiohttp

from api.health import INDEXER
from api.limits import INDEXER_REPORT_AGE_MAX_S
from indexer import parsers
from indexer.cli.checks import Finding, Grade
from indexer.cli.command import CommandFailed, database_of
from indexer.errors import AxiomError, ConfigError
from indexer.settings import Settings
from store import health


#: Seconds that the API has to answer.
ANSWER_S_MAX: Final = 3.0


class Process(StrEnum):
    """Which one."""

    API = "api"
    INDEXER = "indexer"


async def of_api(settings: Settings) -> Finding:
    """Whether the API answers where it is told to listen."""
    url = f"http://{parsers.authority(settings.host)}:{settings.port}/livez"
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with (
            asyncio.timeout(ANSWER_S_MAX),
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status == 200:
                return Finding(Grade.OK, "api", f"{url} answers")
            found = f"{url} answers {answer.status}"
    except TimeoutError:
        found = f"{url} has not answered for {ANSWER_S_MAX:g} s"
    except (aiohttp.ClientError, OSError) as error:
        found = f"{url} cannot be reached: {error}"
    hint = "is it running, under AXIOM_HOST and AXIOM_PORT? The log says why not"
    return Finding(Grade.FAIL, "api", found, hint)


async def of_indexer(settings: Settings, *, now: int) -> Finding:
    """Whether an indexer of this machine has told of itself lately, in the database.

    Args:
        settings: name the database.
        now: unix seconds, by the clock that the indexer has as well.

    Raises:
        ConfigError: the database's URL is none.
    """
    hint = "is it running, and does it reach the database? The log says why not"
    machine = socket.gethostname()
    try:
        async with database_of(settings) as database:
            told_at = await health.last_report(database, INDEXER, machine=machine)
    except ConfigError:
        raise
    except (AxiomError, CommandFailed) as error:
        return Finding(Grade.FAIL, "indexer", str(error), "see AXIOM_DATABASE_URL")
    if told_at is None:
        return Finding(Grade.FAIL, "indexer", f"none of {machine} has ever told of itself", hint)
    age_s = now - told_at
    if age_s > INDEXER_REPORT_AGE_MAX_S:
        found = f"none of {machine} has told of itself for {age_s} s"
        return Finding(Grade.FAIL, "indexer", found, hint)
    return Finding(Grade.OK, "indexer", f"one of {machine} told of itself {max(0, age_s)} s ago")
