"""The application: wires the parts and serves the route table."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api import openapi, proxy
from api.auth import Gate
from api.calls import EVENT_STREAM, Call
from api.cards import CardDesk
from api.chain import Accounts, Chain
from api.checks import Checks
from api.context import Context, context_of
from api.cors import Cors
from api.doors import doors_of
from api.errors import HANDLERS
from api.headers import RawHeaders, safe_headers
from api.hosts import Hosts
from api.hub import Hub
from api.idempotency import Ledger
from api.proxy import Partners
from api.qr import QrCodes
from api.rates import Limit, Rates, TooMany, check_rates
from api.requests import Requests
from api.routes import CALLS
from api.shell import FailSafe, Shell
from api.stream import SentAway
from api.tally import Tally
from api.wakeups import Wakeups
from api.watch_keys import WatchKeys
from indexer.core.standard_webhooks import SigningKey
from indexer.settings import Settings
from store.database import Database
from store.limiter import Limiter
from store.shared import Shared


def create_app(
    *,
    database: Database,
    settings: Settings,
    chain: Chain,
    clock: Callable[[], float],
    wakeups: Wakeups,
    cards: CardDesk | None = None,
    signing_keys: Sequence[SigningKey] = (),
    shared: Shared | None = None,
    limiter: Limiter | None = None,
    partners: Partners | None = None,
) -> Starlette:
    """The API over a database whose schema is current.

    Args:
        database: where payments are; closed by the caller, after the server has stopped.
        settings: what the deployment allows.
        chain: reads accounts while a payment is created.
        clock: unix seconds.
        wakeups: woken after each commit of this process.
        cards: makes orders that are paid by card; None: no payments by card.
        signing_keys: what the secrets of receivers are derived from, the first one for new ones.
        shared: what processes share; None: nothing.
        limiter: what counts requests; None: one of its own, over `shared`.
        partners: who may be called for frontends; None: nobody.

    Raises:
        ConfigError: a rate is one of a call that there is not.
    """
    check_rates(settings, CALLS)
    limiter = limiter or Limiter(shared, time.monotonic)
    currency = None if cards is None else settings.paymob_currency
    mints = [mint for mint in settings.tokens.values() if mint is not None]
    requests = Requests()
    headers = safe_headers(settings.public_url)
    app = _served(settings, requests, headers)
    app.state.context = Context(
        database=database,
        clock=clock,
        watch_keys=WatchKeys(
            database,
            lambda key, every: replace(settings.policy(key, every), currency=currency),
            monotonic=time.monotonic,
        ),
        wakeups=wakeups,
        accounts=Accounts(chain, mints, time.monotonic),
        cards=cards,
        partners=partners,
        checks=Checks(database, time.monotonic),
        gate=Gate(database, clock, time.monotonic),
        ledger=Ledger(database, clock),
        rates=Rates(limiter, settings, time.monotonic),
        trusted_proxies=settings.trusted_proxies,
        shared=shared,
        hub=Hub(database, wakeups, per_address_max=settings.streams_per_address),
        qr_codes=QrCodes(),
        requests=requests,
        safe_headers=headers,
        doors=doors_of(settings),
        signing_keys=tuple(signing_keys),
        private_networks=settings.webhook_private_networks,
        webhook_retention_days=settings.webhook_retention_days,
        tally=Tally(database, clock),
        started_at=int(clock()),
        openapi=msgspec.json.encode(
            openapi.document(settings.public_url, partners=settings.upstreams)
        ),
    )
    return app


def _served(settings: Settings, requests: Requests, headers: RawHeaders) -> Starlette:
    """The route table, and what surrounds it."""
    app = Starlette(
        routes=_routes((*proxy.calls_of(settings.upstreams), *CALLS)),
        middleware=_layers(settings, requests, headers),
        exception_handlers=HANDLERS,
    )
    # A path with a slash too many is none of ours, and is not redirected: it gets a problem.
    app.router.redirect_slashes = False
    return app


def _layers(settings: Settings, requests: Requests, headers: RawHeaders) -> list[Middleware]:
    """Outermost first. All are pure ASGI: nothing holds a stream back."""
    methods = sorted({call.method for call in CALLS})
    sent, read = proxy.headers_of(settings.upstreams)
    cors = Middleware(Cors, origins=settings.cors_origins, methods=methods, sent=sent, read=read)
    return [
        Middleware(Shell, requests=requests, hosts=Hosts(settings.hosts), safe_headers=headers),
        *([cors] if settings.cors_origins else []),
        Middleware(FailSafe),
    ]


def _routes(calls: Sequence[Call]) -> list[Route]:
    """One route for each path, so that a wrong method learns of all the right ones."""
    by_path: dict[str, dict[str, Call]] = {}
    for call in calls:
        by_path.setdefault(call.path, {})[call.method] = call
    return [_route(path, by_method) for path, by_method in by_path.items()]


def _route(path: str, calls: dict[str, Call]) -> Route:
    route = Route(path, _Endpoint(calls), methods=list(calls))
    answers = [answer for call in calls.values() for answer in call.answers.values()]
    if any(answer.media_type == EVENT_STREAM for answer in answers):
        route.methods = set(calls)  # the head of a stream would never end
    return route


class _Endpoint:
    """All methods of one path, as a bare ASGI application.

    A plain function would be wrapped in three more layers, which every open stream would keep.
    """

    def __init__(self, calls: Mapping[str, Call]) -> None:
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        call = self._calls.get(request.method) or self._calls["GET"]  # HEAD: without the body
        context = context_of(request)
        try:
            key = await context.rates.admit(context.gate, request, call)
        except TooMany as refused:
            if call.limit is Limit.STREAM:
                return SentAway(refused.retry_after_s)
            raise
        return await call.handler(context, request, key)
