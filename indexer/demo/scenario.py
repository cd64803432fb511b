"""The demo: every story at once, and whether each ended as it must."""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from indexer import log
from indexer.core.types import EventType, Status
from indexer.demo.part import DemoFailed, Part
from indexer.demo.screen import Screen
from indexer.demo.stage import SYMBOL, Stage, stage
from indexer.demo.stories import Story, stories
from indexer.demo.wallet import LAMPORTS_PER_SOL, Wallet
from indexer.log import LogFormat, LogLevel


#: For all stories together, which take 15 s: a demo that hangs must say so.
LIMIT_S: Final = 80

_LOG_FILE: Final = "axiompay.log"


async def run(*, clock: Callable[[], float], keep: bool) -> int:
    """Plays every story; returns 0 when each ended as it must.

    Args:
        clock: unix seconds.
        keep: stay up afterwards, until Ctrl-C or SIGTERM.

    Raises:
        SurfnetError: the local runtime cannot be had.
        DemoFailed: a payment did not end as it must, or not in time.
    """
    screen = Screen(time.monotonic)
    with _folder(screen) as folder:
        async with stage(folder, clock=clock, say=screen.say) as up:
            with stop_asked() as stop:
                await _tell(up, screen, stop, keep=keep)
    return 0


async def tell_all(up: Stage, screen: Screen, stop: asyncio.Event) -> str:
    """Plays every story on what is up, and shows each; returns the id of the first payment.

    Raises:
        DemoFailed: a payment did not end as it must, or not in time, or `stop` was set before.
    """
    parts = [await _begin(story, up) for story in stories(SYMBOL)]
    screen.rows = [part.row for part in parts]
    with screen.showing():
        await _within_limit(_play(up, parts, screen), up, stop)
    wrong = [part.story.name for part in parts if not part.row.right]
    if wrong:
        raise DemoFailed(f"not as it must: {', '.join(wrong)}")
    screen.say(f"all {len(parts)} payments ended exactly as they must")
    if up.mailbox.forged:
        raise DemoFailed(f"{up.mailbox.forged} webhooks came with a wrong signature")
    screen.say(f"the shop was told by {up.mailbox.count} signed webhooks, each verified")
    return parts[0].id


async def _tell(up: Stage, screen: Screen, stop: asyncio.Event, *, keep: bool) -> None:
    first = await tell_all(up, screen, stop)
    _show_around(up, first, screen)
    if keep:
        screen.say("still up; Ctrl-C ends it")
        await until_stopped(up, stop)
    else:
        screen.say("these answered until now; `axiompay demo --keep` stays up, to look around")


async def _begin(story: Story, up: Stage) -> Part:
    """A new payment, and a payer who has what it takes to pay it twice."""
    payment = await up.shop.create(
        amount=story.amount,
        token=story.symbol,
        label="Axiom Pay demo",
        message=story.name,
        expires_in_s=story.expires_in_s,
    )
    wallet = await Wallet.funded(up.cluster, 10 * LAMPORTS_PER_SOL)
    token = up.token if story.symbol == SYMBOL else None
    if token is not None:
        await up.bank.run(
            token.create_account(up.bank.key, wallet.key),
            token.mint_to(up.bank.key, wallet.key, 2 * int(payment["amount_base_units"])),
        )
    return Part(story, payment, wallet, token, time.monotonic)


async def _play(up: Stage, parts: list[Part], screen: Screen) -> None:
    by_id = {part.id: part for part in parts}

    async def listen() -> None:
        async for _, data in up.shop.events():
            part = by_id[data["payment"]["id"]]
            await part.hear(data["payment"])
            screen.changed(part.row)

    async def tell(part: Part) -> None:
        await part.story.happens(part)
        await part.until(status=Status.SETTLED)
        part.judge(await up.shop.get(part.id))
        screen.changed(part.row)
        await up.mailbox.until(part.id, EventType.SETTLED)

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        async with asyncio.TaskGroup() as telling:
            for part in parts:
                telling.create_task(tell(part))
        listening.cancel()


async def _within_limit(play: Coroutine[Any, Any, None], up: Stage, stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(LIMIT_S):
            await _any_of(play, up, stopping)
    except TimeoutError:
        raise DemoFailed(f"not every payment settled within {LIMIT_S} s") from None
    finally:
        stopping.cancel()
    if stop.is_set():
        raise DemoFailed("stopped before every payment settled")


async def until_stopped(up: Stage, stop: asyncio.Event) -> None:
    """Waits until `stop` is set; raises what the product dies of before."""
    await _any_of(stop.wait(), up)


async def _any_of(work: Coroutine[Any, Any, Any], up: Stage, *others: asyncio.Task[Any]) -> None:
    """Does the work until it is done, another task is, or the product dies."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working, up.product, *others}, return_when=asyncio.FIRST_COMPLETED)
        if up.product.done():
            up.product.result()
            raise DemoFailed("the product ended by itself")
        if working.done():
            working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _show_around(up: Stage, payment_id: str, screen: Screen) -> None:
    url = up.shop.url
    for text in (
        f"  a payment    curl {url}/api/pay/{payment_id}",
        f"  its stream   curl -N {url}/api/sse/payments/{payment_id}",
        f"  its QR code  {url}/api/pay/{payment_id}/qr.svg",
        f"  all of them  curl -H 'Authorization: Bearer {up.key}' {url}/api/pay",
        f"  the API      {url}/api/openapi.json",
        f"  its health   curl {url}/readyz",
    ):
        screen.plain(text)


@contextmanager
def stop_asked() -> Iterator[asyncio.Event]:
    """Set by Ctrl-C and SIGTERM, which then end the demo in order."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _folder(screen: Screen) -> Iterator[Path]:
    """A folder for the database and the log; it stays only when something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="axiompay-demo-"))
    path = folder / _LOG_FILE
    try:
        with path.open("w", encoding="utf-8") as stream:
            log.configure(LogLevel.INFO, LogFormat.JSON, stream)
            try:
                yield folder
            finally:
                log.configure(LogLevel.WARNING, LogFormat.AUTO)
    except BaseException:
        if path.stat().st_size:
            screen.say(f"what happened is in {path}")
        else:
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
