"""The API as a process, over a database in which there is one of everything.

`python -m tests.contract.served FOLDER OPTIONS` serves on a free port until its standard input
ends. It says one line of JSON: where it is, the key that may do everything, and ids of what there
is. The options are JSON as well: the `rate` of all callers from then on, and whether its
description `lies`.
"""

import asyncio
import itertools
import json
import random
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from api.rates import Rates
from indexer import log
from indexer.core.profile import Profile
from indexer.core.rate import parse_rate
from indexer.core.types import WebhookSource, WebhookVerdict
from indexer.log import LogFormat, LogLevel
from indexer.partners.desk import Partners
from indexer.settings import Settings
from indexer.sources.paymob import Paymob
from store import cursors, health, webhook_events
from store.cursors import Frontier
from store.limiter import Limiter
from store.webhook_events import Arrived, Outcome
from tests.api.knocking import SETTINGS
from tests.api.merchant import Merchant
from tests.api.running import NOW, WATCH_KEY, Api, make_key, running
from tests.indexer.partners.calling import SECRETS, shipped
from tests.servers.fake_amadeus import FakeAmadeus
from tests.servers.fake_paymob import FakePaymob


#: Every scope that a key can have.
SCOPES: Final = ("payments:read", "payments:write", "webhooks", "proxy", "ops")
CARD: Final = {"amount": "50", "token": "EGP", "provider": "paymob"}


async def furnish(api: Api) -> dict[str, str]:
    """Puts one of everything into the database; the ids of what may be asked for."""
    merchant = Merchant(api, await make_key(api.database, "everything", *SCOPES))
    endpoint = await merchant.register()
    other = await merchant.register("https://shop.example/none", event_types=["payment.refunded"])
    payment, canceled = await _payments(api)
    deliveries = await merchant.sent(endpoint["id"])
    await merchant.tried(deliveries[0]["id"], status=500, response="down")
    await merchant.tried(deliveries[0]["id"], status=204, number=2, at=NOW + 10)
    await merchant.tried(deliveries[1]["id"], status=None)
    await merchant.given_up(deliveries[2]["id"])
    event = await _webhook_events(api, payment)
    await _indexer(api)
    return {
        "payment": payment,
        "canceled": canceled,
        "receiver": other["id"],
        "endpoint": endpoint["id"],
        "delivery": deliveries[0]["id"],
        "event": f"whe_{event}",
        "authorization": merchant.headers["Authorization"],
    }


async def _payments(api: Api) -> tuple[str, str]:
    """One of each status, on the chain and by card; the ids of those that stay as they are."""
    settled, sighted, expired, canceled, partial = [
        (await api.create(order_id=str(number)))["id"] for number in range(5)
    ]
    await api.settle(settled, 12_500_000)
    await api.settle(partial, 1)
    await api.sight(sighted, 12_500_000)
    await api.expire(expired)
    status, _ = await api.post(f"/api/pay/{canceled}/cancel", api.writer)
    assert status == 200
    await api.create(token="SOL", amount="1", label="Shop", message="Tea", memo="hello")
    await api.create(order_id=None, metadata=None, **CARD)
    return settled, canceled


async def _webhook_events(api: Api, payment_id: str) -> int:
    """A webhook with each fate; the number of one that is done."""
    done = 0
    for number, verdict in enumerate(WebhookVerdict):
        arrived = Arrived(
            source=list(WebhookSource)[number % len(WebhookSource)],
            kind="transactions",
            dedupe_key=f"event {number}",
            nonce=None,
            body=b"\xff\xfe" if number % 2 else b"[]",
            headers={"user-agent": "Helius"},
            address="192.0.2.7",
        )
        [[(id_, _, _)]] = await api.database.write([webhook_events.receive(arrived, NOW)])
        if verdict is not WebhookVerdict.WAITING:
            outcome = Outcome(verdict=verdict, detail="so it is", payment_ids=(payment_id,))
            await api.database.write(webhook_events.finish(int(id_), outcome, NOW + 5))
        if verdict is WebhookVerdict.DONE:
            done = int(id_)
    return done


async def tick(api: Api, payment_id: str) -> None:
    """Something happens while anybody looks: a stream of all payments has an event before long."""
    hub = api.app.state.context.hub
    for version in itertools.count(1_000):
        while not hub.count:
            await asyncio.sleep(0.05)
        await api.publish(payment_id, 1, first=version)
        await asyncio.sleep(0.1)


async def _indexer(api: Api) -> None:
    """What an indexer leaves behind that runs, so that the process calls itself ready."""
    frontier = Frontier(key=WATCH_KEY, slot=8, block_time=NOW, updated_at=NOW)
    await api.database.write([health.report("indexer", None, NOW), cursors.advance(frontier)])


def _without_a_field(document: Any) -> None:
    _forget(document["components"]["schemas"]["PaymentBody"], "version")


def _with_another_message(document: Any) -> None:
    _forget(document["components"]["schemas"]["MerchantEventBody"], "order_id")


def _forget(schema: Any, name: str) -> None:
    del schema["properties"][name]
    schema["required"].remove(name)


def _with_another_status(document: Any) -> None:
    responses = document["paths"]["/api/webhooks/endpoints"]["get"]["responses"]
    responses["418"] = responses.pop("200")


def _with_another_type(document: Any) -> None:
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    content["text/html"] = content.pop("text/plain")


def _without_a_header(document: Any) -> None:
    del document["paths"]["/api/webhooks/endpoints"]["post"]["responses"]["201"]["headers"]


def _with_a_higher_bound(document: Any) -> None:
    _limit_of(document, "/api/webhooks/events")["maximum"] += 1


def _with_a_lower_bound(document: Any) -> None:
    _limit_of(document, "/api/pay")["maximum"] -= 1


def _limit_of(document: Any, path: str) -> Any:
    parameters = document["paths"][path]["get"]["parameters"]
    [limit] = [each["schema"] for each in parameters if each["name"] == "limit"]
    return limit


def _with_a_key_that_is_not_needed(document: Any) -> None:
    document["paths"]["/readyz"]["get"]["security"] = [{"apiKey": []}]


#: By the operation where it must be noticed: what a description may have wrong.
LIES: Final[dict[str, Callable[[Any], None]]] = {
    "getPayment": _without_a_field,
    "streamEvents": _with_another_message,
    "listEndpoints": _with_another_status,
    "getMetrics": _with_another_type,
    "createEndpoint": _without_a_header,
    "listWebhookEvents": _with_a_higher_bound,
    "listPayments": _with_a_lower_bound,
    "isReady": _with_a_key_that_is_not_needed,
}


def _lie(api: Api) -> None:
    context = api.app.state.context
    document = json.loads(context.openapi)
    for lie in LIES.values():
        lie(document)
    api.app.state.context = replace(context, openapi=json.dumps(document).encode())


def _partners(profile: Profile) -> Partners:
    limiter = Limiter(None, time.monotonic)
    secrets = {profile.name: SECRETS}
    return Partners([profile], secrets, shared=None, limiter=limiter, monotonic=time.monotonic)


def _limit_all(api: Api, rate: str) -> None:
    settings = replace(Settings(), rate_limit=parse_rate(rate))
    rates = Rates(Limiter(None, time.monotonic), settings, time.monotonic)
    api.app.state.context = replace(api.app.state.context, rates=rates)


async def serve(path: Path, *, lies: bool, rate: str) -> None:
    """Serves until standard input ends."""
    async with (
        FakePaymob() as fake,
        Paymob(fake.account()) as client,
        FakeAmadeus() as amadeus,
        _partners(shipped(amadeus.url)) as partners,
        running(
            path,
            cards=client,
            partners=partners,
            upstreams=tuple(partners.profiles.values()),
            **SETTINGS,
        ) as api,
    ):
        known = await furnish(api)
        if lies:
            _lie(api)
        if rate:
            _limit_all(api, rate)
        ticking = asyncio.create_task(tick(api, known["payment"]))
        print(json.dumps({"url": f"http://127.0.0.1:{api.port}", **known}), flush=True)  # noqa: T201 - to whoever started it
        await asyncio.to_thread(sys.stdin.read)
        ticking.cancel()


if __name__ == "__main__":
    log.configure(LogLevel.WARNING, LogFormat.JSON)
    # The same ids each time: what the fuzzer makes of them would be other cases.
    chance = random.Random(0)
    secrets.token_bytes = lambda nbytes=None: chance.randbytes(nbytes or 32)
    asyncio.run(serve(Path(sys.argv[1]), **json.loads(sys.argv[2])))
