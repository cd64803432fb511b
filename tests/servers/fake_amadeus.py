"""Amadeus' self-service API on loopback, as it was before it was closed.

    async with FakeAmadeus() as fake:
        ...                                     # a proxy in front of fake.url asks for offers
        assert fake.count("token") == 1

Tokens are sold for 1799 seconds, and their end can be brought about at any moment:

        fake.expire_tokens()                    # 38192 for all that were sold so far
        fake.revoke_tokens()                    # 38193
        fake.expires_in = "soon"                # what the next answers say; MISSING: nothing
        fake.client_secret = "another one"      # 38187, invalid_client

Every request can fail in any scripted way, by the name of what was asked for:

        fake.fail("flight-offers", too_many(), times=3)
        fake.fail("token", hang())
        fake.hold("token")                      # waits until `release("token")`

Errors have numbers where Amadeus has numbers, and strings when `codes_as_strings` is set: it sends
both. Answers carry what must not reach a client: the host of Amadeus in links, cookies, the name
of the server.

Sources: amadeus4dev/developer-guides, "Authorization", "Common errors", "Rate limits"; the
reference of Flight Offers Search 2.x, Airport & City Search 1.x, Hotel Search 3.x.
"""

import asyncio
import gzip
import itertools
import json
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from aiohttp import web

from tests.servers.faults import Call, Fault


CLIENT_ID: Final = "kQ3bGx1sYV0uZbd2A9nJr6TtWc8HfLpE"
CLIENT_SECRET: Final = "s3cr3tOfTheFake7"
EXPIRES_IN_S: Final = 1_799
MEDIA_TYPE: Final = "application/vnd.amadeus+json"
MISSING: Final = object()

#: What an answer carries and no client may see.
LEAKS: Final = {
    "Server": "nginx/amadeus-internal",
    "Set-Cookie": "ama_session=LEAKED; Path=/",
    "Ama-Request-Id": "0001LEAKED",
    "X-Powered-By": "LEAKED",
}

_ROUTES: Final = (
    ("POST", "/v1/security/oauth2/token", "token"),
    ("GET", "/v2/shopping/flight-offers", "flight-offers"),
    ("POST", "/v2/shopping/flight-offers", "flight-search"),
    ("GET", "/v1/reference-data/locations", "locations"),
    ("GET", "/v1/reference-data/locations/{id}", "location"),
    ("GET", "/v1/reference-data/locations/hotels/by-city", "hotels"),
    ("GET", "/v3/shopping/hotel-offers", "hotel-offers"),
    ("GET", "/v3/shopping/hotel-offers/{id}", "hotel-offer"),
    ("POST", "/v1/booking/flight-orders", "booking"),
)

#: Parameters without which a route answers 400.
_REQUIRED: Final = {
    "flight-offers": ("originLocationCode", "destinationLocationCode", "departureDate", "adults"),
    "locations": ("keyword", "subType"),
    "hotels": ("cityCode",),
    "hotel-offers": ("hotelIds",),
}


@dataclass(frozen=True)
class Received:
    """One request.

    Attributes:
        name: of what was asked for: `token`, `flight-offers`, ….
        token: what it was authorized by; None: nothing.
    """

    name: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    token: str | None


class FakeAmadeus:
    """One application at Amadeus. An async context manager.

    Attributes:
        calls: every request that came in, in order.
        bookings: how many orders were made.
        expires_in: what tokens are said to be good for.
        packs: answers are gzip where the client takes it.
        port: 0 before it was started; a fake that starts again takes the same.
    """

    def __init__(self) -> None:
        self.calls: list[Received] = []
        self.bookings = 0
        self.client_id = CLIENT_ID
        self.client_secret = CLIENT_SECRET
        self.expires_in: Any = EXPIRES_IN_S
        self.codes_as_strings = False
        self.packs = False
        self.pause_s = 0.0
        self.port = 0
        self._tokens: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._faults: dict[str, deque[Fault]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application()
        for method, path, name in _ROUTES:
            application.router.add_route(method, path, self._handler(name))
        application.router.add_route("*", "/{rest:.*}", self._handler("nothing"))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port), backlog=1_024)
        self.port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    # -- scripts

    def fail(self, name: str, fault: Fault, *, times: int = 1) -> None:
        """Lets the next requests of a name be answered like that."""
        self._faults.setdefault(name, deque()).extend(itertools.repeat(fault, times))

    def heal(self) -> None:
        """Takes back every scripted fault."""
        self._faults.clear()

    def hold(self, name: str) -> None:
        """Requests of a name come in and wait for their answer."""
        self._gates[name] = asyncio.Event()

    def release(self, name: str) -> None:
        """Lets them go on."""
        self._gates.pop(name).set()

    def expire_tokens(self) -> None:
        """All that were sold so far have come to their end."""
        self._tokens = dict.fromkeys(self._tokens, 38192)

    def revoke_tokens(self) -> None:
        """All that were sold so far are taken back."""
        self._tokens = dict.fromkeys(self._tokens, 38193)

    def count(self, name: str) -> int:
        """How many requests of a name came in."""
        return sum(call.name == name for call in self.calls)

    def last(self, name: str) -> Received:
        """The latest of them."""
        return [call for call in self.calls if call.name == name][-1]

    @property
    def tokens(self) -> list[str]:
        """All that were sold."""
        return list(self._tokens)

    # -- answers

    def _handler(self, name: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            authorization = request.headers.get("Authorization", "")
            token = authorization.removeprefix("Bearer ") if authorization else None
            received = Received(
                name=name,
                method=request.method,
                path=request.path,
                query=request.query_string,
                headers=dict(request.headers),
                body=body,
                token=token,
            )
            self.calls.append(received)
            if (gate := self._gates.get(name)) is not None:
                await gate.wait()
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            if faults := self._faults.get(name):
                return await faults.popleft()(Call(name, [], request=request))
            if name == "token":
                return self._sell(received)
            return self._refused(received) or self._answer(received, request)

        return handle

    def _sell(self, received: Received) -> web.Response:
        form = dict(parse_qsl(received.body.decode()))
        if not received.headers.get("Content-Type", "").startswith(
            "application/x-www-form-urlencoded"
        ):
            return self.error(400, 38185, "Invalid content type")
        right = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        if form != right:
            return self._json(
                {
                    "error": "invalid_client",
                    "error_description": "Client credentials are invalid",
                    "code": self._code(38187),
                    "title": "Invalid parameters",
                },
                status=401,
            )
        token = f"TOKEN{next(self._numbers):023d}"
        self._tokens[token] = 0
        answer = {
            "type": "amadeusOAuth2Token",
            "username": "shop@example.com",
            "application_name": "shop",
            "client_id": self.client_id,
            "token_type": "Bearer",
            "access_token": token,
            "state": "approved",
            "scope": "",
        }
        if self.expires_in is not MISSING:
            answer["expires_in"] = self.expires_in
        return self._json(answer)

    def _refused(self, received: Received) -> web.Response | None:
        if received.token is None:
            return self.error(401, 38191, "Invalid HTTP header")
        ended = self._tokens.get(received.token, 38190)
        titles = {
            38190: "Invalid access token",
            38192: "Access token expired",
            38193: "Access token revoked",
        }
        return self.error(401, ended, titles[ended]) if ended else None

    def _answer(self, received: Received, request: web.Request) -> web.Response:
        name, query = received.name, dict(parse_qsl(received.query, keep_blank_values=True))
        if name == "nothing":
            return self.error(404, 38196, "Resource not found")
        missing = [each for each in _REQUIRED.get(name, ()) if each not in query]
        if missing:
            return self.error(400, 32171, "MANDATORY DATA MISSING", parameter=missing[0])
        if name == "flight-search":
            if received.headers.get("X-HTTP-Method-Override") != "GET":
                return self.error(400, 38189, "Internal error")
            query = {"body": received.body.decode()}
        if name == "booking":
            self.bookings += 1
        answer = {
            "meta": {"count": 1, "links": {"self": f"{self.url}{received.path}?LEAKED"}},
            "data": [_DATA.get(name, _offer)(name, query | dict(request.match_info))],
            "dictionaries": {"carriers": {"LH": "LUFTHANSA"}},
            "internal": "LEAKED",
        }
        raw = json.dumps(answer).encode()
        if self.packs and "gzip" in received.headers.get("Accept-Encoding", ""):
            packed = {"Content-Encoding": "gzip"}
            return _response(gzip.compress(raw), headers=packed)
        return _response(raw)

    def _code(self, code: int) -> int | str:
        return str(code) if self.codes_as_strings else code

    def _json(self, value: Any, *, status: int = 200) -> web.Response:
        return _response(json.dumps(value).encode(), status=status)

    def error(
        self, status: int, code: int, title: str, *, parameter: str | None = None
    ) -> web.Response:
        """An error as Amadeus writes one."""
        error: dict[str, Any] = {
            "status": self._code(status),
            "code": self._code(code),
            "title": title,
            "detail": f"{title}, as {self.url} says",
        }
        if parameter is not None:
            error["source"] = {"parameter": parameter, "example": "LEAKED"}
        return self._json({"errors": [error]}, status=status)


def _offer(name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": name,
        "id": "1",
        "source": "GDS",
        "asked": dict(asked),
        "price": {"currency": "EUR", "total": "546.70", "grandTotal": "546.70"},
        "itineraries": [{"duration": "PT14H15M", "segments": [{"carrierCode": "LH"}]}],
    }


def _location(_name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "location",
        "subType": "AIRPORT",
        "name": asked.get("keyword", "ALMERIA"),
        "iataCode": "LEI",
        "id": asked.get("id", "ALEI"),
        "self": {"href": "https://test.api.amadeus.com/LEAKED", "methods": ["GET"]},
    }


_DATA: Final[Mapping[str, Callable[[str, Mapping[str, str]], dict[str, Any]]]] = {
    "locations": _location,
    "location": _location,
}


def _response(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=body, status=status, headers={"Content-Type": MEDIA_TYPE, **LEAKS, **(headers or {})}
    )


# ----------------------------------------------------------------------------------- faults


def says(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Any answer; underscores in names of headers stand for hyphens."""

    async def fault(_: Call) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return _response(body, status=status, headers=named)

    return fault


def problem(status: int, code: int | str, title: str, **headers: str) -> Fault:
    """An error as Amadeus writes one."""
    errors = [{"status": status, "code": code, "title": title, "detail": f"{title}!"}]
    return says(status, json.dumps({"errors": errors}).encode(), **headers)


def too_many() -> Fault:
    """Faster than ten in a second."""
    title = "Too many requests"
    return problem(429, 38194, title)


def quota_exceeded() -> Fault:
    """The month is over, so to say."""
    return problem(429, 38195, "Quota limit exceeded")


def redirect(to: str = "http://169.254.169.254/latest/meta-data/", status: int = 302) -> Fault:
    """Leads to where nobody should go."""
    return says(status, Location=to)


def gzip_bomb(size: int) -> Fault:
    """So many bytes of zeros, in a thousandth of it."""
    return says(200, gzip.compress(bytes(size), 9), Content_Encoding="gzip")


def oversized(size: int) -> Fault:
    """So many bytes, as JSON."""
    return says(200, b'{"data":"' + b"a" * size + b'"}')


def endless(piece: bytes = b"a" * 65_536, pause_s: float = 0.0) -> Fault:
    """A body without an end."""

    async def fault(call: Call) -> web.StreamResponse:
        assert call.request is not None
        response = web.StreamResponse(headers={"Content-Type": MEDIA_TYPE})
        await response.prepare(call.request)
        try:
            while True:
                await response.write(piece)
                await asyncio.sleep(pause_s)
        except ConnectionError:
            return response

    return fault


def cut_off(body: bytes = b'{"data":[') -> Fault:
    """The connection is reset in the middle of the body."""

    async def fault(call: Call) -> web.StreamResponse:
        assert call.request is not None
        headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body) + 100)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        await response.write(body)
        assert call.request.transport is not None
        call.request.transport.abort()
        return response

    return fault
