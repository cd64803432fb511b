"""The shop believes signatures only."""

import asyncio
import json

import aiohttp

from indexer.core import standard_webhooks
from indexer.core.standard_webhooks import secret_of, signing_key
from indexer.demo.mailbox import Mailbox


SECRET = secret_of(signing_key("k" * 32), "we_1", 1)


async def post(mailbox: Mailbox, id_: str, type_: str, *, secret: str = SECRET) -> int:
    body = json.dumps({"type": type_, "data": {"payment": {"id": "pay_1"}}}).encode()
    headers = {
        "webhook-id": id_,
        "webhook-timestamp": "1700000000",
        "webhook-signature": standard_webhooks.sign(
            [secret], id=id_, timestamp=1_700_000_000, body=body
        ),
    }
    async with (
        aiohttp.ClientSession() as http,
        http.post(mailbox.url, data=body, headers=headers) as response,
    ):
        return response.status


async def test_what_is_signed_is_heard_once_and_in_order() -> None:
    async with Mailbox.opened() as mailbox:
        mailbox.secret.set_result(SECRET)

        assert await post(mailbox, "evt_1", "payment.created") == 204
        assert await post(mailbox, "evt_2", "payment.settled") == 204
        assert await post(mailbox, "evt_1", "payment.created") == 204
        await mailbox.until("pay_1", "payment.settled")

        assert mailbox.heard == {"pay_1": ["payment.created", "payment.settled"]}
        assert (mailbox.count, mailbox.forged) == (2, 0)


async def test_what_is_not_signed_by_us_is_counted_and_refused() -> None:
    other = secret_of(signing_key("k" * 32), "we_2", 1)
    async with Mailbox.opened() as mailbox:
        mailbox.secret.set_result(SECRET)

        assert await post(mailbox, "evt_1", "payment.settled", secret=other) == 401

        assert (mailbox.count, mailbox.forged) == (0, 1)


async def test_a_webhook_that_comes_before_the_secret_is_known_waits() -> None:
    async with Mailbox.opened() as mailbox:
        early = asyncio.create_task(post(mailbox, "evt_1", "payment.created"))
        await asyncio.sleep(0)
        mailbox.secret.set_result(SECRET)

        assert await early == 204
