"""`/livez` and `/readyz`: is the process alive, and are payments being followed.

Readiness says what is wrong, since when, and how far the chain is known. It is told from the
database alone, so it says the same in every process, wherever the indexer runs.

    ready      payments are followed
    degraded   they are, but more slowly (no notifications, only sweeps), or something was set aside
               that a person should look at: 200, because nobody is helped by an API that is
               taken out for that
    unready    they are not followed, or nothing can be said: 503
"""

from collections.abc import Iterator
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from api.context import Context
from api.limits import FRONTIER_AGE_MAX_S, INDEXER_REPORT_AGE_MAX_S
from api.payments import json_response
from api.schema import FrontierBody, LiveBody, ReadinessBody, ReasonBody
from indexer.core.events import format_time
from indexer.errors import SchemaMismatch, StoreError
from indexer.log import get_logger
from store import cursors, dead_letters, health, migrate
from store.cursors import Frontier
from store.health import Report
from store.keys import ApiKey


log = get_logger(__name__)

#: The component whose report says that the indexer runs at all.
INDEXER: Final = "indexer"
#: Components that only make things faster; each of several has a number behind it.
HELPERS: Final = ("pubsub",)


async def livez(_context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """The process answers. Asks nobody else, so that no restart is asked for in vain."""
    return json_response(LiveBody(status="ok"))


async def readyz(context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """Whether payments are followed, and why not."""
    now = context.now
    try:
        await migrate.check(context.database)
        reports = await health.all_of(context.database)
        frontier = await cursors.get(context.database, context.policy.watch_key)
        parked = await dead_letters.count(context.database)
    except SchemaMismatch as error:
        return _answer("unready", [_reason("schema", str(error), now)], None, now)
    except StoreError as error:
        log.warning("readiness.database_unavailable", error=str(error))
        reason = _reason("database", "the database does not answer", now)
        return _answer("unready", [reason], None, now)
    reasons = [
        *_of_reports(reports, now, context.started_at),
        *_of_frontier(frontier, now, context.started_at),
    ]
    status: Literal["ready", "degraded", "unready"] = "degraded" if reasons else "ready"
    if any(reason.component.partition(":")[0] not in HELPERS for reason in reasons):
        status = "unready"
    if parked:
        are = "1 transaction could not be examined and is"
        if parked > 1:
            are = f"{parked} transactions could not be examined and are"
        problem = f"{are} set aside"
        reasons.append(_reason("dead_letters", problem, now))
        status = "unready" if status == "unready" else "degraded"
    return _answer(status, reasons, frontier, now)


def _of_reports(reports: list[Report], now: int, started_at: int) -> Iterator[ReasonBody]:
    heard_of = None
    for report in sorted(reports, key=lambda report: report.component):
        if report.component == INDEXER:
            heard_of = report.updated_at
        # A part that is not there any more, such as a dropped endpoint, leaves its last word.
        if report.problem is not None and now - report.updated_at <= INDEXER_REPORT_AGE_MAX_S:
            yield _reason(report.component, report.problem, report.since)
    if heard_of is None or now - heard_of > INDEXER_REPORT_AGE_MAX_S:
        since = started_at if heard_of is None else heard_of
        yield _reason(INDEXER, "the indexer is not running", since)


def _of_frontier(frontier: Frontier | None, now: int, started_at: int) -> Iterator[ReasonBody]:
    if frontier is None:
        yield _reason("frontier", "nothing of the chain has been read yet", started_at)
    elif (age_s := now - frontier.updated_at) > FRONTIER_AGE_MAX_S:
        problem = f"the frontier has not moved for {age_s} s"
        yield _reason("frontier", problem, frontier.updated_at)


def _reason(component: str, problem: str, since: int) -> ReasonBody:
    return ReasonBody(component=component, problem=problem, since=format_time(since))


def _answer(
    status: Literal["ready", "degraded", "unready"],
    reasons: list[ReasonBody],
    frontier: Frontier | None,
    now: int,
) -> Response:
    frontiers = []
    if frontier is not None:
        time = frontier.block_time or None  # 0: no block up to there has a time that is known
        frontiers.append(
            FrontierBody(
                key=frontier.key,
                slot=frontier.slot,
                block_time=None if time is None else format_time(time),
                age_s=None if time is None else now - time,
            )
        )
    body = ReadinessBody(status=status, reasons=reasons, frontiers=frontiers)
    return json_response(body, 503 if status == "unready" else 200)
