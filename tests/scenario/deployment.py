"""A whole Axiom Pay on a local Solana runtime, for stories from beginning to end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from solders.keypair import Keypair

from api import offers
from api.chain import Accounts
from indexer import daemon
from indexer.core.creation import NewPayment
from indexer.core.payment import Payment
from indexer.core.types import Status
from indexer.demo.surfnet.launcher import Surfnet
from indexer.settings import Settings
from indexer.sources.rpc import Rpc
from store import cursors, events as event_log, health, migrate, payments, watching
from store.database import Database, open_database
from store.events import StoredEvent
from store.payments import Record
from tests.rates import UNLIMITED


#: The longest that any story waits for one thing to happen. The clock of a chain that is shared
#: falls behind by tens of seconds while both cores are busy, and deadlines are kept by it.
PATIENCE_S = 90.0

#: What processes must share where there is no folder for it.
SIGNING_KEY = "0123456789abcdef0123456789ABCDEF"


class Deployment:
    """One database file, and daemons over it that the test starts, stops and starts again."""

    def __init__(self, settings: Settings, database: Database, watch_key: str, rpc: Rpc) -> None:
        self.settings = settings
        self.database = database
        self.watch_key = watch_key
        self._rpc = rpc
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def over(
        cls,
        surfnet: Surfnet,
        folder: Path,
        *,
        tokens: dict[str, str] | None = None,
        database_url: str = "",
    ) -> AsyncIterator[Self]:
        """A migrated database, a file in that folder unless it is named; no daemon runs yet."""
        settings = settings_for(surfnet, folder, tokens)
        if database_url:
            settings = replace(
                settings, database_url=database_url, webhook_signing_keys=(SIGNING_KEY,)
            )
        async with AsyncExitStack() as stack:
            database = await open_database(settings.database_url)
            stack.push_async_callback(database.close)
            await migrate.migrate(database)
            rpc = await stack.enter_async_context(Rpc(settings.rpc_urls))
            await daemon.ensure_watch_key(database, settings, time.time)
            [watch_key] = await watching.watch_keys(database, now=int(time.time()))
            deployment = cls(settings, database, watch_key, rpc)
            stack.push_async_callback(deployment.stop)
            yield deployment

    # ------------------------------------------------------------------------------ daemons

    async def start(self, *, api: bool = False, settings: Settings | None = None) -> None:
        """Runs a daemon until `stop`."""
        ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(
            daemon.run(
                settings or self.settings,
                clock=time.time,
                indexer=True,
                api=api,
                stop=self._stop,
                on_ready=ready.set,
            )
        )
        waiting = asyncio.create_task(ready.wait())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        waiting.cancel()

    async def listening(self) -> None:
        """Waits until the first daemon over this database says that doorbells ring."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reports = {r.component: r.problem for r in await health.all_of(self.database)}
                if reports.get("pubsub:0", "not started") is None:
                    return
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends the daemon in order, and raises what it died of."""
        if self._task is None:
            return
        task, self._task = self._task, None
        self._stop.set()
        # Waited for and not awaited: cancelling it as well would hide that it does not end.
        ended, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        assert ended, f"the daemon still runs {PATIENCE_S} s after it was asked to stop"
        task.result()

    async def daemon_ended(self) -> None:
        """Waits until the daemon ends by itself, and raises what it died of."""
        assert self._task is not None
        task, self._task = self._task, None
        async with asyncio.timeout(PATIENCE_S):
            await task

    # ----------------------------------------------------------------------------- payments

    async def create(
        self,
        amount: str,
        token: str = "SOL",
        *,
        recipient: str | None = None,
        reference: str | None = None,
        memo: str | None = None,
        expires_in_s: int | None = None,
        grace_s: int | None = None,
    ) -> Payment:
        """A payment as the API and the command line make it."""
        request = NewPayment(
            amount=amount,
            token=token,
            recipient=recipient or str(Keypair().pubkey()),
            reference=reference,
            memo=memo,
            expires_in_s=expires_in_s,
        )
        policy = self.settings.policy(self.watch_key)
        if grace_s is not None:
            policy = replace(policy, grace_s=grace_s)
        chain = Accounts(self._rpc, (), time.monotonic)
        made = await offers.make(chain, policy, request, clock=time.time)
        await self.database.write(made.statements)
        assert isinstance(made.record, Record)
        return made.record.payment

    async def record(self, payment: Payment) -> Record:
        """The payment as it is stored now."""
        record = await payments.get(self.database, payment.terms.id)
        assert record is not None
        return record

    async def until(self, payment: Payment, condition: Callable[[Record], bool] | Status) -> Record:
        """The payment, once the condition holds; fails the test when it does not in time."""
        last: Record | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    last = await self.record(payment)
                    if condition(last) if callable(condition) else is_(last, condition):
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"in {PATIENCE_S} s it only came to {last}") from None

    async def cancel(self, payment: Payment) -> Payment:
        """The payment, taken back as the API and the command line do it."""
        taken_back = await offers.take_back(self.database, payment.terms.id, clock=time.time)
        assert taken_back is not None
        record, is_new = taken_back
        assert is_new
        assert isinstance(record, Record)
        return record.payment

    async def swept_past(self, slot: int, key: str | None = None) -> None:
        """Waits until a sweep of the key that reaches beyond `slot` is complete.

        `key` is the watch key when None.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frontier = await cursors.get(self.database, key or self.watch_key)
                if frontier is not None and frontier.slot > slot:
                    return
                await asyncio.sleep(0.05)

    async def events(self, payment: Payment) -> list[str]:
        """The types of the payment's events, in order."""
        return [event.type for event in await self.stored_events(payment)]

    async def stored_events(self, payment: Payment) -> list[StoredEvent]:
        """The payment's part of the log."""
        return await event_log.after(self.database, 0, payment_id=payment.terms.id, limit=1_000)


def is_(record: Record, status: Status) -> bool:
    """Whether the payment has that status."""
    return record.payment.state.status is status


def settings_for(surfnet: Surfnet, folder: Path, tokens: dict[str, str] | None = None) -> Settings:
    """Settings of a daemon on that runtime, with its database in that folder."""
    return replace(
        Settings(),
        database_url=f"sqlite:///{folder}/axiom.db",
        rpc_urls=(surfnet.rpc_url,),
        ws_urls=(surfnet.ws_url,),
        rpc_rate=0,
        tokens={"SOL": None, **(tokens or {})},
        port=0,
        rate_limit=UNLIMITED,
    )
