"""The merchant's backend: creates payments over HTTP and hears about them as events."""

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final, Self

import aiohttp

from indexer.errors import AxiomError


_REQUEST_TIMEOUT_S: Final = 30
_LINE_BYTES_MAX: Final = 1024 * 1024

Json = dict[str, Any]


class ShopError(AxiomError):
    """The API did not answer as it should."""


class Shop:
    """One merchant with one API key, for the length of an `async with` block."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._http = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S),
            read_bufsize=_LINE_BYTES_MAX,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def create(self, **fields: Any) -> Json:
        """A new payment, as the API shows it."""
        once = {"Idempotency-Key": secrets.token_urlsafe(16)}
        async with self._http.post("/api/pay", json=fields, headers=once) as response:
            return await _body(response, 201)

    async def get(self, payment_id: str) -> Json:
        """The payment as it stands."""
        async with self._http.get(f"/api/pay/{payment_id}") as response:
            return await _body(response, 200)

    async def register(self, url: str) -> str:
        """Has events sent to a URL; the secret that they are signed with."""
        async with self._http.post("/api/webhooks/endpoints", json={"url": url}) as response:
            secret: str = (await _body(response, 201))["secret"]
            return secret

    async def events(self) -> AsyncIterator[tuple[str, Json]]:
        """Type and data of everything that happens to any payment, from the first one on."""
        no_limit = aiohttp.ClientTimeout(total=None)
        path = "/api/sse/events?last_event_id=0"
        async with self._http.get(path, timeout=no_limit) as response:
            if response.status != 200:
                raise ShopError(f"{path} answers {response.status}: {await response.text()}")
            type_ = ""
            async for line in response.content:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name == "event":
                    type_ = value
                elif name == "data":  # the API writes JSON on one line
                    yield type_, json.loads(value)
        raise ShopError("the API closed the stream of events")


async def _body(response: aiohttp.ClientResponse, status: int) -> Json:
    if response.status != status:
        raise ShopError(
            f"{response.method} {response.url.path} answers {response.status}: "
            f"{await response.text()}"
        )
    body: Json = await response.json()
    return body
