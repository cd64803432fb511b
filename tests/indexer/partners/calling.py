"""Calls to a fake partner by the shipped profile, from one process or several."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from ipaddress import IPv4Network
from typing import Any

from indexer.core import profile_reader
from indexer.core.partner_answer import PartnerFailed, Passed
from indexer.core.partner_request import Asked, ask
from indexer.core.profile import PartnerSecrets, Profile, Route
from indexer.core.rate import Rate
from indexer.partners.desk import Partners
from store.limiter import Limiter
from store.shared import Shared
from tests.servers.fake_amadeus import CLIENT_ID, CLIENT_SECRET, FakeAmadeus
from tests.servers.redis_server import RedisServer


PATIENCE_S = 30.0
#: A rate that refuses nothing.
ANY_RATE = Rate(100_000, 1)
SECRETS = PartnerSecrets(client_id=CLIENT_ID, client_secret=CLIENT_SECRET)

#: A booking, which the shipped profile has switched off.
BOOKING = """
[amadeus.routes.flight-orders]
method = "POST"
path = "/v1/booking/flight-orders"
response = ["data"]
[amadeus.routes.flight-orders.fields]
data = { where = "body", type = "json", required = true }
"""


def shipped(base_url: str, **others: Any) -> Profile:
    """The profile of Amadeus as it is shipped, with another host, and patience for slow tests."""
    text = files("indexer.partners").joinpath("amadeus.toml").read_text()
    [profile] = profile_reader.read(text, "amadeus")
    head, _, _ = text.partition("[amadeus.routes.")
    [booking] = profile_reader.read(head + BOOKING, "booking")
    values: dict[str, Any] = {
        "base_url": base_url,
        "rate": ANY_RATE,
        "private_networks": (IPv4Network("127.0.0.0/8"),),
        "routes": {
            name: replace(route, timeout_s=PATIENCE_S)
            for name, route in {**profile.routes, **booking.routes}.items()
        },
    }
    return replace(profile, **(values | others))


@dataclass
class Caller:
    """One process that calls partners.

    Attributes:
        profile: may be replaced by one that is a little different.
        shared: the process's Redis; None: it has none.
    """

    partners: Partners
    profile: Profile
    shared: Shared | None

    async def call(self, name: str, body: Any = None, **query: Any) -> Passed:
        """Calls a route, with what differs between calls made up where nothing is given."""
        route = self.profile.routes[name]
        return await self.partners.call(self.profile, route, self.asked(route, body, query))

    async def outcome(self, name: str, body: Any = None, **query: Any) -> str:
        """How a call ends: its status, or its trouble."""
        try:
            return str((await self.call(name, body, **query)).status)
        except PartnerFailed as error:
            return str(error.trouble)

    def asked(self, route: Route, body: Any, query: Mapping[str, Any]) -> Asked:
        pairs = [(name.replace("__", "."), str(value)) for name, value in query.items()]
        raw = None if body is None else json.dumps(body).encode()
        return ask(self.profile, route, pairs, raw)

    def change(self, name: str, **values: Any) -> None:
        """Makes a route a little different."""
        route = replace(self.profile.routes[name], **values)
        self.profile = replace(self.profile, routes={**self.profile.routes, name: route})

    def figure(self, name: str, **labels: str) -> float:
        """A figure; 0 where there is none yet."""
        value = self.partners.registry.get_sample_value(name, {"upstream": "amadeus", **labels})
        return value or 0.0

    def count(self, outcome: str, route: str = "location") -> float:
        """How many calls of a route ended so."""
        return self.figure("axiom_partner_calls_total", route=route, outcome=outcome)


FLIGHT = {
    "originLocationCode": "CAI",
    "destinationLocationCode": "LEI",
    "departureDate": "2027-01-31",
}
SEARCH = {"originDestinations": [{"id": "1"}], "travelers": [{"id": "1"}]}


@asynccontextmanager
async def callers(
    fake: FakeAmadeus,
    count: int = 1,
    redis: RedisServer | None = None,
    secrets: PartnerSecrets = SECRETS,
    **others: Any,
) -> AsyncIterator[list[Caller]]:
    """So many processes, which know nothing of one another but through Redis."""
    profile = shipped(fake.url, **others)
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            shared = None
            if redis is not None:
                shared = await stack.enter_async_context(Shared(redis.url))
                stack.callback(asyncio.create_task(shared.run()).cancel)
            partners = Partners(
                [profile],
                {profile.name: secrets},
                shared=shared,
                limiter=Limiter(shared, time.monotonic),
                monotonic=time.monotonic,
                connect_timeout_s=PATIENCE_S,
            )
            made.append(Caller(await stack.enter_async_context(partners), profile, shared))
        yield made


@asynccontextmanager
async def caller(fake: FakeAmadeus, **others: Any) -> AsyncIterator[Caller]:
    """One process, without Redis."""
    async with callers(fake, **others) as [one]:
        yield one


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something to become true."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)
