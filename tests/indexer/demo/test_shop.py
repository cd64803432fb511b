from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from indexer.demo.shop import Shop, ShopError


STREAM = (
    "retry: 3000\nid: 0\n\n"
    ": heartbeat\n\n"
    'id: 1\nevent: payment.created\ndata: {"payment":{"id":"pay_1","label":"a: b"}}\n\n'
    'id: 2\nevent: payment.settled\ndata: {"payment":{"id":"pay_1"}}\n\n'
)


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    async def create(request: web.Request) -> web.Response:
        seen = {
            "key": request.headers["Authorization"],
            "once": request.headers["Idempotency-Key"],
            "asked": await request.json(),
        }
        return web.json_response(seen, status=201)

    async def show(_: web.Request) -> web.Response:
        return web.json_response({"code": "no_such_payment"}, status=404)

    async def stream(_: web.Request) -> web.Response:
        return web.Response(text=STREAM, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/api/pay", create)
    app.router.add_get("/api/pay/{id}", show)
    app.router.add_get("/api/sse/events", stream)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_each_payment_is_asked_for_once_and_with_the_key(url: str) -> None:
    async with Shop(url, "axk_x") as shop:
        first, second = await shop.create(amount="1"), await shop.create(amount="1")

    assert (first["key"], first["asked"]) == ("Bearer axk_x", {"amount": "1"})
    assert first["once"] != second["once"]


async def test_an_answer_that_is_no_success_is_said(url: str) -> None:
    async with Shop(url, "axk_x") as shop:
        with pytest.raises(ShopError, match=r"GET /api/pay/pay_1 answers 404: .*no_such_payment"):
            await shop.get("pay_1")


async def test_events_come_in_order_until_the_stream_ends(url: str) -> None:
    async with Shop(url, "axk_x") as shop:
        stream = shop.events()
        heard = [await anext(stream), await anext(stream)]
        with pytest.raises(ShopError, match="closed the stream"):
            await anext(stream)

    assert [(type_, data["payment"]) for type_, data in heard] == [
        ("payment.created", {"id": "pay_1", "label": "a: b"}),
        ("payment.settled", {"id": "pay_1"}),
    ]
