"""A folder's database, filled with what came in and what goes out."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from indexer.core import events
from indexer.core.types import WebhookSource, WebhookVerdict
from store import payments, webhook_events
from store.connection import Rows
from store.database import Database, Statement, open_database
from store.webhook_events import Arrived, Outcome
from tests.builders import NOW, make_payment


T = TypeVar("T")

URL = "https://shop.example/hooks"
NOBODY = "we_" + "0" * 26

#: What a stranger may have written, and a terminal would obey.
HOSTILE = "\x1b[2J\x9b1m\u202e\x07"


def within(folder: Path, work: Callable[[Database], Awaitable[T]]) -> T:
    """What the work on the database of that folder says."""

    async def run() -> T:
        database = await open_database(f"sqlite:///{folder / 'axiom.db'}")
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


def write(folder: Path, *batch: Statement) -> list[Rows]:
    """The rows of each statement."""
    return within(folder, lambda database: database.write(batch))


def arrived(
    folder: Path,
    name: str,
    *,
    source: WebhookSource = WebhookSource.HELIUS,
    at: int = NOW,
    body: bytes = b'[{"signature":"5abc"}]',
    verdict: WebhookVerdict = WebhookVerdict.WAITING,
    detail: str | None = None,
    payment_ids: tuple[str, ...] = (),
) -> str:
    """A webhook that came in, and what became of it; its id."""
    event = Arrived(
        source=source,
        kind="transactions",
        dedupe_key=name,
        nonce=None,
        body=body,
        headers={"user-agent": f"Helius{HOSTILE}"},
        address="192.0.2.7",
    )
    [[(number, *_)]] = write(folder, webhook_events.receive(event, at))
    if verdict is not WebhookVerdict.WAITING:
        outcome = Outcome(verdict=verdict, detail=detail, payment_ids=payment_ids)
        write(folder, *webhook_events.finish(number, outcome, at + 1))
    return f"whe_{number}"


def sold(folder: Path, number: int = 1, *, at: int = NOW) -> str:
    """A payment, whose creation every receiver is told of; its id."""
    payment = make_payment(number)
    write(folder, *payments.insert(payment, events.created(payment, at)))
    return payment.terms.id
