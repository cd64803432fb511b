"""The API of Paymob: makes what a customer can pay, and tells what became of it.

A request that reads may be sent again. One that makes an intention may not: when no answer comes
(`OutcomeUnknown`), the order may exist, and whoever asked inquires before the next try.

Two keys open two halves of the API: the secret key makes intentions; the API key buys a token
that is good for an hour, and with it the reading half. Neither, nor anything of the customer, is
repeated in an error.

Sources: Paymob, "Create intention", "Retrieve transaction", "Authentication".
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from indexer.core.charge import ChargeNews
from indexer.core.intention import Intention, NewIntention
from indexer.errors import InvariantError, OutcomeUnknown, SourceRejected, SourceUnavailable
from indexer.sources import web
from indexer.sources.paymob_wire import (
    Account,
    IntentionAnswer,
    TokenAnswer,
    Transaction,
    decode,
    intention_body,
    news_of,
    parent,
    said_of,
    words,
)


#: From sending a request to the last byte of its answer, in seconds.
TIMEOUT_S: Final = 15.0
#: A question that takes several requests may take this many times as long.
QUESTION_TIMEOUTS_MAX: Final = 3
CONCURRENCY_MAX: Final = 16
ANSWER_BYTES_MAX: Final = 1024 * 1024

#: A token is good for 60 minutes; one that is about to end is not used any more.
TOKEN_KEPT_S: Final = 50 * 60.0

#: How often an answer may lead to the transaction before it: a refund of a capture of an
#: authorization is two steps away from it.
PARENTS_MAX: Final = 4

_TOKEN_PATH: Final = "/api/auth/tokens"  # noqa: S105  # a path
_INTENTION_PATH: Final = "/v1/intention/"
_INQUIRY_PATH: Final = "/api/ecommerce/orders/transaction_inquiry"
_TRANSACTION_PATH: Final = "/api/acceptance/transactions"


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of one request: what came back.

    Attributes:
        retry_after_s: what Paymob asked us to wait, in seconds.
        body: empty when it was longer than we read.
    """

    status: int
    body: bytes
    retry_after_s: float | None


class _LostError(Exception):
    """The request may have arrived, and no answer came."""


class Paymob:
    """A client. An async context manager: its connections live inside."""

    def __init__(self, account: Account, *, timeout_s: float = TIMEOUT_S) -> None:
        """Nothing is opened before `async with`."""
        self._account = account
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(CONCURRENCY_MAX)
        self._session: aiohttp.ClientSession | None = None
        self._token = _Token()

    async def __aenter__(self) -> Self:
        # A new connection for each request: on one that was kept, nobody can say whether the
        # server had closed it before or after it read a request.
        self._session = web.session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def create_intention(self, new: NewIntention) -> Intention:
        """Makes an order and the page on which it can be paid.

        Raises:
            OutcomeUnknown: the order may exist: inquire before the next try, and then use another
                reference.
            SourceUnavailable: nothing was made; the same may be tried again.
            SourceRejected: Paymob refuses it, in words of its own.
        """
        asked = "making an intention"
        key = self._account.secret_key
        try:
            answer = await self._send(
                "POST", _INTENTION_PATH, f"Token {key}", intention_body(new, self._account)
            )
        except _LostError as error:
            raise OutcomeUnknown(f"Paymob, {asked}: {error}") from error
        self._refuse_unless_good(asked, answer, OutcomeUnknown, hidden=said_of(new.customer))
        made = decode(answer.body, IntentionAnswer, asked, OutcomeUnknown)
        if made.special_reference not in (None, new.reference):
            raise OutcomeUnknown(f"Paymob, {asked}: it answered about another reference")
        query = {"publicKey": self._account.public_key, "clientSecret": made.client_secret}
        return Intention(
            order_id=made.intention_order_id,
            intention_id=made.id,
            checkout_url=f"{self._account.base_url}/unifiedcheckout/?{urlencode(query)}",
        )

    async def inquire(
        self, *, order_id: int | None = None, special_reference: str | None = None
    ) -> list[ChargeNews] | None:
        """What Paymob says of the charges of one order, by its number or by our reference.

        It tells of the latest transaction only; an earlier one is told by `transaction`. Where
        the latest is a refund, a void or a capture, that which it was done to is told instead.

        Returns None when Paymob knows of no such order, or of no transaction of it: it does not
        say which.

        Raises:
            SourceUnavailable: no answer that can be used.
            SourceRejected: our keys are not accepted, or the like.
        """
        if (order_id is None) == (special_reference is None):
            raise InvariantError("an order is inquired about by one of its two names")
        names = {"order_id": order_id, "merchant_order_id": special_reference}
        by = {name: value for name, value in names.items() if value is not None}
        asked = f"inquiry about order {order_id or special_reference}"
        async with self._within_limits(asked):
            found = await self._read(asked, "POST", _INQUIRY_PATH, by)
            if found is None:
                return None
            order = found.order
            if order_id not in (None, order.id) or special_reference not in (
                None,
                order.merchant_order_id,
            ):
                raise SourceUnavailable(f"Paymob, {asked}: it answered about another order")
            return [await self._root(found)]

    async def transaction(self, id: int) -> ChargeNews | None:
        """What Paymob says of one charge; None when it knows of none of that number.

        Raises:
            SourceUnavailable: no answer that can be used.
            SourceRejected: our keys are not accepted, or the like.
        """
        async with self._within_limits(f"transaction {id}"):
            found = await self._transaction(id)
            return None if found is None else await self._root(found)

    @asynccontextmanager
    async def _within_limits(self, asked: str) -> AsyncIterator[None]:
        """One question may take several requests, and waits for others' token."""
        limit_s = QUESTION_TIMEOUTS_MAX * self._timeout_s
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError as error:
            raise SourceUnavailable(f"Paymob, {asked}: not known within {limit_s:g} s") from error

    async def _root(self, found: Transaction) -> ChargeNews:
        """The news of what was charged, not of what was done to it afterwards."""
        order_id = found.order.id
        for _ in range(PARENTS_MAX):
            if not found.has_parent_transaction:
                return self._news(found)
            number = parent(found)
            above = None if number is None else await self._transaction(number)
            if above is None or above.order.id != order_id:
                break
            found = above
        raise SourceUnavailable(f"Paymob, transaction {found.id}: it was done to one not known")

    async def _transaction(self, id: int) -> Transaction | None:
        asked = f"transaction {id}"
        found = await self._read(asked, "GET", f"{_TRANSACTION_PATH}/{id}", None)
        if found is not None and found.id != id:
            raise SourceUnavailable(f"Paymob, {asked}: it answered about another one")
        return found

    def _news(self, found: Transaction) -> ChargeNews:
        # An answer to a question of ours needs no other pins: nobody else could have written it.
        if found.currency != self._account.pins.currency:
            raise SourceRejected(
                f"Paymob, transaction {found.id}: is not in {self._account.pins.currency}"
            )
        return news_of(found)

    async def _read(
        self, asked: str, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Transaction | None:
        """A transaction; None on 404. A token that ended early is bought anew, once."""
        for is_last in (False, True):
            token = await self._bearer()
            answer = await self._get(asked, method, path, f"Bearer {token}", body)
            if answer.status != 401 or is_last:
                break
            self._token.drop(token)
        if answer.status == 404:
            return None
        self._refuse_unless_good(asked, answer, SourceUnavailable, hidden=(token,))
        return decode(answer.body, Transaction, asked, SourceUnavailable)

    async def _bearer(self) -> str:
        """A token that is good now; one purchase serves all who wait for it."""
        loop = asyncio.get_running_loop()
        async with self._token.buying:
            if loop.time() >= self._token.until:
                asked, asked_at = "authentication", loop.time()
                body = {"api_key": self._account.api_key}
                answer = await self._get(asked, "POST", _TOKEN_PATH, None, body)
                self._refuse_unless_good(asked, answer, SourceUnavailable)
                bought = decode(answer.body, TokenAnswer, asked, SourceUnavailable)
                self._token.value, self._token.until = bought.token, asked_at + TOKEN_KEPT_S
            return self._token.value

    async def _get(
        self, asked: str, method: str, path: str, authorization: str | None, body: Any
    ) -> _Answer:
        try:
            return await self._send(method, path, authorization, body)
        except _LostError as error:
            raise SourceUnavailable(f"Paymob, {asked}: {error}") from error

    async def _send(self, method: str, path: str, authorization: str | None, body: Any) -> _Answer:
        """One request.

        Raises:
            SourceUnavailable: it was not sent.
            _LostError: it may have been.
        """
        if self._session is None:
            raise InvariantError("Paymob is used outside of its `async with`")
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        data = None if body is None else msgspec.json.encode(body)
        url = URL(f"{self._account.base_url}{path}")
        await self._take_place()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.request(
                    method, url, data=data, headers=headers, allow_redirects=False
                ) as response,
            ):
                said = await web.whole_body(response, ANSWER_BYTES_MAX)
                return _Answer(response.status, said or b"", web.pause_s(response))
        except aiohttp.ClientConnectorError as error:
            raise SourceUnavailable(f"Paymob is out of reach: {error.strerror}") from error
        except TimeoutError as error:
            raise _LostError(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind: the text of some of these holds what was sent.
            raise _LostError(type(error).__name__) from error
        finally:
            self._places.release()

    async def _take_place(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise SourceUnavailable("Paymob: too many requests of ours are under way") from error

    def _refuse_unless_good(
        self,
        asked: str,
        answer: _Answer,
        unavailable: type[SourceUnavailable],
        *,
        hidden: Sequence[str] = (),
    ) -> None:
        """Passes a 2xx; `unavailable` is what a fault of the server's means."""
        if 200 <= answer.status < 300:
            return
        text = f"Paymob, {asked}: HTTP {answer.status}"
        if answer.status == 429:
            raise SourceUnavailable(text, retry_after_s=answer.retry_after_s)
        if answer.status == 408 or answer.status >= 500:
            raise unavailable(text, retry_after_s=answer.retry_after_s)
        secrets = (self._account.secret_key, self._account.api_key, *hidden)
        said = words(answer.body, secrets)
        raise SourceRejected(f"{text}: {said}" if said else text, code=answer.status)


class _Token:
    """What opens the reading half, and until when by the loop's clock."""

    def __init__(self) -> None:
        self.value = ""
        self.until = float("-inf")
        self.buying = asyncio.Lock()

    def drop(self, value: str) -> None:
        """Not good any more, unless it was bought anew meanwhile."""
        if self.value == value:
            self.until = float("-inf")
