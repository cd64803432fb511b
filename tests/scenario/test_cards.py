"""Payments by card from beginning to end: the whole daemon, and a Paymob that it talks to.

No node of Solana answers: payments by card do not need one.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode

import aiohttp
import pytest

from indexer import daemon, inquiries
from indexer.core.types import WebhookVerdict
from indexer.settings import Settings
from store import events, migrate, webhook_events
from store.database import Database, open_database
from tests.api.running import Clock, make_key
from tests.cards import card
from tests.rates import UNLIMITED
from tests.scenario.deployment import PATIENCE_S, SIGNING_KEY
from tests.servers.fake_paymob import FakeCallback, FakePaymob
from tests.servers.faults import hang_up, http


ROOT: Final = Path(__file__).resolve().parents[2]
AMOUNT: Final = 5_000


@dataclass
class Shop:
    """A merchant's backend, the daemon that it uses, and the Paymob behind that.

    Attributes:
        clock: of the daemon; moves only when told.
        environment: the settings of it.
    """

    fake: FakePaymob
    database: Database
    session: aiohttp.ClientSession
    clock: Clock
    environment: Mapping[str, str]
    key: Mapping[str, str]

    @classmethod
    @asynccontextmanager
    async def over(cls, database_url: str) -> AsyncIterator[Self]:
        """A migrated database; no daemon runs yet."""
        async with AsyncExitStack() as stack:
            fake = await stack.enter_async_context(FakePaymob())
            with socket.create_server(("127.0.0.1", 0)) as listening:
                port = listening.getsockname()[1]
            environment = {
                **fake.environment(),
                "AXIOM_DATABASE_URL": database_url,
                "AXIOM_RPC_URLS": "http://127.0.0.1:9",
                "AXIOM_PORT": str(port),
                "AXIOM_RATE_LIMIT": str(UNLIMITED),
                "AXIOM_WEBHOOK_SIGNING_KEYS": SIGNING_KEY,
            }
            database = await open_database(environment["AXIOM_DATABASE_URL"])
            stack.push_async_callback(database.close)
            await migrate.migrate(database)
            key = await make_key(database, "shop", "payments:write", "payments:read")
            url = f"http://127.0.0.1:{port}"
            session = await stack.enter_async_context(aiohttp.ClientSession(url))
            yield cls(fake, database, session, Clock(), environment, key)

    @asynccontextmanager
    async def open(self, clock: Callable[[], float] | None = None) -> AsyncIterator[None]:
        """The daemon runs, indexer and API in one process."""
        stop, ready = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(
            daemon.run(
                Settings.from_env(self.environment, None),
                clock=clock or self.clock,
                indexer=True,
                api=True,
                stop=stop,
                on_ready=ready.set,
            )
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                waiting = asyncio.create_task(ready.wait())
                await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE_S):
                await running

    async def sell(self, **fields: Any) -> dict[str, Any]:
        """A payment by card, made through the API."""
        headers = {**self.key, "Idempotency-Key": secrets.token_hex(8)}
        body = {"amount": "50", "token": "EGP", "provider": "paymob", **fields}
        async with self.session.post("/api/pay", json=body, headers=headers) as response:
            assert response.status == 201, await response.text()
            payment: dict[str, Any] = await response.json()
            return payment

    async def show(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        url = f"/api/pay/{payment['id']}"
        async with self.session.get(url, headers=self.key) as response:
            shown: dict[str, Any] = await response.json()
            return shown

    async def until(self, payment: Mapping[str, Any], status: str) -> dict[str, Any]:
        """The payment, once it has the status. It is watched in the store: asking has effects."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (now := await self.status(payment)) != status:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"it is {now}, not {status}") from None
        return await self.show(payment)

    async def status(self, payment: Mapping[str, Any]) -> str:
        return (await card(self.database, payment["id"])).payment.state.status

    async def events(self, payment: Mapping[str, Any]) -> list[str]:
        found = await events.after(self.database, 0, payment_id=payment["id"], limit=100)
        return [event.type.removeprefix("payment.") for event in found]

    async def handled(self, count: int = 1) -> list[webhook_events.Entry]:
        """What became of the callbacks, once so many have an end; the newest first."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await webhook_events.page(self.database, limit=100)
                ended = [each for each in found if each.verdict is not WebhookVerdict.WAITING]
                if len(ended) >= count:
                    return ended
                await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INTERVAL_S", "PAUSE_S", "AWAY_PAUSE_S_MAX"):
        monkeypatch.setattr(inquiries, name, 0.05)


async def test_a_callback_settles_it(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        payment = await shop.sell(order_id="1042")
        order = shop.fake.order_at(payment["checkout_url"])

        charge = await shop.fake.pay(order.reference)

        settled = await shop.until(payment, "settled")
        assert shop.fake.answers == [200]
        assert (settled["received"], settled["paid"], settled["review"]) == ("50", "exact", [])
        assert [each["id"] for each in settled["charges"]] == [str(charge)]
        assert await shop.events(payment) == ["created", "settled"]
        [event] = await shop.handled()
        assert (event.verdict, event.payment_ids) == (WebhookVerdict.DONE, (payment["id"],))
        assert shop.fake.count("inquiry") == 0


async def test_with_every_callback_lost_the_poll_settles_it(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        shop.fake.loses = True
        payment = await shop.sell()
        await shop.fake.pay(payment["id"])
        assert await shop.status(payment) == "pending"

        shop.clock.now += 60

        await shop.until(payment, "settled")
        assert await shop.events(payment) == ["created", "settled"]


async def test_whoever_looks_at_it_has_paymob_asked_at_once(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        shop.fake.loses = True
        payment = await shop.sell()
        await shop.fake.pay(payment["id"])

        await shop.show(payment)

        await shop.until(payment, "settled")


async def test_nobody_pays_and_it_expires(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        payment = await shop.sell(expires_in_s=100)
        shop.fake.fail("inquiry", http(503), times=3)

        shop.clock.now += 131

        async with asyncio.timeout(PATIENCE_S):
            while shop.fake.count("inquiry") < 1:
                await asyncio.sleep(0.02)
        assert await shop.status(payment) == "pending", "nobody has answered yet"
        shop.fake.heal()
        shop.clock.now += inquiries.FAILED_PAUSE_S
        await shop.until(payment, "expired")
        assert await shop.events(payment) == ["created", "expired"]


async def test_a_declined_card_and_then_another_one(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        payment = await shop.sell()
        await shop.fake.decline(payment["id"])
        await shop.until(payment, "failed")

        await shop.fake.pay(payment["id"])

        settled = await shop.until(payment, "settled")
        assert [each["state"] for each in settled["charges"]] == ["declined", "paid"]
        assert await shop.events(payment) == ["created", "failed", "settled"]


async def test_callbacks_doubled_and_out_of_order(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        shop.fake.holds = True
        shop.fake.copies = 3
        payment = await shop.sell()
        await shop.fake.decline(payment["id"])
        charge = await shop.fake.begin(payment["id"])
        await shop.fake.finish(charge)

        await shop.fake.release(order=[8, 3, 0, 7, 1, 4, 6, 2, 5])

        await shop.until(payment, "settled")
        assert shop.fake.answers == [200] * 9
        assert len(await shop.handled(3)) == 3, "one for each event"
        settled = await shop.show(payment)
        assert {each["state"] for each in settled["charges"]} == {"declined", "paid"}
        assert (await shop.events(payment)).count("settled") == 1


async def test_refunded_and_voided_after_it_was_settled(database_url: str) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        refunded, voided = await shop.sell(), await shop.sell()
        charges = [await shop.fake.pay(payment["id"]) for payment in (refunded, voided)]
        for payment in (refunded, voided):
            await shop.until(payment, "settled")

        await shop.fake.refund(charges[0], 2_000)
        async with asyncio.timeout(PATIENCE_S):
            while (await shop.show(refunded))["review"] != ["partially_refunded"]:
                await asyncio.sleep(0.02)
        await shop.fake.refund(charges[0])
        await shop.fake.void(charges[1])

        for payment in (refunded, voided):
            shown = await shop.until(payment, "refunded")
            assert (shown["received"], shown["review"]) == ("50", [])
        assert (await shop.events(voided)) == ["created", "settled", "refunded"]


async def test_an_order_whose_answer_is_lost_leaves_one_page_and_one_charge(
    database_url: str,
) -> None:
    async with Shop.over(database_url) as shop, shop.open():
        shop.fake.fail("intention", hang_up(), after=True)

        payment = await shop.sell()

        assert len(shop.fake.orders) == 2
        order = shop.fake.order_at(payment["checkout_url"])
        assert order.reference == f"{payment['id']}-2"
        await shop.fake.pay(order.reference)
        settled = await shop.until(payment, "settled")
        assert (len(settled["charges"]), settled["paid"]) == (1, "exact")
        assert len(shop.fake.transactions) == 1


async def test_a_forged_callback_changes_nothing(database_url: str) -> None:
    """The boundary-shifted, the wrongly signed, and the one of another order."""
    async with Shop.over(database_url) as shop, shop.open():
        shop.fake.holds = True
        cheap, dear = await shop.sell(amount="1"), await shop.sell(amount="9000")
        charge = await shop.fake.pay(cheap["id"])
        [genuine] = shop.fake.held
        owner, order = b'"owner": 302852', str(shop.fake.order(cheap["id"]).id).encode()
        shifted = genuine.body.replace(owner, b'"owner": %b302852' % order[-1:])
        shifted = shifted.replace(b'"id": ' + order + b",", b'"id": ' + order[:-1] + b",")
        renamed = genuine.body.replace(cheap["id"].encode(), dear["id"].encode())
        raised = genuine.body.replace(b'"amount_cents": 100,', b'"amount_cents": 900000,')
        assert len({genuine.body, shifted, renamed, raised}) == 4

        for body in (shifted, renamed, raised):
            await shop.fake.send(FakeCallback(url=genuine.url, body=body))
        query = dict(parse_qsl(shop.fake.redirect_query(charge)))
        query["merchant_order_id"] = dear["id"]
        async with shop.session.get(
            f"/api/webhooks/paymob?{urlencode(query)}", allow_redirects=False
        ) as response:
            await response.read()

        ended = await shop.handled(2)
        assert {each.verdict for each in ended} <= {
            WebhookVerdict.REFUSED,
            WebhookVerdict.UNAUTHENTICATED,
        }
        assert shop.fake.answers[2] == 401, "the amount is signed"
        assert await shop.events(dear) == ["created"]
        assert (await shop.show(dear))["charges"] == []
        # What was sent in place of the genuine one cannot keep it away: Paymob was asked.
        settled = await shop.until(cheap, "settled")
        assert settled["received"] == "1"


async def test_killed_after_the_200_it_is_processed_when_somebody_runs_again(
    database_url: str,
) -> None:
    """The API answers by itself, and nobody processes: then it is killed."""
    async with Shop.over(database_url) as shop:
        environment = {**os.environ, **shop.environment}
        api = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "indexer", "api", cwd=ROOT, env=environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await _until_alive(shop)
            payment = await shop.sell()
            await shop.fake.pay(payment["id"])
            assert shop.fake.answers == [200]
        finally:
            api.send_signal(signal.SIGKILL)
            await api.wait()
        assert await shop.status(payment) == "pending"

        async with shop.open(time.time):
            await shop.until(payment, "settled")
            [event] = await shop.handled()

        assert event.verdict is WebhookVerdict.DONE
        assert await shop.events(payment) == ["created", "settled"]


async def _until_alive(shop: Shop) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with shop.session.get("/livez") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
