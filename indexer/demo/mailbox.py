"""Where the merchant's backend receives signed webhooks: a real HTTP server on this machine."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from aiohttp import web


_PATH: Final = "/hooks/payments"
_PREFIX: Final = "whsec_"


class Mailbox:
    """What the shop was told by webhook, as far as the signature was right.

    Attributes:
        secret: of the receiver; what comes before it is known waits.
        heard: payment id -> types of its events, in the order of their first arrival.
        forged: how many came with a wrong signature.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.secret: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.heard: dict[str, list[str]] = defaultdict(list)
        self.forged = 0
        self._seen: set[str] = set()
        self._news = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Self]:
        """A mailbox that takes what is posted to `url`, until the block ends."""
        app = web.Application()
        runner = web.AppRunner(app, access_log=None)
        try:
            # Its routes are known before its port is.
            mailbox = cls("")
            app.router.add_post(_PATH, mailbox._take)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            mailbox.url = f"http://127.0.0.1:{port}{_PATH}"
            yield mailbox
        finally:
            await runner.cleanup()

    @property
    def count(self) -> int:
        """Webhooks that arrived, each once."""
        return len(self._seen)

    async def until(self, payment_id: str, type_: str) -> None:
        """Waits until a payment's event has arrived."""
        async with self._news:
            await self._news.wait_for(lambda: type_ in self.heard[payment_id])

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        id_, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        wanted = _signature(await self.secret, f"{id_}.{timestamp}.".encode() + body)
        given = request.headers["webhook-signature"].split()
        if not any(hmac.compare_digest(each.encode(), wanted.encode()) for each in given):
            self.forged += 1
            return web.Response(status=401)
        message = json.loads(body)
        async with self._news:
            if id_ not in self._seen:
                self._seen.add(id_)
                self.heard[message["data"]["payment"]["id"]].append(message["type"])
            self._news.notify_all()
        return web.Response(status=204)


def _signature(secret: str, message: bytes) -> str:
    """As Standard Webhooks has it, written here once more: the shop does not believe our code."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
