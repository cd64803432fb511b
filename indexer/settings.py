"""Everything that can be set, read once from the environment.

Variables are named `AXIOM_` and the field in capitals. They may also stand in a `.env` file; the
real environment wins. An empty value counts as not set. Where a value may carry a key,
`AXIOM_<NAME>_FILE` can name a file that holds it, as container platforms mount secrets.

All problems are found before any is reported, so that one start is enough to see them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.parse import urlsplit

from indexer import parsers, upstreams
from indexer.core.creation import EXPIRES_IN_S_MAX, EXPIRES_IN_S_MIN, Policy
from indexer.core.paymob import Pins
from indexer.core.profile import PartnerSecrets, Profile
from indexer.core.rate import Rate, parse_rate
from indexer.core.types import Currency
from indexer.environment import IDENTITY, PREFIX, Reader, credential_names, merged, suspicious
from indexer.errors import ConfigError
from indexer.log import LogFormat, LogLevel
from indexer.redact import HIDDEN, keys_in, redact


DAY_S: Final = 86_400

Network = parsers.Network

#: What one caller may do where nothing is set.
_RATE: Final = Rate(10, 10)

_USDC_MINT: Final = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """What this process was told to do. Its `repr` shows no key."""

    database_url: str = "sqlite:///axiom.db"
    """Where payments are kept: `sqlite:///` and a path, absolute with a fourth slash; or the
    primary of a libSQL server, `libsql://`, `https://` or `http://` and its host.

    Default: a file in the working directory, so that a first start needs nothing.
    """

    database_token: str | None = None
    """What a libSQL server is asked with, such as a JWT. Default none."""

    database_replica_urls: tuple[str, ...] = ()
    """Replicas of the libSQL server that the API reads from; commas between.

    Default none: then the primary answers reads too.
    """

    rpc_urls: tuple[str, ...] = ("http://127.0.0.1:8899",)
    """HTTP endpoints of Solana RPC nodes, the preferred one first; commas between them.

    Default: a local validator, so that nothing reaches for the outside unasked. Production sets
    it, to two or more endpoints of different providers.
    """

    ws_urls: tuple[str, ...] = ()
    """WebSocket endpoints for notifications; commas between them.

    Default: each of `rpc_urls` with ws for http and, where the URL names a port, the next one:
    the convention of Solana's own tools (RPC on 8899, PubSub on 8900).
    """

    verify_quorum: int = 1
    """How many endpoints must give the same transaction before it is believed.

    Default 1: one provider is trusted. At most the number of `rpc_urls`; 2 of 3 survives a liar.
    """

    rpc_concurrency: int = 32
    """Requests under way at once to one endpoint, 1 … 1000.

    Default 32: enough to keep a node busy; more only lengthens its queue.
    """

    rpc_rate: int = 100
    """Requests a second to one endpoint, at most 100000; 0 sets no bound.

    Default 100: careful. Set it to what your provider's plan allows.
    """

    recipient: str | None = None
    """Wallet or vault that is paid when a payment names no other; base58.

    Default none: then every payment must name its recipient.
    """

    watch_key: str | None = None
    """One more key that may stand in payments' URLs, so that one subscription finds all; base58.

    Default none: one is made at the first start and kept in the database. Set it only to take
    over the key of a lost database: it is taken in when a process starts, unless it is known.
    Nobody needs a private key to it. `axiompay watch` lists, adds, rotates and retires them.
    """

    tokens: Mapping[str, str | None] = field(
        default_factory=lambda: {"SOL": None, "USDC": _USDC_MINT}
    )
    """What may be paid in: `SYMBOL=mint` with commas between; `SOL` alone is native SOL.

    Default: SOL, and USDC of the main network. Nothing else is accepted, so that a worthless
    look-alike never pays for anything.
    """

    expires_in_s: int = 900
    """Seconds until an unpaid payment expires, where it does not say so itself; 1 … 7 days.

    Default 900: long enough to find one's phone, short enough for a price to hold.
    """

    late_grace_s: int = DAY_S
    """Seconds after expiry in which late money still settles by itself; 0 … 90 days.

    Default 86400, one day. Money that comes later waits for a person.
    """

    host: str = "127.0.0.1"
    """Address to serve HTTP on.

    Default: this machine only. In a container, or behind a proxy elsewhere: 0.0.0.0.
    """

    port: int = 8000
    """TCP port to serve HTTP on, 1 … 65535. Default 8000."""

    public_url: str = ""
    """The URL under which the outside reaches the API; without a slash at the end.

    Default: http, `host` and `port`.
    """

    helius_webhook_secrets: tuple[str, ...] = ()
    """What Helius sends as `Authorization` with its webhooks; two at once, commas between.

    Default none: then the door for Helius is closed.
    """

    quicknode_webhook_secrets: tuple[str, ...] = ()
    """Security tokens of QuickNode streams, which sign what they send; commas between.

    Default none: then the door for QuickNode is closed.
    """

    helius_api_key: str | None = None
    """API key of Helius, with which a webhook's address list is kept as wanted.

    Default none: then nobody does. With it goes `helius_webhook_id`.
    """

    helius_webhook_id: str | None = None
    """The webhook at Helius whose address list is kept as wanted. Default none."""

    helius_api_url: str = "https://api.helius.xyz"
    """Where the API of Helius is. Default: where Helius has it."""

    paymob_base_url: str = "https://accept.paymob.com"
    """Where the API of Paymob is. Default: Egypt; other countries have hosts of their own."""

    paymob_secret_key: str | None = None
    """Secret key of the Paymob account: makes intentions. Default none: no payments by card."""

    paymob_public_key: str | None = None
    """Public key of the Paymob account; stands in the customer's checkout URL."""

    paymob_api_key: str | None = None
    """API key of the Paymob account: asks what became of an order whose callback was lost."""

    paymob_hmac_secret: tuple[str, ...] = ()
    """HMAC secret with which Paymob signs callbacks; two are valid at once, commas between."""

    paymob_integration_ids: tuple[int, ...] = ()
    """Integration ids of the payment methods that are offered, commas between."""

    paymob_owner: int | None = None
    """The account's own number, `owner` in callbacks.

    Callbacks are signed without separators between their fields: only with this number known can
    no order number be read into another one.
    """

    paymob_currency: Currency = Currency.EGP
    """In which currency cards are charged: EGP, SAR, AED or OMR. Default EGP."""

    webhook_signing_keys: tuple[str, ...] = ()
    """Keys from which the secrets of outgoing webhooks are derived; commas between, 32 characters
    at the least. The first one makes new secrets, the others are for rotation.

    Default none: one is made at the first start and kept in a file beside the database, named
    like it with `.key` behind.
    """

    webhook_private_networks: tuple[Network, ...] = ()
    """Networks that are not public to which webhooks may be sent all the same; commas between.

    Default none: whoever registers a receiver must not reach into the network of this machine.
    """

    webhook_retention_days: int = 90
    """Days for which webhooks that came in, and deliveries that ended, are kept; 1 … 3650.

    Default 90. Payments and events are kept for ever.
    """

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser, commas between; `*` alone is any.

    Default none: browsers then allow only pages of the API's own origin.
    """

    allowed_hosts: tuple[str, ...] = ()
    """Names under which the API may be called, commas between; `*` alone is any.

    Default: the host of `public_url` where that is set, and this machine's own names; any name
    where `host` is no loopback address and `public_url` is not set.
    """

    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies in front, whose `X-Forwarded-For` is believed; commas between.

    Default none: the caller is whoever connects. Behind a proxy it must be set, or all callers
    are one.
    """

    redis_url: str | None = None
    """Redis, in which processes share what may be lost: `redis://`, `rediss://` or `unix://`.

    Default none: each process counts and remembers for itself.
    """

    rate_limit: Rate = _RATE
    """Requests that one caller (an API key, else an address) may make, such as `10/10s`.

    Default 10 in any 10 seconds. A key may have a rate of its own (`axiompay keys create`).
    """

    rate_limits: Mapping[str, Rate] = field(default_factory=dict)
    """Rates of single calls, which are then counted apart: `getPayment=60/10s`, commas between.

    Named are the operations of the OpenAPI document. Default none but the doors for webhooks,
    which have a generous one.
    """

    streams_per_address: int = 1_000
    """Streams that one address may hold open, 1 … 10000. Default 1000."""

    upstreams: tuple[Profile, ...] = ()
    """Partners that may be called through `/api/proxy`: paths of profiles, or the name of one that
    is shipped (`amadeus`); commas between.

    Default none. What one is used with is set by variables that are named after it:
    `UPSTREAM_<NAME>_CLIENT_ID`, `…_CLIENT_SECRET`, `…_KEY`, and `…_BASE_URL` for another host.
    """

    upstream_secrets: Mapping[str, PartnerSecrets] = field(default_factory=dict)
    """What proves to each of them who we are, by the profile's name."""

    log_level: LogLevel = LogLevel.INFO
    """The least that is logged: debug, info, warning or error. Default info."""

    log_format: LogFormat = LogFormat.AUTO
    """console for people, json for machines. Default auto: console on a terminal, else json."""

    def __post_init__(self) -> None:
        """Fills in what follows from other fields."""
        if not self.ws_urls:
            object.__setattr__(self, "ws_urls", tuple(map(parsers.ws_url, self.rpc_urls)))
        if not self.public_url:
            object.__setattr__(self, "public_url", self._derived_url())

    def __repr__(self) -> str:
        shown = (f"{f.name}={_shown(f.name, getattr(self, f.name))}" for f in fields(self))
        return f"Settings({', '.join(shown)})"

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names under which the API may be called, without ports; None: any."""
        if self.allowed_hosts:
            return None if self.allowed_hosts == ("*",) else frozenset(self.allowed_hosts)
        if not self.has_public_url and not parsers.is_loopback(self.host):
            return None
        public = urlsplit(self.public_url).hostname or ""
        return frozenset({public, *parsers.THIS_MACHINE})

    @property
    def has_public_url(self) -> bool:
        """Whether it was said under which URL the outside reaches the API."""
        return self.public_url != self._derived_url()

    def _derived_url(self) -> str:
        return f"http://{parsers.authority(self.host)}:{self.port}"

    @property
    def takes_cards(self) -> bool:
        """Whether payments by card are configured."""
        return all(getattr(self, name) for name in _PAYMOB)

    @property
    def paymob_pins(self) -> Pins | None:
        """What callbacks of Paymob must be about; None: no payments by card.

        Raises:
            ConfigError: two integrations could be mistaken for one another.
        """
        if not self.takes_cards or self.paymob_owner is None:
            return None
        return Pins(
            integration_ids=frozenset(self.paymob_integration_ids),
            owner=self.paymob_owner,
            currency=self.paymob_currency,
        )

    def policy(self, watch_key: str, watch_keys: frozenset[str] = frozenset()) -> Policy:
        """What the deployment allows a payment to be.

        Args:
            watch_key: base58 of the key that stands beside the payment's reference.
            watch_keys: base58 of every one that there is.
        """
        return Policy(
            recipient=self.recipient,
            tokens=self.tokens,
            expires_in_s=self.expires_in_s,
            grace_s=self.late_grace_s,
            watch_key=watch_key,
            watch_keys=watch_keys,
            currency=self.paymob_currency if self.takes_cards else None,
        )

    def secret_values(self) -> Iterator[str]:
        """Every value that must never be printed; of a URL the parts that are keys."""
        for name in sorted(SECRETS):
            held: str | tuple[str, ...] | None = getattr(self, name)
            for value in (held,) if isinstance(held, str) else held or ():
                yield from keys_in(value) if _is_url(name) else (value,)
        for held_by in self.upstream_secrets.values():
            yield from filter(None, (held_by.client_secret, held_by.key))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *files: Path | None) -> Self:
        """The settings that the environment and files add up to.

        Args:
            environ: the process's environment, which wins over every file.
            files: plain or encrypted (`.age`), the weakest first; None is no file.

        Raises:
            ConfigError: with one sentence for each thing that is wrong.
        """
        reader = Reader(merged(environ, *files))
        values: dict[str, Any] = {}
        for name, parse in PARSERS.items():
            value = reader.take(name, parse, secret=name in SECRETS)
            if value is not None:
                values[name] = value
        values["upstreams"] = upstreams.read(values.get("upstreams", ()), reader)
        values["upstream_secrets"] = upstreams.secrets_of(values["upstreams"], reader)
        problems = [*reader.problems, *_contradictions(values, reader.faulty)]
        if problems:
            raise ConfigError(tuple(problems))
        settings = cls(**values)
        _ = settings.paymob_pins  # raises what is wrong with them now, not when they are needed
        return settings


PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "database_url": parsers.database_url,
    "database_token": parsers.token,
    "database_replica_urls": parsers.server_urls,
    "rpc_urls": parsers.urls("http", "https"),
    "ws_urls": parsers.urls("ws", "wss"),
    "verify_quorum": parsers.integer(1, parsers.ITEMS_MAX),
    "rpc_concurrency": parsers.integer(1, 1_000),
    "rpc_rate": parsers.integer(0, 100_000),
    "recipient": parsers.key,
    "watch_key": parsers.key,
    "tokens": parsers.tokens,
    "expires_in_s": parsers.integer(EXPIRES_IN_S_MIN, EXPIRES_IN_S_MAX),
    "late_grace_s": parsers.integer(0, 90 * DAY_S),
    "host": parsers.host,
    "port": parsers.integer(1, parsers.PORT_MAX),
    "public_url": parsers.base_url,
    "helius_webhook_secrets": parsers.secrets,
    "quicknode_webhook_secrets": parsers.secrets,
    "helius_api_key": parsers.secret,
    "helius_webhook_id": parsers.word,
    "helius_api_url": parsers.secure_base_url,
    "paymob_base_url": parsers.secure_base_url,
    "paymob_secret_key": parsers.secret,
    "paymob_public_key": parsers.word,
    "paymob_api_key": parsers.secret,
    "paymob_hmac_secret": parsers.secrets,
    "paymob_integration_ids": parsers.integers(1, 10**12),
    "paymob_owner": parsers.integer(1, 10**12),
    "paymob_currency": parsers.upper_choice(Currency),
    "webhook_signing_keys": parsers.signing_keys,
    "webhook_private_networks": parsers.networks,
    "webhook_retention_days": parsers.integer(1, 3_650),
    "cors_origins": parsers.origins,
    "allowed_hosts": parsers.hosts,
    "trusted_proxies": parsers.networks,
    "redis_url": parsers.redis_url,
    "rate_limit": parse_rate,
    "rate_limits": parsers.rates,
    "streams_per_address": parsers.integer(1, 10_000),
    "upstreams": parsers.paths,
    "log_level": parsers.choice(LogLevel),
    "log_format": parsers.choice(LogFormat),
}

#: Fields whose value may carry a key, and that may therefore be read from a file.
SECRETS: Final = frozenset(
    {
        "database_token",
        "rpc_urls",
        "ws_urls",
        "helius_webhook_secrets",
        "quicknode_webhook_secrets",
        "helius_api_key",
        "paymob_secret_key",
        "paymob_api_key",
        "paymob_hmac_secret",
        "webhook_signing_keys",
        "redis_url",
    }
)

#: Without any one of these there are no payments by card.
_PAYMOB: Final = (
    "paymob_secret_key",
    "paymob_public_key",
    "paymob_api_key",
    "paymob_hmac_secret",
    "paymob_integration_ids",
    "paymob_owner",
)


def _is_url(name: str) -> bool:
    return name.endswith(("_url", "_urls"))


def _shown(name: str, value: object) -> str:
    """A setting fit to be printed: of URLs the host, of other secrets whether they are there."""
    if name in SECRETS and not _is_url(name):
        return HIDDEN if value else repr(value)
    if name == "upstreams":
        return repr(tuple(profile.name for profile in cast("tuple[Profile, ...]", value)))
    return redact(repr(value))


def variable_names() -> frozenset[str]:
    """Every variable that is read."""
    names = {PREFIX + name.upper() for name in (*PARSERS, IDENTITY)}
    return frozenset(names | {f"{PREFIX}{name.upper()}_FILE" for name in (*SECRETS, IDENTITY)})


def may_hold_secret(variable: str) -> bool:
    """Whether what a variable holds must be kept from others; not what its `_FILE` names."""
    field_ = variable.removeprefix(PREFIX).lower()
    return field_ == IDENTITY or field_ in SECRETS or upstreams.is_secret(field_)


def unknown_variables(environ: Mapping[str, str], *files: Path | None) -> tuple[str, ...]:
    """A warning for each `AXIOM_` variable that is no setting: most likely it is misspelt.

    Raises:
        ConfigError: a file cannot be read.
    """
    variables = merged(environ, *files)
    given = {name for name in variables if name.startswith(PREFIX)}
    given |= credential_names(variables)
    return suspicious({name for name in given if not _is_of_partner(name)}, variable_names())


def _is_of_partner(variable: str) -> bool:
    field_ = variable.removeprefix(PREFIX).lower()
    of_file = field_.removesuffix("_file")
    return upstreams.OF_PARTNERS.fullmatch(field_) is not None or upstreams.is_secret(of_file)


def _contradictions(values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
    """What is wrong between settings that are each right by themselves."""
    problems = []
    rpc_urls = () if "rpc_urls" in faulty else values.get("rpc_urls", Settings().rpc_urls)
    if rpc_urls and values.get("verify_quorum", 1) > len(rpc_urls):
        problems.append(
            f"{PREFIX}VERIFY_QUORUM: {values['verify_quorum']} endpoints cannot agree where "
            f"{PREFIX}RPC_URLS names {len(rpc_urls)}"
        )
    if "ws_urls" not in values:
        try:
            tuple(map(parsers.ws_url, rpc_urls))
        except ValueError as error:
            problems.append(f"{PREFIX}RPC_URLS: {error}")
    problems += _halves(values, faulty)
    problems += _of_server(values, faulty)
    watch_key = values.get("watch_key")
    if watch_key is not None and watch_key == values.get("recipient"):
        problems.append(
            f"{PREFIX}WATCH_KEY: must not be the recipient, whose own business it would find"
        )
    return problems


def _of_server(values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
    """What must and must not be set where the database is a server, or a file."""
    if "database_url" in faulty:
        return []
    if values.get("database_url", Settings().database_url).startswith("sqlite:"):
        return [
            f"{PREFIX}{name.upper()}: is for a libSQL server, and {PREFIX}DATABASE_URL is a file"
            for name in ("database_token", "database_replica_urls")
            if name in values
        ]
    if "webhook_signing_keys" in values or "webhook_signing_keys" in faulty:
        return []
    problem = "there is no folder beside it to keep a key in that all processes read"
    return [f"{PREFIX}WEBHOOK_SIGNING_KEYS: must be set where the database is a server: {problem}"]


def _halves(values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
    """What is set of things that only work together."""
    problems = []
    for together, purpose in (
        (_PAYMOB, "payments by card"),
        (("helius_api_key", "helius_webhook_id"), "keeping the webhook at Helius"),
    ):
        missing = [name for name in together if name not in values and name not in faulty]
        if missing and any(name in values for name in together):
            named = ", ".join(f"{PREFIX}{name.upper()}" for name in missing)
            problems.append(f"{named}: missing; {purpose} needs all or nothing of it")
    return problems
