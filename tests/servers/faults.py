"""What goes wrong with one answer of a fake node, as scripts for `FakeNode.fail`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web


@dataclass(frozen=True)
class Call:
    """One request that a node received."""

    method: str
    params: Sequence[Any]
    id: Any = None
    request: web.Request | None = field(default=None, repr=False, compare=False)


Fault = Callable[[Call], Awaitable[web.StreamResponse]]


def http(
    status: int, *, retry_after: str | None = None, date: str | None = None, body: bytes = b""
) -> Fault:
    """An HTTP status, with the headers that matter."""

    async def fault(_: Call) -> web.StreamResponse:
        given = {"Retry-After": retry_after, "Date": date}
        headers = {name: value for name, value in given.items() if value is not None}
        return web.Response(status=status, headers=headers, body=body)

    return fault


def rpc_error(code: int, message: str = "scripted", *, status: int = 200, **rest: Any) -> Fault:
    """A JSON-RPC error; without `data` unless it is given."""

    async def fault(call: Call) -> web.StreamResponse:
        error = {"code": code, "message": message, **rest}
        return as_json({"jsonrpc": "2.0", "error": error, "id": call.id}, status=status)

    return fault


def result(value: Any) -> Fault:
    """A result of one's own choice."""

    async def fault(call: Call) -> web.StreamResponse:
        return as_json({"jsonrpc": "2.0", "result": value, "id": call.id})

    return fault


def null() -> Fault:
    """`null`: not there, says the node."""
    return result(None)


def garbage(body: bytes = b"<html>502 Bad Gateway</html>") -> Fault:
    """Bytes that are no JSON-RPC, with status 200."""

    async def fault(_: Call) -> web.StreamResponse:
        return web.Response(body=body, content_type="text/html")

    return fault


def wrong_id() -> Fault:
    """Somebody else's answer."""

    async def fault(_: Call) -> web.StreamResponse:
        return as_json({"jsonrpc": "2.0", "result": 1, "id": -1})

    return fault


def hang() -> Fault:
    """No answer until the client gives up."""

    async def fault(_: Call) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response(status=504)

    return fault


def hang_up() -> Fault:
    """The connection is closed instead of an answer, as a restarted server does."""

    async def fault(call: Call) -> web.StreamResponse:
        if call.request is not None and call.request.transport is not None:
            call.request.transport.abort()
        return web.Response()

    return fault


def as_json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )
