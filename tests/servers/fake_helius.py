"""The webhooks API of Helius, as real HTTP on loopback.

    async with FakeHelius(API_KEY) as helius:
        helius.hooks["hook"] = helius.hook(["address"])
        Helius(helius.url, API_KEY)

It is as strict as it can be: an edit replaces everything that can be edited, so that what is left
out is gone; fields that an edit does not have are refused; so is a body without what it needs.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web


EDITABLE: Final = frozenset(
    {
        "webhookURL",
        "transactionTypes",
        "accountAddresses",
        "accountAddressOwners",
        "webhookType",
        "authHeader",
        "txnStatus",
        "encoding",
    }
)
NEEDED: Final = frozenset({"webhookURL", "transactionTypes", "accountAddresses", "webhookType"})
ADDRESSES_MAX: Final = 100_000

AUTH_HEADER = "what the door accepts"

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Call:
    """A request that came, whatever became of it."""

    method: str
    path: str
    query: str
    body: Any
    headers: dict[str, str]


class FakeHelius:
    """One account. An async context manager.

    Attributes:
        hooks: its webhooks, as they are told, by id.
        calls: every request, in order.
        hides_auth_header: it does not say what a webhook sends.
        url: where it is.
    """

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key
        self._faults: deque[Fault] = deque()
        self.hooks: dict[str, dict[str, Any]] = {}
        self.calls: list[Call] = []
        self.hides_auth_header = False
        self.url = ""

    def add(self, id_: str, addresses: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
        """A webhook of the account, with fields that we know nothing of."""
        hook: dict[str, Any] = {
            "webhookID": id_,
            "wallet": "theirs",
            "project": "theirs as well",
            "webhookURL": "https://shop.example/api/webhooks/helius",
            "transactionTypes": ["ANY"],
            "accountAddresses": list(addresses),
            "webhookType": "raw",
            "authHeader": AUTH_HEADER,
            "txnStatus": "success",
            "active": True,
        }
        self.hooks[id_] = hook | fields
        return self.hooks[id_]

    def fail(self, fault: Fault, *, times: int = 1) -> None:
        """The next requests end so."""
        self._faults.extend([fault] * times)

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [call.method for call in self.calls]

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        raw_path, _, query = request.raw_path.partition("?")
        self.calls.append(Call(request.method, raw_path, query, body, dict(request.headers)))
        if self._faults:
            return await self._faults.popleft()(request)
        if request.query.get("api-key") != self._api_key:
            return refusal(401, "Unauthorized")
        prefix, _, id_ = request.path.rpartition("/")
        if prefix != "/v0/webhooks" or id_ not in self.hooks:
            return refusal(404, "not found")
        return self._answer(request.method, self.hooks[id_], body)

    def _answer(self, method: str, hook: dict[str, Any], body: Any) -> web.Response:
        match method, body:
            case "GET", None:
                pass
            case "PATCH", {"active": bool(active), **rest} if not rest:
                hook["active"] = active
            case "PUT", dict():
                if (problem := _fault_of(body)) is not None:
                    return refusal(400, problem)
                for name in EDITABLE:
                    hook.pop(name, None)
                hook.update(body)
            case _:
                return refusal(400, "no such request")
        hidden = {"authHeader"} if self.hides_auth_header else set()
        return web.json_response({n: value for n, value in hook.items() if n not in hidden})


def _fault_of(edit: dict[str, Any]) -> str | None:
    """What is wrong with an edit."""
    if missing := NEEDED - edit.keys():
        return f"missing {sorted(missing)}"
    if unknown := edit.keys() - EDITABLE:
        return f"unknown {sorted(unknown)}"
    addresses = edit["accountAddresses"]
    if len(addresses) > ADDRESSES_MAX or len(set(addresses)) < len(addresses):
        return "too many addresses, or one twice"
    return None


# ----------------------------------------------------------------------------------- faults


def refusal(status: int, message: str, **headers: str) -> web.Response:
    """How the API says no."""
    error = {"jsonrpc": "2.0", "error": {"code": -32000, "message": message}, "id": "1"}
    return web.json_response(error, status=status, headers=headers)


def answers(
    status: int, body: bytes | str = b"", *, headers: dict[str, str] | None = None
) -> Fault:
    """An answer that has nothing to do with the question."""

    async def fault(_: web.Request) -> web.StreamResponse:
        data = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=data, headers=headers)

    return fault


def refuses(status: int, message: str, **headers: str) -> Fault:
    """A refusal of the API."""

    async def fault(_: web.Request) -> web.StreamResponse:
        return refusal(status, message, **headers)

    return fault


async def hangs(_: web.Request) -> web.StreamResponse:
    """Takes the request and says nothing."""
    await asyncio.sleep(3_600)
    raise AssertionError("somebody waited for an hour")


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """Closes the connection without a word."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
