"""Somebody who may register receivers, and what is sent there."""

from collections.abc import Mapping
from typing import Any

from indexer.core.delivery import DELAYS_S
from store import deliveries
from store.deliveries import Attempt
from tests.api.running import NOW, Api


URL = "https://shop.example/hooks"
ENDPOINTS = "/api/webhooks/endpoints"
DELIVERIES = "/api/webhooks/deliveries"

Answer = tuple[int, dict[str, Any], Mapping[str, str]]


class Merchant:
    """Calls the API with one key."""

    def __init__(self, api: Api, headers: Mapping[str, str]) -> None:
        self.api = api
        self.headers = headers

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Status, JSON and headers of the answer; an empty body is an empty object."""
        given = {**self.headers, **(headers or {})}
        sent: dict[str, Any] = {} if body is None else {"json": body}
        async with self.api.session.request(method, path, headers=given, **sent) as response:
            raw = await response.read()
            said = await response.json(content_type=None) if raw else {}
            return response.status, said, response.headers.copy()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        status, body, _ = await self.ask("GET", path)
        return status, body

    async def post(self, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        status, said, _ = await self.ask("POST", path, body)
        return status, said

    async def register(self, url: str = URL, **fields: Any) -> dict[str, Any]:
        """A receiver, with its secret."""
        status, body = await self.post(ENDPOINTS, {"url": url, **fields})
        assert status == 201, body
        return body

    async def sent(self, endpoint_id: str, query: str = "") -> list[dict[str, Any]]:
        """Deliveries to a receiver, the newest first."""
        status, body = await self.get(f"{ENDPOINTS}/{endpoint_id}/deliveries{query}")
        assert status == 200, body
        data: list[dict[str, Any]] = body["data"]
        return data

    async def tried(
        self,
        delivery_id: str,
        *,
        status: int | None = 200,
        at: int = NOW + 5,
        number: int = 1,
        response: str = "",
    ) -> None:
        """An attempt, as the courier notes it."""
        id_ = int(delivery_id.removeprefix("dlv_"))
        is_success = status is not None and 200 <= status < 300
        problem = None if is_success else f"answered {status}"
        attempt = Attempt(
            number=number, at=at, duration_ms=12, status=status, problem=problem, response=response
        )
        end = deliveries.delivered(id_, at)
        if not is_success:
            end = deliveries.again(id_, at + DELAYS_S[0])
        await self.api.database.write([deliveries.tried(id_, attempt), end])

    async def given_up(self, delivery_id: str) -> None:
        id_ = int(delivery_id.removeprefix("dlv_"))
        await self.api.database.write([deliveries.failed(id_, NOW + 9)])
