"""Paymob on loopback: orders, what becomes of them, and the callbacks that tell of it.

    async with FakePaymob() as fake:
        Paymob(fake.account(public_url="http://127.0.0.1:8000"))
        ...                                     # an intention is made
        paid = await fake.pay("pay_…")          # charged, and a callback is sent
        await fake.refund(paid, 1_000)          # a transaction of its own, with a parent

What is true is in `orders` and `transactions`; callbacks tell of it, and can be lost, doubled,
held back, put in another order or signed with a wrong secret:

        fake.holds = True                       # held, to be sent by `release`
        await fake.release(order=[1, 0])
        fake.loses = True                       # never sent
        fake.copies = 3
        fake.signing_secret = "not the secret"

Every request can fail in any scripted way, before it has an effect or after:

        fake.fail("intention", hang())
        fake.fail("intention", hang(), after=True)
        fake.end_tokens()                       # 401 until a new one is bought

Sources: Paymob's API reference and its published callbacks; see `indexer.sources.paymob`.
"""

import asyncio
import copy
import hashlib
import hmac
import itertools
import json
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
from aiohttp import web

from indexer.core.paymob import Pins
from indexer.core.types import Currency
from indexer.sources.paymob_wire import Account
from tests.servers.faults import Call, Fault, as_json


SECRET_KEY: Final = "egy_sk_test_7f0c5d1e9a2b4c6d8e0f"
PUBLIC_KEY: Final = "egy_pk_test_51ab93"
API_KEY: Final = "ZXlKaGJHY2lPaUpJVXpVeE1pSjkuYXBpLWtleQ=="
HMAC_SECRET: Final = "5C6E1F0AB33D4E7F9A2B8C1D0E4F6A77"
OWNER: Final = 302_852
INTEGRATION_ID: Final = 4_097_558

#: How long a receiver may take with a callback, in seconds.
CALLBACK_TIMEOUT_S: Final = 30.0

_BILLING: Final = ("first_name", "last_name", "email", "phone_number")
SIGNED: Final = (
    "amount_cents", "created_at", "currency", "error_occured", "has_parent_transaction", "id",
    "integration_id", "is_3d_secure", "is_auth", "is_capture", "is_refunded",
    "is_standalone_payment", "is_voided", "order.id", "owner", "pending", "source_data.pan",
    "source_data.sub_type", "source_data.type", "success",
)  # fmt: skip
SIGNED_OF_TOKEN: Final = (
    "card_subtype", "created_at", "email", "id", "masked_pan", "merchant_id", "order_id", "token",
)  # fmt: skip
_FLAGS: Final = (
    "pending", "is_auth", "is_capture", "is_voided", "is_refunded", "is_void", "is_refund",
    "error_occured", "has_parent_transaction", "is_captured", "is_settled", "is_bill", "is_live",
)  # fmt: skip


@dataclass
class FakeOrder:
    """An order, and the page on which it can be paid."""

    id: int
    reference: str
    amount: int
    asked: Mapping[str, Any]
    client_secret: str
    transactions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class FakeCallback:
    """A callback that is to be sent.

    Attributes:
        url: with the signature.
    """

    url: str
    body: bytes


class FakePaymob:
    """One account. An async context manager.

    Attributes:
        orders: by number.
        transactions: by number, as the API shows them.
        calls: every request that came in, in order, by the name of what was asked for.
        holds: callbacks are kept in `held`.
        loses: callbacks are never sent.
        copies: how often each callback is sent.
        signing_secret: what callbacks are signed with.
        callback_url: where callbacks go; None: where the intention says.
        tells_parents: what was done to a transaction is told by a callback of that one, too.
        answers: what receivers answered, in order; None: nothing.
    """

    def __init__(self) -> None:
        self.orders: dict[int, FakeOrder] = {}
        self.transactions: dict[int, dict[str, Any]] = {}
        self.calls: list[Call] = []
        self.holds = False
        self.loses = False
        self.copies = 1
        self.signing_secret = HMAC_SECRET
        self.callback_url: str | None = None
        self.tells_parents = False
        self.held: list[FakeCallback] = []
        self.sent: list[FakeCallback] = []
        self.answers: list[int | None] = []
        self.port = 0
        self._tokens: set[str] = set()
        self._numbers = itertools.count(217_503_754)
        self._seconds = itertools.count()
        self._faults: dict[tuple[str, bool], deque[Fault]] = {}
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        for method, path, name in (
            ("POST", "/v1/intention/", "intention"),
            ("POST", "/api/auth/tokens", "token"),
            ("POST", "/api/ecommerce/orders/transaction_inquiry", "inquiry"),
            ("GET", "/api/acceptance/transactions/{id}", "transaction"),
        ):
            application.router.add_route(method, path, self._handler(name))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port), backlog=1_024)
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=CALLBACK_TIMEOUT_S),
            connector=aiohttp.TCPConnector(force_close=True),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    def account(self, *, public_url: str = "http://127.0.0.1:1") -> Account:
        """What a client of this account is made of."""
        return Account(
            base_url=self.url,
            secret_key=SECRET_KEY,
            public_key=PUBLIC_KEY,
            api_key=API_KEY,
            public_url=public_url,
            pins=pins(),
        )

    def environment(self) -> dict[str, str]:
        """The settings of a deployment with this account."""
        return {
            "AXIOM_PAYMOB_BASE_URL": self.url,
            "AXIOM_PAYMOB_SECRET_KEY": SECRET_KEY,
            "AXIOM_PAYMOB_PUBLIC_KEY": PUBLIC_KEY,
            "AXIOM_PAYMOB_API_KEY": API_KEY,
            "AXIOM_PAYMOB_HMAC_SECRET": HMAC_SECRET,
            "AXIOM_PAYMOB_INTEGRATION_IDS": str(INTEGRATION_ID),
            "AXIOM_PAYMOB_OWNER": str(OWNER),
        }

    # -- scripts

    def fail(self, name: str, fault: Fault, *, times: int = 1, after: bool = False) -> None:
        """Lets the next requests fail: `intention`, `token`, `inquiry` or `transaction`.

        With `after`, what was asked for is done all the same, and only the answer is spoiled.
        """
        self._faults.setdefault((name, after), deque()).extend(itertools.repeat(fault, times))

    def heal(self) -> None:
        """Takes back every scripted fault."""
        self._faults.clear()

    def end_tokens(self) -> None:
        """No token that was sold so far is good any more."""
        self._tokens.clear()

    def count(self, name: str) -> int:
        """How many requests of a name came in."""
        return sum(call.method == name for call in self.calls)

    # -- what customers and merchants do

    def order(self, reference: str) -> FakeOrder:
        """The order of a special reference, the latest if there are several."""
        return [each for each in self.orders.values() if each.reference == reference][-1]

    def order_at(self, checkout_url: str) -> FakeOrder:
        """The order that is paid at that page, as its customer finds it."""
        [secret] = parse_qs(urlsplit(checkout_url).query)["clientSecret"]
        return next(each for each in self.orders.values() if each.client_secret == secret)

    async def pay(self, reference: str, **fields: Any) -> int:
        """An attempt that succeeds; returns its number. `fields` replace those of it."""
        return await self._attempt(reference, fields)

    async def decline(self, reference: str) -> int:
        """An attempt that the bank refuses."""
        return await self._attempt(reference, {"success": False})

    async def begin(self, reference: str) -> int:
        """An attempt whose customer is at 3D Secure."""
        return await self._attempt(reference, {"success": False, "pending": True})

    async def finish(self, transaction: int, *, success: bool = True) -> None:
        """The customer comes back from 3D Secure."""
        self.transactions[transaction].update(pending=False, success=success)
        await self._tell(transaction)

    async def authorize(self, reference: str) -> int:
        """An attempt that blocks the money and does not take it."""
        return await self._attempt(reference, {"is_auth": True, "is_standalone_payment": False})

    async def capture(self, transaction: int, amount: int | None = None) -> int:
        """Takes money that was authorized: all of it, or so much."""
        parent = self.transactions[transaction]
        amount = parent["amount_cents"] if amount is None else amount
        parent["captured_amount"] += amount
        parent["is_captured"] = True
        return await self._do_to(transaction, amount, is_capture=True)

    async def refund(self, transaction: int, amount: int | None = None) -> int:
        """Gives money back: all that is left, or so much."""
        parent = self.transactions[transaction]
        left = parent["amount_cents"] - parent["refunded_amount_cents"]
        amount = left if amount is None else amount
        assert 0 < amount <= left, "no more than was paid can be refunded"
        parent["refunded_amount_cents"] += amount
        parent["is_refunded"] = amount == left
        return await self._do_to(transaction, amount, is_refund=True)

    async def void(self, transaction: int) -> int:
        """Takes a transaction back on the day on which it was made."""
        self.transactions[transaction]["is_voided"] = True
        amount = self.transactions[transaction]["amount_cents"]
        return await self._do_to(transaction, amount, is_void=True)

    async def save_card(self, reference: str) -> None:
        """Tells of a card that was saved: a callback with a secret in it."""
        order, number = self.order(reference), next(self._numbers)
        token = hashlib.sha256(str(number).encode()).hexdigest()
        obj = {
            "id": number,
            "token": token,
            "masked_pan": "xxxx-xxxx-xxxx-2346",
            "merchant_id": OWNER,
            "card_subtype": "MasterCard",
            "created_at": self._time(),
            "email": "customer@example.com",
            "order_id": str(order.id),
        }
        await self._send_or_hold(self._callback("TOKEN", obj, order, SIGNED_OF_TOKEN))

    # -- callbacks

    def callback(self, transaction: int) -> FakeCallback:
        """What tells of the transaction as it is now."""
        obj = self.transactions[transaction]
        return self._callback("TRANSACTION", obj, self.orders[obj["order"]["id"]], SIGNED)

    def redirect_query(self, transaction: int) -> str:
        """The query with which the customer is sent back: he can read and change it."""
        obj = copy.deepcopy(self.transactions[transaction])
        flat = {name: _text(value) for name, value in obj.items() if not isinstance(value, dict)}
        flat |= {"order": _text(obj["order"]["id"])}
        flat |= {"merchant_order_id": obj["order"]["merchant_order_id"]}
        flat |= {f"source_data_{name}": value for name, value in obj["source_data"].items()}
        return urlencode({**flat, "hmac": sign(obj, SIGNED, self.signing_secret)})

    async def release(self, order: Sequence[int] | None = None) -> None:
        """Sends what was held back, in that order, or in the one in which it came to be."""
        held, self.held = self.held, []
        for position in range(len(held)) if order is None else order:
            await self.send(held[position])

    async def send(self, callback: FakeCallback) -> int | None:
        """Sends a callback, and returns what was answered; None: nothing was."""
        assert self._client is not None
        headers = {"Content-Type": "application/json", "User-Agent": "Paymob"}
        self.sent.append(callback)
        try:
            async with self._client.post(
                callback.url, data=callback.body, headers=headers
            ) as response:
                answer: int | None = response.status
        except (aiohttp.ClientError, TimeoutError):
            answer = None
        self.answers.append(answer)
        return answer

    def _callback(
        self, kind: str, obj: Mapping[str, Any], order: FakeOrder, names: Sequence[str]
    ) -> FakeCallback:
        url = self.callback_url or order.asked["notification_url"]
        signature = sign(obj, names, self.signing_secret)
        body = json.dumps({"type": kind, "obj": obj}, indent=1)
        return FakeCallback(url=f"{url}?hmac={signature}", body=body.encode())

    async def _tell(self, transaction: int) -> None:
        await self._send_or_hold(self.callback(transaction))

    async def _send_or_hold(self, callback: FakeCallback) -> None:
        if self.loses:
            return
        copies = [callback] * self.copies
        if self.holds:
            self.held += copies
            return
        for each in copies:
            await self.send(each)

    # -- transactions

    async def _attempt(self, reference: str, fields: Mapping[str, Any]) -> int:
        order = self.order(reference)
        transaction = self._transaction(order, order.amount, dict(fields))
        await self._tell(transaction)
        return transaction

    async def _do_to(self, parent: int, amount: int, **fields: Any) -> int:
        order = self.orders[self.transactions[parent]["order"]["id"]]
        fields |= {
            "has_parent_transaction": True,
            "parent_transaction": parent,
            "is_standalone_payment": False,
        }
        transaction = self._transaction(order, amount, fields)
        await self._tell(transaction)
        if self.tells_parents:
            await self._tell(parent)
        return transaction

    def _transaction(self, order: FakeOrder, amount: int, fields: dict[str, Any]) -> int:
        number = next(self._numbers)
        obj: dict[str, Any] = {
            "id": number,
            "amount_cents": amount,
            "success": True,
            **dict.fromkeys(_FLAGS, False),
            "is_standalone_payment": True,
            "is_3d_secure": True,
            "integration_id": INTEGRATION_ID,
            "profile_id": 164_295,
            "order": {
                "id": order.id,
                "created_at": self._time(),
                "merchant": {"id": 164_295, "phones": ["+201000000000"], "company_name": "Shop"},
                "amount_cents": order.amount,
                "currency": order.asked["currency"],
                "merchant_order_id": order.reference,
                "items": order.asked["items"],
            },
            "created_at": self._time(),
            "currency": order.asked["currency"],
            "source_data": {
                "pan": "2346",
                "type": "card",
                "tenure": None,
                "sub_type": "MasterCard",
            },
            "refunded_amount_cents": 0,
            "captured_amount": 0,
            "data": {"gateway_integration_pk": INTEGRATION_ID, "message": "Approved", "fee": 1.5},
            "owner": OWNER,
            "parent_transaction": None,
            **fields,
        }
        self.transactions[number] = obj
        order.transactions.append(number)
        return number

    def _time(self) -> str:
        """Local time without a zone, as in Egypt."""
        second = next(self._seconds)
        return f"2026-11-22T{10 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.592345"

    # -- the API

    def _handler(self, name: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json() if request.can_read_body else {}
            call = Call(name, [body], request=request)
            self.calls.append(call)
            if faults := self._faults.get((name, False)):
                return await faults.popleft()(call)
            answer: web.StreamResponse = getattr(self, f"_answer_{name}")(request, body)
            if faults := self._faults.get((name, True)):
                return await faults.popleft()(call)
            return answer

        return handle

    def _answer_intention(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Token {SECRET_KEY}":
            return as_json({"detail": "Authentication credentials were not provided."}, status=401)
        if body.get("payment_methods") != [INTEGRATION_ID]:
            return as_json(
                {"detail": "Integration ID/Name does not exist in our system"}, status=404
            )
        missing = [name for name in _BILLING if not body.get("billing_data", {}).get(name)]
        if missing:
            wrong = {name: ["This field is required."] for name in missing}
            return as_json({"billing_data": wrong}, status=400)
        if sum(item["amount"] for item in body["items"]) != body["amount"]:
            return as_json({"detail": "unmatched_item_prices"}, status=406)
        if not isinstance(body["amount"], int) or body["amount"] < 1 or body["expiration"] < 1:
            return as_json({"amount": ["Ensure this value is greater than 0."]}, status=400)
        number = next(self._numbers)
        secret = hashlib.sha256(f"secret {number}".encode()).hexdigest()[:32]
        order = FakeOrder(
            id=number,
            reference=body["special_reference"],
            amount=body["amount"],
            asked=body,
            client_secret=f"egy_csk_test_{secret}",
        )
        self.orders[number] = order
        return as_json(
            {
                "id": f"pi_test_{secret}",
                "intention_order_id": number,
                "client_secret": order.client_secret,
                "payment_methods": [{"integration_id": INTEGRATION_ID, "live": False}],
                "special_reference": order.reference,
                "status": "intended",
                "confirmed": False,
                "extras": {"creation_extras": None},
            },
            status=201,
        )

    def _answer_token(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body.get("api_key") != API_KEY:
            return as_json({"detail": "incorrect credentials"}, status=403)
        token = f"token-{next(self._numbers)}"
        self._tokens.add(token)
        return as_json({"profile": {"id": 164_295}, "token": token}, status=201)

    def _answer_inquiry(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if not self._is_known(request):
            return _not_known()
        for order in reversed(self.orders.values()):
            is_it = body in ({"order_id": order.id}, {"merchant_order_id": order.reference})
            if is_it and order.transactions:
                return as_json(self.transactions[order.transactions[-1]])
        return as_json({"detail": "Not found."}, status=404)

    def _answer_transaction(self, request: web.Request, body: Any) -> web.StreamResponse:
        if not self._is_known(request):
            return _not_known()
        found = self.transactions.get(int(request.match_info["id"]))
        return as_json({"detail": "Not found."}, status=404) if found is None else as_json(found)

    def _is_known(self, request: web.Request) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme == "Bearer" and token in self._tokens


def _not_known() -> web.StreamResponse:
    return as_json({"detail": "incorrect credentials"}, status=401)


def pins() -> Pins:
    """Of this account."""
    return Pins(integration_ids=frozenset({INTEGRATION_ID}), owner=OWNER, currency=Currency.EGP)


def sign(obj: Mapping[str, Any], names: Sequence[str], secret: str = HMAC_SECRET) -> str:
    """The signature of Paymob, made here a second time: from what it documents."""
    message = ""
    for name in names:
        value: Any = obj
        for step in name.split("."):
            value = (value or {}).get(step)
        message += _text(value)
    return hmac.new(secret.encode(), message.encode(), hashlib.sha512).hexdigest()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def slow(seconds: float) -> Fault:
    """An answer that is nothing, and comes late."""

    async def fault(_: Call) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(status=504)

    return fault
