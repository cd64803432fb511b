"""The client of Paymob, against a server that does as Paymob does, and worse."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import pytest
from aiohttp import web

from indexer.core.card_creation import Customer
from indexer.core.charge import ChargeNews
from indexer.core.intention import NewIntention
from indexer.core.paymob import charge_news, parse_callback
from indexer.core.types import ChargeState
from indexer.errors import InvariantError, OutcomeUnknown, SourceRejected, SourceUnavailable
from indexer.sources import paymob
from indexer.sources.paymob import Paymob
from tests.ports import free_port
from tests.servers.fake_paymob import (
    API_KEY,
    INTEGRATION_ID,
    PUBLIC_KEY,
    SECRET_KEY,
    FakePaymob,
    pins,
)
from tests.servers.faults import Call, Fault, garbage, hang, hang_up, http


PAYMENT: Final = "pay_00000000000000000000000001"
AMOUNT: Final = 10_050


@pytest.fixture
async def fake() -> AsyncIterator[FakePaymob]:
    async with FakePaymob() as running:
        running.loses = True  # nobody listens here
        yield running


@pytest.fixture
async def client(fake: FakePaymob) -> AsyncIterator[Paymob]:
    async with Paymob(fake.account(public_url="https://shop.example")) as running:
        yield running


@pytest.fixture
async def hasty(fake: FakePaymob) -> AsyncIterator[Paymob]:
    """A client that soon gives up: only for what never answers."""
    async with Paymob(fake.account(), timeout_s=1.0) as running:
        yield running


def wanted(reference: str = PAYMENT, **changes: Any) -> NewIntention:
    facts: dict[str, Any] = {"reference": reference, "amount": AMOUNT, "expires_in_s": 900}
    return NewIntention(**facts | changes)


# ------------------------------------------------------------------------------- making orders


async def test_an_intention_is_made_and_can_be_paid_at_its_page(
    fake: FakePaymob, client: Paymob
) -> None:
    made = await client.create_intention(wanted(label="Order 7"))

    order = fake.order_at(made.checkout_url)
    assert (order.id, order.reference, order.amount) == (made.order_id, PAYMENT, AMOUNT)
    assert made.checkout_url.startswith(f"{fake.url}/unifiedcheckout/?publicKey={PUBLIC_KEY}&")
    assert made.intention_id.startswith("pi_test_")


async def test_an_intention_says_all_that_paymob_asks_for(fake: FakePaymob, client: Paymob) -> None:
    customer = Customer(first_name="Mona", email="mona@example.com")
    await client.create_intention(wanted(label="x" * 60, customer=customer))

    assert fake.order(PAYMENT).asked == {
        "amount": AMOUNT,
        "currency": "EGP",
        "payment_methods": [INTEGRATION_ID],
        "items": [
            {"name": "x" * 50, "amount": AMOUNT, "description": "x" * 50, "quantity": 1},
        ],
        "billing_data": {
            "first_name": "Mona",
            "last_name": "NA",
            "email": "mona@example.com",
            "phone_number": "NA",
        },
        "special_reference": PAYMENT,
        "expiration": 900,
        "notification_url": "https://shop.example/api/webhooks/paymob",
        "redirection_url": "https://shop.example/api/webhooks/paymob",
    }


@pytest.mark.parametrize("fault", [hang_up(), http(408), http(500), http(502), garbage()])
@pytest.mark.parametrize("is_made", [False, True])
async def test_without_an_answer_nobody_knows_whether_it_was_made(
    fake: FakePaymob, client: Paymob, fault: Fault, is_made: bool
) -> None:
    fake.fail("intention", fault, after=is_made)

    with pytest.raises(OutcomeUnknown):
        await client.create_intention(wanted())

    assert fake.count("intention") == 1, "never sent twice"
    assert len(fake.orders) == is_made


@pytest.mark.parametrize("is_made", [False, True])
async def test_an_answer_that_never_comes_is_not_waited_for(
    fake: FakePaymob, hasty: Paymob, is_made: bool
) -> None:
    fake.fail("intention", hang(), after=is_made)

    with pytest.raises(OutcomeUnknown, match="no answer within 1 s"):
        await hasty.create_intention(wanted())

    assert len(fake.orders) == is_made


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"id": "pi_1", "intention_order_id": 0, "client_secret": "egy_csk"},
        {"id": "pi_1", "intention_order_id": 10**18, "client_secret": "egy_csk"},
        {"id": "pi_1", "intention_order_id": 7},
        {"id": "pi_1", "intention_order_id": 7, "client_secret": "a&b=c"},
        {"id": "pi 1", "intention_order_id": 7, "client_secret": "egy_csk"},
        {"id": "p", "intention_order_id": 7, "client_secret": "c", "special_reference": "pay_2"},
    ],
)
async def test_an_answer_that_cannot_be_used_leaves_the_outcome_unknown(
    fake: FakePaymob, client: Paymob, answer: Any
) -> None:
    fake.fail("intention", http(201, body=json.dumps(answer).encode()))

    with pytest.raises(OutcomeUnknown):
        await client.create_intention(wanted())


async def test_an_answer_without_end_is_not_read(fake: FakePaymob, client: Paymob) -> None:
    def answer(filling: int) -> Fault:
        good = {"id": "pi_1", "intention_order_id": 7, "client_secret": "egy_csk"}
        return http(201, body=json.dumps({**good, "filling": "x" * filling}).encode())

    fake.fail("intention", answer(1_000))
    assert await client.create_intention(wanted())

    fake.fail("intention", answer(paymob.ANSWER_BYTES_MAX))
    with pytest.raises(OutcomeUnknown, match="unexpected answer"):
        await client.create_intention(wanted())


async def test_what_was_never_sent_was_not_made(fake: FakePaymob) -> None:
    account = replace(fake.account(), base_url=f"http://127.0.0.1:{free_port()}")
    async with Paymob(account) as client:
        with pytest.raises(SourceUnavailable, match="out of reach") as refused:
            await client.create_intention(wanted())

    assert not isinstance(refused.value, OutcomeUnknown)


async def test_a_pause_that_paymob_asks_for_is_told(fake: FakePaymob, client: Paymob) -> None:
    fake.fail("intention", http(429, retry_after="7"))

    with pytest.raises(SourceUnavailable) as refused:
        await client.create_intention(wanted())

    assert refused.value.retry_after_s == 7
    assert not isinstance(refused.value, OutcomeUnknown)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(fake: FakePaymob, client: Paymob, status: int) -> None:
    async def elsewhere(_: Call) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"{fake.url}/v1/intention/"})

    fake.fail("intention", elsewhere)
    with pytest.raises(SourceRejected, match=f"HTTP {status}"):
        await client.create_intention(wanted())

    assert fake.count("intention") == 1


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"secret_key": "egy_sk_wrong"}, 401, "Authentication credentials were not provided."),
        (
            {"pins": replace(pins(), integration_ids=frozenset({7}))},
            404,
            "Integration ID/Name does not exist in our system",
        ),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_paymob(
    fake: FakePaymob, changes: dict[str, Any], status: int, words: str
) -> None:
    async with Paymob(replace(fake.account(), **changes)) as client:
        with pytest.raises(SourceRejected, match=words) as refused:
            await client.create_intention(wanted())

    assert refused.value.code == status


async def test_no_secret_and_nothing_of_the_customer_is_repeated(fake: FakePaymob) -> None:
    customer = Customer(
        first_name="Canary", last_name="Vogel", email="canary@example.com", phone_number="+20100"
    )
    async with Paymob(fake.account()) as client:
        for status in (400, 401, 500):
            fake.fail("intention", http(status, body=await echo(fake)))
            with pytest.raises((SourceRejected, OutcomeUnknown)) as refused:
                await client.create_intention(wanted(customer=customer))
            said = repr(refused.value)
            for hidden in (SECRET_KEY, API_KEY, "Canary", "Vogel", "canary@", "+20100"):
                assert hidden not in said
            assert "\n" not in str(refused.value)


async def echo(fake: FakePaymob) -> bytes:
    return json.dumps(
        {
            "detail": f"Token {SECRET_KEY} of {API_KEY}\nis wrong",
            "billing_data": {"email": ["Canary Vogel canary@example.com +20100 is no address"]},
        }
    ).encode()


def test_an_account_is_printed_without_its_keys(fake: FakePaymob) -> None:
    shown = repr(fake.account())

    assert SECRET_KEY not in shown
    assert API_KEY not in shown


async def test_the_environment_names_no_proxy(
    fake: FakePaymob, client: Paymob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    assert await client.create_intention(wanted())


async def test_outside_of_its_block_nothing_is_sent(fake: FakePaymob) -> None:
    with pytest.raises(InvariantError, match="outside"):
        await Paymob(fake.account()).create_intention(wanted())


# -------------------------------------------------------------------------------------- asking


async def test_an_order_that_nobody_paid_or_made_is_not_known(
    fake: FakePaymob, client: Paymob
) -> None:
    made = await client.create_intention(wanted())

    assert await client.inquire(order_id=made.order_id) is None
    assert await client.inquire(special_reference=PAYMENT) is None
    assert await client.inquire(special_reference="pay_9") is None
    assert await client.transaction(7) is None


async def told_by(client: Paymob, order_id: int) -> ChargeNews:
    [by_number] = await client.inquire(order_id=order_id) or []
    [by_reference] = await client.inquire(special_reference=PAYMENT) or []
    assert by_number == by_reference == await client.transaction(by_number.id)
    return by_number


async def test_an_inquiry_tells_what_a_callback_tells(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    for act in (fake.decline, fake.begin, fake.authorize, fake.pay):
        transaction = await act(PAYMENT)
        callback = parse_callback(fake.callback(transaction).body)
        assert await told_by(client, made.order_id) == charge_news(callback, pins())


async def test_a_refund_is_told_of_what_was_paid(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)

    await fake.refund(paid, 50)
    part = await told_by(client, made.order_id)
    assert (part.id, part.amount, part.state, part.refunded) == (
        paid,
        AMOUNT,
        ChargeState.PAID,
        50,
    )

    await fake.refund(paid)
    whole = await told_by(client, made.order_id)
    assert (whole.id, whole.refunded, whole.was_paid) == (paid, AMOUNT, True)


async def test_a_void_is_told_of_what_was_voided(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)
    await fake.void(paid)

    told = await told_by(client, made.order_id)
    assert (told.id, told.state, told.was_paid) == (paid, ChargeState.VOIDED, True)


async def test_a_capture_is_told_of_what_was_authorized(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    held = await fake.authorize(PAYMENT)

    await fake.capture(held, 50)
    told = await told_by(client, made.order_id)
    assert (told.id, told.state) == (held, ChargeState.AUTHORIZED)

    await fake.capture(held, AMOUNT - 50)
    told = await told_by(client, made.order_id)
    assert (told.id, told.state, told.was_paid) == (held, ChargeState.PAID, True)


async def test_a_parent_is_looked_for_within_bounds(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)
    refund = await fake.refund(paid, 50)
    for parent in (None, "none", True, refund, 999, {"id": 0}):
        fake.transactions[refund]["parent_transaction"] = parent
        with pytest.raises(SourceUnavailable, match="done to one not known"):
            await client.inquire(order_id=made.order_id)

    for parent in (paid, str(paid), {"id": paid, "success": True}):
        fake.transactions[refund]["parent_transaction"] = parent
        assert await told_by(client, made.order_id)
    assert fake.count("transaction") < 60


async def test_a_parent_in_another_order_is_not_believed(fake: FakePaymob, client: Paymob) -> None:
    made = await client.create_intention(wanted())
    await client.create_intention(wanted("pay_2"))
    refund = await fake.refund(await fake.pay(PAYMENT), 50)
    fake.transactions[refund]["parent_transaction"] = await fake.pay("pay_2")

    with pytest.raises(SourceUnavailable, match="done to one not known"):
        await client.inquire(order_id=made.order_id)


async def test_an_answer_about_something_else_is_not_believed(
    fake: FakePaymob, client: Paymob
) -> None:
    await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)
    other = json.dumps(fake.transactions[paid]).encode()
    fake.fail("inquiry", http(200, body=other), times=2)
    fake.fail("transaction", http(200, body=other))

    for question in (
        client.inquire(order_id=7),
        client.inquire(special_reference="pay_9"),
        client.transaction(7),
    ):
        with pytest.raises(SourceUnavailable, match="answered about another"):
            await question


async def test_money_of_another_currency_is_refused(fake: FakePaymob, client: Paymob) -> None:
    await client.create_intention(wanted())
    await fake.pay(PAYMENT, currency="USD")

    with pytest.raises(SourceRejected, match="is not in EGP"):
        await client.inquire(special_reference=PAYMENT)


@pytest.mark.parametrize(
    "field",
    ["id", "amount_cents", "order", "success", "pending", "is_voided", "is_refunded", "currency"],
)
@pytest.mark.parametrize("value", [None, "\n", -1, []])
async def test_an_answer_without_its_fields_is_unusable(
    fake: FakePaymob, client: Paymob, field: str, value: Any
) -> None:
    await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)
    fake.transactions[paid][field] = value

    answer = json.dumps(fake.transactions[paid]).encode()
    fake.fail("inquiry", http(200, body=answer))
    with pytest.raises(SourceUnavailable, match="unexpected answer"):
        await client.inquire(special_reference=PAYMENT)


async def test_values_that_are_written_as_text_are_read(fake: FakePaymob, client: Paymob) -> None:
    """As in answers of Paymob's own documentation."""
    made = await client.create_intention(wanted())
    paid = await fake.pay(PAYMENT)
    expected = await told_by(client, made.order_id)
    fake.transactions[paid].update(pending="false", success="true", amount_cents=str(AMOUNT))

    assert await told_by(client, made.order_id) == expected


@pytest.mark.parametrize("fault", [hang_up(), http(429), http(500), http(503), garbage()])
@pytest.mark.parametrize("name", ["inquiry", "transaction", "token"])
async def test_no_answer_says_nothing(
    fake: FakePaymob, client: Paymob, name: str, fault: Fault
) -> None:
    fake.fail(name, fault, times=2)  # what only reads may be sent twice

    with pytest.raises(SourceUnavailable):
        await (client.transaction(7) if name == "transaction" else client.inquire(order_id=7))
    fake.heal()
    assert await client.inquire(order_id=7) is None, "and then all is well"


@pytest.mark.parametrize("name", ["inquiry", "token"])
async def test_a_question_is_given_up_after_a_while(
    fake: FakePaymob, hasty: Paymob, name: str
) -> None:
    fake.fail(name, hang())

    with pytest.raises(SourceUnavailable, match="no answer within 1 s"):
        await hasty.inquire(order_id=7)


async def test_a_question_of_many_requests_has_a_limit_as_a_whole(fake: FakePaymob) -> None:
    """As one that waits while others try to buy a token, one after the other."""
    async with Paymob(fake.account(), timeout_s=0.1) as client, client._token.buying:
        with pytest.raises(SourceUnavailable, match=r"not known within 0\.3 s"):
            await client.inquire(order_id=7)


# --------------------------------------------------------------------------------------- tokens


async def test_one_token_serves_many_questions(fake: FakePaymob, client: Paymob) -> None:
    await asyncio.gather(*(client.inquire(order_id=number) for number in range(1, 40)))

    assert fake.count("token") == 1
    assert fake.count("inquiry") == 39


async def test_a_token_that_ended_early_is_bought_anew(fake: FakePaymob, client: Paymob) -> None:
    await client.inquire(order_id=7)
    fake.end_tokens()
    await asyncio.gather(*(client.inquire(order_id=number) for number in range(1, 20)))

    assert fake.count("token") == 2


async def test_a_token_is_bought_anew_before_it_ends(
    fake: FakePaymob, client: Paymob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paymob, "TOKEN_KEPT_S", 0.0)
    for _ in range(3):
        await client.inquire(order_id=7)

    assert fake.count("token") == 3


async def test_a_token_that_is_never_good_is_not_bought_for_ever(
    fake: FakePaymob, client: Paymob
) -> None:
    fake.fail("inquiry", http(401), times=10)

    with pytest.raises(SourceRejected, match="HTTP 401"):
        await client.inquire(order_id=7)
    assert fake.count("token") == 2
    assert fake.count("inquiry") == 2


async def test_an_api_key_that_is_not_accepted_is_told_and_not_repeated(fake: FakePaymob) -> None:
    async with Paymob(replace(fake.account(), api_key="canary-key")) as client:
        with pytest.raises(SourceRejected, match="authentication: HTTP 403") as refused:
            await client.inquire(order_id=7)

    assert "canary" not in repr(refused.value)


async def test_no_more_requests_are_under_way_than_allowed(
    fake: FakePaymob, client: Paymob
) -> None:
    under_way, most = 0, 0
    gate = asyncio.Event()

    async def wait(_: Call) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == paymob.CONCURRENCY_MAX:
            gate.set()
        async with asyncio.timeout(90):
            await gate.wait()
        under_way -= 1
        return web.Response(status=404)

    fake.fail("transaction", wait, times=100)
    await asyncio.gather(*(client.transaction(number) for number in range(1, 101)))

    assert most == paymob.CONCURRENCY_MAX


async def test_whoever_waits_too_long_for_a_place_has_asked_nothing(
    fake: FakePaymob, hasty: Paymob
) -> None:
    for _ in range(paymob.CONCURRENCY_MAX):
        await hasty._places.acquire()

    with pytest.raises(SourceUnavailable, match="too many") as refused:
        await hasty.create_intention(wanted())

    assert not isinstance(refused.value, OutcomeUnknown)
    assert fake.count("intention") == 0


async def test_a_cancelled_request_gives_its_place_back(fake: FakePaymob, client: Paymob) -> None:
    fake.fail("inquiry", hang(), times=3 * paymob.CONCURRENCY_MAX)
    for _ in range(3):
        asked = [
            asyncio.create_task(client.inquire(order_id=7)) for _ in range(paymob.CONCURRENCY_MAX)
        ]
        before = fake.count("inquiry")
        async with asyncio.timeout(90):
            while fake.count("inquiry") < before + paymob.CONCURRENCY_MAX:
                await asyncio.sleep(0.005)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    assert await client.inquire(order_id=7) is None
