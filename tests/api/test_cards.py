"""A payment by card is an order at Paymob first, and then one write; or it is nothing at all."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api import cards as cards_module
from api.idempotency import Ledger
from api.payments import _prepare
from indexer.core.card_creation import Customer
from indexer.core.intention import Intention, NewIntention
from indexer.core.types import Currency, Status
from indexer.sources.paymob import Paymob
from store import cards, everything
from store.cards import CardRecord
from store.database import Statement
from store.idempotency import LEASE_S, Once
from tests.api.running import NOW, Api, Clock, running
from tests.cards import due_at
from tests.servers.fake_paymob import FakePaymob
from tests.servers.faults import Fault, garbage, hang, hang_up, http


SOLD = {"amount": "50", "token": "EGP", "provider": "paymob"}
CUSTOMER = {
    "first_name": "Amal",
    "last_name": "Canary",
    "email": "canary@example.com",
    "phone_number": "+201000000123",
}


@asynccontextmanager
async def shop(path: Path) -> AsyncIterator[tuple[Api, FakePaymob]]:
    """An API that takes cards, and the Paymob that it takes them with."""
    async with (
        FakePaymob() as fake,
        Paymob(fake.account()) as client,
        running(path, cards=client) as api,
    ):
        yield api, fake


async def ask(
    api: Api, fields: dict[str, Any] | None = None, key: str = "k-1"
) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Status, body and headers of a request to create a payment by card."""
    return await send(api, json.dumps(SOLD | (fields or {})).encode(), key)


async def send(
    api: Api, raw: bytes, key: str = "k-1"
) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    headers = {**api.writer, "Idempotency-Key": key, "Content-Type": "application/json"}
    async with api.session.post("/api/pay", data=raw, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


async def stored(api: Api) -> list[everything.AnyRecord]:
    return await everything.page(api.database, limit=100)


async def only(api: Api) -> CardRecord:
    [record] = await stored(api)
    assert isinstance(record, CardRecord)
    return record


async def test_a_payment_is_created_with_a_page_to_pay_on(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, fake):
        words = {"order_id": "1042", "metadata": {"table": "7"}, "label": "Shop", "message": "Tea"}

        status, body, headers = await ask(api, words)

        assert status == 201
        [order] = fake.orders.values()
        assert order.reference == body["id"]
        assert (order.amount, order.asked["currency"]) == (5_000, "EGP")
        assert fake.order_at(body["checkout_url"]) is order
        assert headers["Location"] == f"/api/pay/{body['id']}"
        shown = ("provider", "status", "amount", "amount_base_units", "recipient", "reference")
        assert {name: body[name] for name in (*shown, "url", "transfers", "charges", "memo")} == {
            "provider": "paymob",
            "status": "pending",
            "amount": "50",
            "amount_base_units": "5000",
            "recipient": None,
            "reference": None,
            "url": None,
            "transfers": [],
            "charges": [],
            "memo": None,
        }
        assert body["token"] == {"symbol": "EGP", "mint": None, "decimals": 2}
        record = await only(api)
        [made] = record.orders
        assert (made.order_id, made.special_reference) == (order.id, body["id"])
        assert await due_at(api.database, body["id"]) == NOW + 60


async def test_it_is_shown_listed_canceled_and_drawn_like_any_other(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        _, made, _ = await ask(api, {"order_id": "1042"})
        on_chain = await api.create(token="SOL", amount="1")
        path = f"/api/pay/{made['id']}"

        _, shown = await api.get(path, headers=api.reader)
        assert shown == made
        _, public = await api.get(path)
        private = {"order_id", "metadata", "charges"}
        assert public == {name: value for name, value in made.items() if name not in private}
        _, page = await api.get("/api/pay?limit=1", headers=api.reader)
        _, rest = await api.get(
            f"/api/pay?limit=1&cursor={page['next_cursor']}", headers=api.reader
        )
        assert {each["id"] for each in (*page["data"], *rest["data"])} == {
            made["id"],
            on_chain["id"],
        }
        assert rest["next_cursor"] is None
        async with api.session.get(f"{path}/qr.svg") as answer:
            assert (answer.status, answer.content_type) == (200, "image/svg+xml")
        for _ in range(2):
            status, canceled = await api.post(f"{path}/cancel", api.writer)
            assert (status, canceled["status"], canceled["version"]) == (200, "canceled", 2)


async def test_a_payment_without_a_page_has_no_code(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        _, made, _ = await ask(api)
        await api.database.write([Statement("UPDATE card_orders SET checkout_url = NULL")])

        status, problem = await api.get(f"/api/pay/{made['id']}/qr.svg")

        assert (status, problem["code"]) == (404, "no_code")


async def test_the_customer_is_handed_on_and_not_kept(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, fake):
        status, body, _ = await ask(api, {"customer": CUSTOMER})

        assert status == 201
        [order] = fake.orders.values()
        assert CUSTOMER.items() <= order.asked["billing_data"].items()
        assert not [word for word in CUSTOMER.values() if word in json.dumps(body)]
        file = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert not [word for word in CUSTOMER.values() if word.encode() in file]


async def test_the_customer_is_in_no_line_of_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with shop(tmp_path) as (api, fake):
        await ask(api, {"customer": CUSTOMER})
        fake.fail("intention", http(400, body=json.dumps(CUSTOMER).encode()))
        await ask(api, {"customer": CUSTOMER}, "k-2")
        fake.fail("intention", http(503))
        await ask(api, {"customer": CUSTOMER}, "k-3")

    out, err = capfd.readouterr()
    assert "cards.refused" in out + err, "something was logged"
    assert not [word for word in CUSTOMER.values() if word in out + err]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"amount": "0"}, "amount"),
        ({"amount": "0.001"}, "amount"),
        ({"amount": "99999999999999"}, "amount"),
        ({"amount": 50}, "amount"),
        ({"token": "USDC"}, "token"),
        ({"recipient": "x"}, "recipient"),
        ({"memo": "x"}, "memo"),
        ({"reference": "x"}, "reference"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"customer": "Amal"}, "customer"),
        ({"customer": []}, "customer"),
        ({"customer": {"email": 1}}, "customer"),
        ({"customer": {"email": None}}, "customer"),
        ({"customer": {"email": "nobody"}}, "customer.email"),
        ({"customer": {"email": "\ud800"}}, "customer"),
        ({"customer": {"card_number": "4111111111111111"}}, "customer.card_number"),
        ({"customer": {"x" * 999: "1"}}, f"customer.{'x' * 64}"),
        ({"provider": "stripe"}, "provider"),
        ({"provider": "PAYMOB"}, "provider"),
        ({"provider": 1}, "provider"),
    ],
)
async def test_bad_input_names_the_field_and_asks_nobody(
    tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    async with shop(tmp_path) as (api, fake):
        status, problem, _ = await ask(api, fields)

        assert status == 422
        assert [error["field"] for error in problem["errors"]] == [named]
        assert fake.calls == []
        assert await stored(api) == []


async def test_a_field_that_is_null_counts_as_left_out(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        nothing = dict.fromkeys(("recipient", "memo", "reference", "customer", "label"))

        assert (await ask(api, nothing))[0] == 201


async def test_without_an_account_there_is_no_such_provider(api: Api) -> None:
    status, problem, _ = await ask(api)

    assert (status, problem["errors"][0]["field"]) == (422, "provider")


async def test_a_payment_on_the_chain_has_no_customer(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        fields = {"provider": "solana", "token": "SOL", "customer": CUSTOMER}

        status, problem, _ = await ask(api, fields)

        assert (status, problem["errors"][0]["field"]) == (422, "customer")


# ------------------------------------------------------------------------ when Paymob does not


@pytest.mark.parametrize(
    "fault",
    [http(429, retry_after="7"), http(401), http(404), http(406), http(400)],
    ids=["too many", "bad key", "no such integration", "items", "values"],
)
async def test_what_paymob_refuses_is_no_payment(tmp_path: Path, fault: Fault) -> None:
    async with shop(tmp_path) as (api, fake):
        fake.fail("intention", fault)

        status, problem, headers = await ask(api)

        expected = {"card_provider_refused", "card_provider_unavailable"}
        assert problem["code"] in expected
        if status == 503:
            assert headers["Retry-After"] == "7"
        else:
            assert status in (422, 502)
        assert "Paymob" in problem["detail"]
        assert await stored(api) == []
        assert (await ask(api))[0] == 201, "the key is as good as new"


async def test_whose_fault_a_refusal_is(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, fake):
        for fault, expected in ((http(400), 422), (http(401), 502), (http(404), 502)):
            fake.fail("intention", fault)
            assert (await ask(api))[0] == expected


async def test_paymob_out_of_reach_is_a_503_that_says_when_to_come_back(tmp_path: Path) -> None:
    async with FakePaymob() as fake:
        account = fake.account()
    async with Paymob(account) as client, running(tmp_path, cards=client) as api:
        status, problem, headers = await ask(api)

        assert (status, problem["code"]) == (503, "card_provider_unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert await stored(api) == []


@pytest.mark.parametrize("after", [False, True], ids=["not made", "made"])
@pytest.mark.parametrize("fault", [hang_up(), garbage(), http(502)])
async def test_when_the_answer_is_lost_there_is_one_page_and_both_orders_are_known(
    tmp_path: Path, fault: Fault, *, after: bool
) -> None:
    async with shop(tmp_path) as (api, fake):
        fake.fail("intention", fault, after=after)

        status, body, _ = await ask(api)

        assert status == 201
        asked = [call.method for call in fake.calls]
        assert asked == ["intention", "token", "inquiry", "intention"], "inquired before it"
        assert fake.calls[2].params == [{"merchant_order_id": body["id"]}]
        lost, made = (await only(api)).orders
        assert (lost.special_reference, lost.checkout_url) == (body["id"], None)
        assert made.special_reference == f"{body['id']}-2"
        assert fake.order_at(body["checkout_url"]).id == made.order_id


async def test_an_order_that_was_charged_meanwhile_keeps_its_number(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, fake):

        async def pay_and_hang_up(call: Any) -> Any:
            fake.loses = True
            [order] = fake.orders.values()
            await fake.begin(order.reference)
            return await hang_up()(call)

        fake.fail("intention", pay_and_hang_up, after=True)

        await ask(api)

        lost, _ = (await only(api)).orders
        assert lost.order_id == min(fake.orders)


@pytest.mark.parametrize(
    ("names", "fault"), [(("intention",), hang_up()), (("intention", "inquiry"), http(503))]
)
async def test_when_nothing_can_be_known_nothing_is_stored(
    tmp_path: Path, names: tuple[str, ...], fault: Fault
) -> None:
    async with shop(tmp_path) as (api, fake):
        for name in names:
            fake.fail(name, fault, times=9, after=True)

        status, problem, headers = await ask(api)

        assert (status, problem["code"]) == (503, "card_provider_unavailable")
        assert "Retry-After" in headers
        assert await stored(api) == []
        assert await cards.due(api.database, 2**62, 9) == []
        fake.heal()
        assert (await ask(api))[0] == 201


async def test_an_order_takes_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, "CARD_TIMEOUT_S", 0.2)
    async with shop(tmp_path) as (api, fake):
        fake.fail("intention", hang())

        status, problem, _ = await ask(api)

        assert (status, problem["code"]) == (503, "card_provider_unavailable")
        assert await stored(api) == []


# ------------------------------------------------------------------------------------ once only


async def test_a_repetition_answers_the_same_and_asks_nobody(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, fake):
        _, first, _ = await ask(api, {"customer": CUSTOMER})
        calls = len(fake.calls)

        status, again, headers = await ask(api, {"customer": CUSTOMER})

        assert (status, again) == (201, first)
        assert headers["Idempotent-Replayed"] == "true"
        assert len(fake.calls) == calls
        assert (await ask(api, {"amount": "51"}))[1]["code"] == "idempotency_key_reused"


async def test_two_equal_requests_at_once_are_one_payment(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        answers = await asyncio.gather(*(ask(api) for _ in range(6)))

        assert {status for status, _, _ in answers} <= {201, 409}
        assert len({body["id"] for status, body, _ in answers if status == 201}) == 1
        assert len(await stored(api)) == 1


async def test_two_processes_make_one_payment_of_one_key(tmp_path: Path) -> None:
    """The first is paused for longer than its lease lasts, with its order made and not written."""
    async with shop(tmp_path) as (api, fake):
        context, may_write = api.app.state.context, asyncio.Event()

        class Slow:
            """The order of the other process is made; what follows waits."""

            async def create_intention(self, new: NewIntention) -> Intention:
                made: Intention = await context.cards.create_intention(new)
                await may_write.wait()
                return made

        raw = json.dumps(SOLD).encode()
        paused = Clock()
        other = replace(context, cards=Slow(), ledger=Ledger(api.database, paused))
        once = Once("key_writer", "POST /api/pay", "k-1")
        waiting = asyncio.create_task(
            other.ledger.answer(once, raw, partial(_prepare, other, None, raw))
        )
        async with asyncio.timeout(30):
            while not fake.orders:
                await asyncio.sleep(0.01)
        api.clock.now += LEASE_S
        status, first, _ = await send(api, raw)
        may_write.set()
        async with asyncio.timeout(30):
            second = await waiting

        assert status == 201
        assert json.loads(second.body) == first
        assert second.headers["Idempotent-Replayed"] == "true"
        assert len(await stored(api)) == 1
        assert len(fake.orders) == 2, "one of which nobody can pay: its page was never told"


async def test_while_an_acquirer_takes_its_time_nobody_else_makes_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take `CARD_TIMEOUT_S`, several times as long as a lease lasts unless renewed."""
    monkeypatch.setattr("api.idempotency.IDEMPOTENCY_RENEW_EVERY_S", 0.01)
    monkeypatch.setattr("api.idempotency.IDEMPOTENCY_WAIT_S", 0.05)
    async with shop(tmp_path) as (api, fake):
        fake.fail("intention", hang())
        first = asyncio.create_task(ask(api))
        async with asyncio.timeout(30):
            while not fake.calls:
                await asyncio.sleep(0.01)
        for _ in range(5):
            api.clock.now += LEASE_S - 1
            await renewed(api)

            assert (await ask(api))[0] == 409

        first.cancel()
        asked = [call.params[0] for call in fake.calls if call.method == "intention"]
        assert len({order["special_reference"].partition("-")[0] for order in asked}) == 1


async def renewed(api: Api) -> None:
    """Waits until the lease of the request at work lasts as long as it can."""
    ends = int(api.clock.now) + LEASE_S
    statement = Statement("SELECT until FROM idempotency_leases")
    async with asyncio.timeout(30):
        while await api.database.read([statement]) != [[(ends,)]]:
            await asyncio.sleep(0.01)


async def test_the_event_log_has_one_event_and_a_stream_shows_it(tmp_path: Path) -> None:
    async with shop(tmp_path) as (api, _):
        _, made, _ = await ask(api, {"order_id": "1042"})
        headers = {**api.reader, "Last-Event-ID": "0"}

        async with api.session.get("/api/sse/events", headers=headers) as answer:
            async with asyncio.timeout(30):
                text = ""
                while "payment.created" not in text:
                    text += (await answer.content.readany()).decode()

        data = text.split("event: payment.created\ndata: ")[1].split("\n")[0]
        assert json.loads(data)["order_id"] == "1042"
        assert json.loads(data)["payment"]["id"] == made["id"]
        assert "checkout_url" not in data
        assert (await only(api)).payment.state.status is Status.PENDING


async def test_the_sentence_about_the_currency_names_it(tmp_path: Path) -> None:
    async with (
        FakePaymob() as fake,
        Paymob(fake.account()) as client,
        running(tmp_path, cards=client, paymob_currency=Currency.OMR) as api,
    ):
        _, problem, _ = await ask(api)

    assert "OMR" in problem["detail"]


def test_a_body_without_a_customer_is_one_who_is_not_known() -> None:
    assert cards_module.customer_of(None) == cards_module.customer_of({}) == Customer()
