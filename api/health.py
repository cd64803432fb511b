"""`/livez` and `/readyz`: is the process alive, and are payments being followed.

Readiness says what is wrong, since when, and how far the chain is known. It is told from the
database alone, so it says the same in every process, wherever the indexer runs.

    ready      payments are followed
    degraded   they are, but more slowly (no notifications, only sweeps), something beside the chain
               does not work (webhooks, cards), or something was set aside that a person should look
               at: 200, because nobody is helped by an API that is taken out for that
    unready    they are not followed, or nothing can be said: 503
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from api.context import Context
from api.limits import CLOCK_BEHIND_MAX_S, FRONTIER_AGE_MAX_S, INDEXER_REPORT_AGE_MAX_S
from api.payments import json_response
from api.schema import FrontierBody, GapBody, LiveBody, ReadinessBody, ReasonBody
from indexer.core.events import format_time
from indexer.core.types import WebhookVerdict
from indexer.errors import SchemaMismatch, StoreBroken, StoreError
from indexer.log import get_logger
from store import (
    cursors,
    dead_letters,
    deliveries,
    gaps,
    health,
    migrate,
    watch_keys,
    watching,
    webhook_events,
)
from store.cursors import Frontier
from store.gaps import Gap, GapReason
from store.health import Report
from store.keys import ApiKey
from store.shared import Shared
from store.watch_keys import WatchKey


log = get_logger(__name__)

#: The component whose report says that the indexer runs at all.
INDEXER: Final = "indexer"
#: Components that one can do without; each of several has a number behind it.
HELPERS: Final = re.compile(
    r"pubsub:\d+|rpc:\d+|references|recipients"
    r"|inbox|callbacks|cards|deliveries|helius|retention|redis|replicas"
)
#: Open gaps that are shown.
GAPS_SHOWN_MAX: Final = 100


async def livez(_context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """The process answers. Asks nobody else, so that no restart is asked for in vain."""
    return json_response(LiveBody(status="ok"))


async def readyz(context: Context, _request: Request, _key: ApiKey | None) -> Response:
    """Whether payments are followed, and why not."""
    now = context.now
    try:
        await migrate.check(context.database)
        reports = await health.all_of(context.database)
        watched = await watching.watch_keys(context.database, now=now)
        frontiers = await cursors.several(context.database, watched)
        unread = await _unread(context, frontiers, now)
        aside = await _aside(context, now)
        open_gaps = await gaps.listing(context.database, GAPS_SHOWN_MAX, only_open=True)
    except SchemaMismatch as error:
        return _answer("unready", [_reason("schema", str(error), now)], now)
    except StoreError as error:
        log.warning("readiness.database_unavailable", error=str(error))
        broken = isinstance(error, StoreBroken)
        problem = "the database is damaged" if broken else "the database does not answer"
        return _answer("unready", [_reason("database", problem, now)], now)
    reasons = [
        *_of_writes(context.database.problem, now),
        *_of_reports(reports, now, context.started_at),
        *_of_frontiers(frontiers, unread, now, context.started_at),
        *_of_shared(context.shared, now),
        *_of_replicas(context.database.figures.replicas_failing, now),
    ]
    status: Literal["ready", "degraded", "unready"] = "degraded" if reasons else "ready"
    if not all(HELPERS.fullmatch(reason.component) for reason in reasons):
        status = "unready"
    doubts = [*_of_gaps(open_gaps), *aside, *_of_clock(frontiers)]
    if doubts and status == "ready":
        status = "degraded"
    return _answer(status, [*reasons, *doubts], now, frontiers, open_gaps)


def _of_writes(problem: str | None, now: int) -> Iterator[ReasonBody]:
    """What can be read and not written, such as on a full disk, is followed no further."""
    if problem is not None:
        yield _reason("database", f"the last write failed: {problem}", now)


def _of_shared(shared: Shared | None, now: int) -> Iterator[ReasonBody]:
    """What processes count together, each counts for itself now."""
    if shared is not None and shared.problem is not None:
        yield _reason("redis", shared.problem, now - int(shared.away_s))


def _of_replicas(failing: Sequence[str], now: int) -> Iterator[ReasonBody]:
    """Of this process. What they do not answer, the others do, or the primary."""
    if failing:
        problem = f"{', '.join(failing)}: no answer that is new enough; others are read instead"
        yield _reason("replicas", problem, now)


async def _aside(context: Context, now: int) -> list[ReasonBody]:
    """What was given up, and is for a person to look at."""
    database = context.database
    parked = await dead_letters.count(database)
    unprocessed = (await webhook_events.counts(database))[WebhookVerdict.FAILED]
    given_up = await deliveries.given_up(database)
    said = (
        ("dead_letters", parked, "transaction", "could not be examined", "set aside"),
        ("webhook_events", unprocessed, "webhook", "could not be processed", "set aside"),
        ("webhook_deliveries", given_up, "webhook", "could not be delivered", "given up"),
    )
    return [
        _reason(component, f"1 {what} {why} and is {how}", now)
        if count == 1
        else _reason(component, f"{count} {what}s {why} and are {how}", now)
        for component, count, what, why, how in said
        if count
    ]


def _of_clock(frontiers: Sequence[Frontier]) -> Iterator[ReasonBody]:
    """Deadlines are set by the clock of this machine and judged by block time.

    A final block of the future is one of a clock that is slow. That the chain is behind may have
    many causes, and says nothing of the clock.
    """
    latest = max(frontiers, key=lambda each: each.updated_at, default=None)
    if latest is None or latest.block_time - latest.updated_at <= CLOCK_BEHIND_MAX_S:
        return
    behind_s = latest.block_time - latest.updated_at
    problem = f"the clock of the indexer's machine is {behind_s} s behind the chain's"
    yield _reason("clock", f"{problem}: payments expire too early", latest.updated_at)


def _of_gaps(open_gaps: Sequence[Gap]) -> Iterator[ReasonBody]:
    """A gap that is being swept is only a matter of time; one that no node keeps is not."""
    swept = [gap for gap in open_gaps if gap.reason is not GapReason.PRUNED]
    pruned = [gap for gap in open_gaps if gap.reason is GapReason.PRUNED]
    for found, fate in ((swept, "will be swept"), (pruned, "are kept by no endpoint")):
        if found:
            _, slots = gaps.counted(found)
            problem = f"{slots} slots in which something may have been missed {fate}"
            yield _reason("gaps", problem, min(gap.opened_at for gap in found))


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


async def _unread(context: Context, frontiers: Sequence[Frontier], now: int) -> list[WatchKey]:
    """Watch keys in use for a while of which nothing is known yet."""
    known = {each.key for each in frontiers}
    return [
        each
        for each in await watch_keys.listing(context.database)
        if each.retired_at is None
        and each.key not in known
        and now - each.created_at > FRONTIER_AGE_MAX_S
    ]


def _of_frontiers(
    frontiers: Sequence[Frontier], unread: Sequence[WatchKey], now: int, started_at: int
) -> Iterator[ReasonBody]:
    """The one that is behind most speaks for all."""
    oldest = min(frontiers, key=lambda each: each.updated_at, default=None)
    if oldest is None:
        yield _reason("frontier", "nothing of the chain has been read yet", started_at)
    elif (age_s := now - oldest.updated_at) > FRONTIER_AGE_MAX_S:
        problem = f"the frontier has not moved for {age_s} s"
        yield _reason("frontier", problem, oldest.updated_at)
    elif unread:
        problem = f"nothing of the watch key {unread[0].name!r} has been read yet"
        yield _reason("frontier", problem, unread[0].created_at)


def _reason(component: str, problem: str, since: int) -> ReasonBody:
    return ReasonBody(component=component, problem=problem, since=format_time(since))


def _answer(
    status: Literal["ready", "degraded", "unready"],
    reasons: list[ReasonBody],
    now: int,
    frontiers: Sequence[Frontier] = (),
    open_gaps: Sequence[Gap] = (),
) -> Response:
    missing = [
        GapBody(
            key=gap.key,
            first_slot=gap.slots.first,
            last_slot=gap.slots.last,
            reason=gap.reason,
            since=format_time(gap.opened_at),
        )
        for gap in open_gaps
    ]
    known = [_frontier_body(each, now) for each in frontiers]
    body = ReadinessBody(status=status, reasons=reasons, frontiers=known, gaps=missing)
    return json_response(body, 503 if status == "unready" else 200)


def _frontier_body(frontier: Frontier, now: int) -> FrontierBody:
    time = frontier.block_time or None  # 0: no block up to there has a time that is known
    return FrontierBody(
        key=frontier.key,
        slot=frontier.slot,
        block_time=None if time is None else format_time(time),
        age_s=None if time is None else now - time,
    )
