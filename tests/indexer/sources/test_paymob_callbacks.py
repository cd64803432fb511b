"""The callbacks of the fake are signed and shaped as those of Paymob, spoiled ones as well."""

import json
from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web

from indexer.core.intention import NewIntention
from indexer.core.paymob import charge_news, hmac_of, is_signed, parse_callback, parse_redirect
from indexer.core.types import ChargeState
from indexer.sources.paymob import Paymob
from tests.ports import free_port
from tests.servers.fake_paymob import HMAC_SECRET, FakePaymob, pins


PAYMENT: Final = "pay_00000000000000000000000001"


@pytest.fixture
async def fake() -> AsyncIterator[FakePaymob]:
    async with FakePaymob() as running, Paymob(running.account()) as client:
        await client.create_intention(
            NewIntention(reference=PAYMENT, amount=10_050, expires_in_s=900)
        )
        yield running


async def test_the_callbacks_of_the_fake_are_those_of_paymob(fake: FakePaymob) -> None:
    """Its signatures are made by other code, and its customers come back with the same ones."""
    received: list[tuple[str, bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        received.append((request.query["hmac"], await request.read()))
        return web.Response()

    application = web.Application()
    application.router.add_post("/door", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    fake.callback_url, fake.loses, fake.tells_parents = f"http://127.0.0.1:{port}/door", False, True

    await fake.decline(PAYMENT)
    paid = await fake.pay(PAYMENT)
    refund = await fake.refund(paid, 50)
    await fake.save_card(PAYMENT)
    await runner.cleanup()

    callbacks = [(hmac, parse_callback(raw)) for hmac, raw in received]
    assert all(is_signed(callback, hmac, [HMAC_SECRET]) for hmac, callback in callbacks)
    told = [charge_news(callback, pins()) for _, callback in callbacks]
    assert [news and (news.state, news.needs_inquiry) for news in told] == [
        (ChargeState.DECLINED, False),
        (ChargeState.PAID, False),
        (ChargeState.PENDING, True),
        (ChargeState.PAID, False),
        None,
    ]
    assert [news.id for news in told if news][-2:] == [refund, paid]
    query = fake.redirect_query(paid)
    assert is_signed(parse_redirect(query), hmac_of(query), [HMAC_SECRET])


async def test_callbacks_are_held_doubled_reordered_lost_and_forged(fake: FakePaymob) -> None:
    fake.callback_url, fake.loses = f"http://127.0.0.1:{free_port()}/", False

    fake.holds, fake.copies = True, 2
    first, second = await fake.decline(PAYMENT), await fake.pay(PAYMENT)
    fake.signing_secret = "another one"
    await fake.pay(PAYMENT)
    fake.loses = True
    await fake.pay(PAYMENT)

    assert len(fake.held) == 6
    numbers = [json.loads(each.body)["obj"]["id"] for each in fake.held]
    assert numbers[:4] == [first, first, second, second]
    forged = fake.held[-1]
    assert not is_signed(parse_callback(forged.body), forged.url[-128:], [HMAC_SECRET])
    await fake.release(order=[3, 0])
    assert [json.loads(each.body)["obj"]["id"] for each in fake.sent] == [second, first]
    assert fake.answers == [None, None], "nobody listens"
