"""What a request's handler works with: made once by `create_app`, closed over by every route."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from api.auth import Gate
from api.cards import CardDesk
from api.chain import Accounts
from api.checks import Checks
from api.doors import Doors
from api.headers import RawHeaders
from api.hub import Hub
from api.idempotency import Ledger
from api.qr import QrCodes
from api.rates import Rates
from api.requests import Requests
from api.tally import Tally
from api.wakeups import Wakeups
from api.watch_keys import WatchKeys
from indexer.core.addresses import Networks
from indexer.core.standard_webhooks import SigningKey
from store.database import Database
from store.shared import Shared


if TYPE_CHECKING:
    from api.proxy import Partners


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of one API.

    Attributes:
        clock: unix seconds.
        watch_keys: what the deployment allows a payment to be, and which watch key it gets.
        cards: makes orders that are paid by card; None: not set up.
        partners: who may be called for frontends; None: nobody.
        safe_headers: what every answer says to browsers.
        doors: what opens the doors for webhooks.
        signing_keys: what the secrets of receivers are derived from, the first one for new ones.
        private_networks: that receivers may be in although they are not public.
        webhook_retention_days: for which it is known what was delivered.
        tally: what came to them.
        started_at: unix seconds, when the API was made: nothing is known of the time before.
        rates: how often who may call.
        trusted_proxies: whose `X-Forwarded-For` is believed.
        shared: what processes share; None: nothing.
        openapi: the document that describes the API, as JSON.
    """

    database: Database
    clock: Callable[[], float]
    watch_keys: WatchKeys
    wakeups: Wakeups
    accounts: Accounts
    cards: CardDesk | None
    partners: "Partners | None"
    checks: Checks
    gate: Gate
    rates: Rates
    trusted_proxies: Networks
    shared: Shared | None
    ledger: Ledger
    hub: Hub
    qr_codes: QrCodes
    requests: Requests
    safe_headers: RawHeaders
    doors: Doors
    signing_keys: tuple[SigningKey, ...]
    private_networks: Networks
    webhook_retention_days: int
    tally: Tally
    started_at: int
    openapi: bytes

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock())


def context_of(request: Request) -> Context:
    """The context of the application that serves the request."""
    return cast("Context", request.app.state.context)
