"""The webhooks API of Helius: read one webhook, replace its addresses, switch it on.

    GET    /v0/webhooks/{id}    the webhook
    PUT    /v0/webhooks/{id}    all of it anew: what is left out is gone
    PATCH  /v0/webhooks/{id}    {"active": true}

There is no call that adds an address, so a change is a reading and a replacement. The API key
goes into the query, where the API wants it, and nowhere else: no message holds a URL, or
anything that a server echoed of it.

Source: Helius, OpenAPI `webhooks.yaml` and "Toggle Webhook"; its Rust and TypeScript SDKs for
the fields of an edit.
"""

import asyncio
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from indexer.errors import InvariantError, SourceRejected, SourceUnavailable
from indexer.sources import web, wire


#: Addresses that one webhook can have.
ADDRESSES_MAX: Final = 100_000
#: Seconds for one call. A list of 100,000 addresses has five megabytes.
TIMEOUT_S: Final = 30.0
#: A longer answer is refused.
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024

#: What an edit takes of what a reading gives. The rest is theirs to say.
_EDITABLE: Final = (
    "webhookURL",
    "transactionTypes",
    "accountAddressOwners",
    "webhookType",
    "authHeader",
    "txnStatus",
    "encoding",
)

#: Characters of their reason for a refusal that are repeated in ours.
_WORDS_MAX: Final = 200


class _Answer(msgspec.Struct):
    webhookURL: str  # noqa: N815 - theirs
    webhookID: str | None = None  # noqa: N815 - theirs
    accountAddresses: list[str] | None = None  # noqa: N815 - theirs
    active: bool | None = None
    authHeader: str | None = None  # noqa: N815 - theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook as Helius has it.

    Attributes:
        id: theirs.
        addresses: what it watches.
        active: whether it sends anything. Helius switches one off whose receiver fails often.
        auth_header: what it sends as `Authorization`; None when Helius does not say.
        fields: all other fields that an edit has to repeat.
    """

    id: str
    addresses: frozenset[str]
    active: bool
    auth_header: str | None
    fields: Mapping[str, Any]

    def __repr__(self) -> str:
        """Without the secret among the fields."""
        return f"Webhook(id={self.id!r}, addresses={len(self.addresses)}, active={self.active})"


class Helius:
    """The API, with one key. An async context manager: its connections live inside."""

    def __init__(self, base_url: str, api_key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._base = URL(base_url)
        self._host = wire.logged_url(base_url)
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = web.session()
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

    async def read(self, webhook_id: str) -> Webhook:
        """The webhook.

        Raises:
            SourceUnavailable: Helius does not answer, or makes no sense.
            SourceRejected: the key is not accepted, or there is no such webhook.
        """
        return self._webhook(webhook_id, await self._call("GET", webhook_id))

    async def replace(
        self, webhook: Webhook, addresses: Collection[str], *, auth_header: str | None = None
    ) -> Webhook:
        """Has it watch these addresses and no others; everything else stays as it was read.

        Args:
            webhook: as it was read.
            addresses: at most `ADDRESSES_MAX`.
            auth_header: what it sends as `Authorization` from now on; None for the same.

        Raises:
            SourceUnavailable: Helius does not answer; whether it was done is unknown.
            SourceRejected: the key is not accepted, there is no such webhook, or Helius does
                not want it so.
        """
        if len(addresses) > ADDRESSES_MAX:
            raise InvariantError(f"{len(addresses)} addresses for one webhook")
        body = {**webhook.fields, "accountAddresses": sorted(addresses)}
        if auth_header is not None:
            body["authHeader"] = auth_header
        return self._webhook(webhook.id, await self._call("PUT", webhook.id, body))

    async def switch_on(self, webhook_id: str) -> None:
        """Has it send again.

        Raises:
            SourceUnavailable: Helius does not answer; whether it was done is unknown.
            SourceRejected: the key is not accepted, or there is no such webhook.
        """
        await self._call("PATCH", webhook_id, {"active": True})

    # ------------------------------------------------------------------------------ the wire

    async def _call(
        self, method: str, webhook_id: str, body: Mapping[str, Any] | None = None
    ) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(method, webhook_id, body)
        except TimeoutError:
            said = f"no answer within {self._timeout_s:g} s"
            raise SourceUnavailable(self._note(method, said)) from None
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind and the system's word: the text of some of these holds the URL.
            reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            said = f"{type(error).__name__}{reason}"
            raise SourceUnavailable(self._note(method, said)) from None

    async def _send(self, method: str, webhook_id: str, body: Mapping[str, Any] | None) -> bytes:
        if self._session is None:
            raise InvariantError("Helius is used outside of its `async with`")
        path = f"{self._base.path.rstrip('/')}/v0/webhooks/{quote(webhook_id, safe='')}"
        url = self._base.with_path(path, encoded=True).with_query({"api-key": self._api_key})
        # A file is sent piece by piece, whatever its size.
        data = None if body is None else io.BytesIO(msgspec.json.encode(body))
        headers = {"Content-Type": "application/json"} if data is not None else {}
        async with self._session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as response:
            answer = await web.whole_body(response, ANSWER_BYTES_MAX)
            if answer is None:
                said = f"an answer of more than {ANSWER_BYTES_MAX} bytes"
                raise SourceUnavailable(self._note(method, said))
            if 200 <= response.status < 300:
                return answer
            pause_s = web.pause_s(response)
            secrets = [self._api_key, *filter(None, [(body or {}).get("authHeader")])]
            raise self._refused(
                method, webhook_id, response.status, answer, pause_s=pause_s, secrets=secrets
            )

    def _refused(
        self,
        method: str,
        webhook_id: str,
        status: int,
        answer: bytes,
        *,
        pause_s: float | None,
        secrets: Iterable[str],
    ) -> SourceRejected | SourceUnavailable:
        """What a status other than 2xx means."""
        match status:
            case 401 | 403:
                said = f"HTTP {status}: AXIOM_HELIUS_API_KEY is not accepted"
                return SourceRejected(self._note(method, said), code=status)
            case 404:
                said = f"HTTP 404: this account has no webhook {webhook_id}; see "
                said += "AXIOM_HELIUS_WEBHOOK_ID"
                return SourceRejected(self._note(method, said), code=status)
            case 408 | 429:
                return SourceUnavailable(
                    self._note(method, f"HTTP {status}"), retry_after_s=pause_s, code=status
                )
            case _ if status >= 500:
                return SourceUnavailable(
                    self._note(method, f"HTTP {status}"), retry_after_s=pause_s, code=status
                )
        said = f"HTTP {status}{_words(answer, secrets)}"
        return SourceRejected(self._note(method, said), code=status)

    def _webhook(self, webhook_id: str, answer: bytes) -> Webhook:
        try:
            fields = msgspec.json.decode(answer, type=dict[str, Any])
            known = msgspec.convert(fields, _Answer)
        except (*wire.UNREADABLE, msgspec.ValidationError):
            raise SourceUnavailable(self._note("GET", "its answer is no webhook")) from None
        if known.webhookID not in {None, webhook_id}:
            raise SourceUnavailable(self._note("GET", "its answer is another webhook"))
        return Webhook(
            id=webhook_id,
            addresses=frozenset(known.accountAddresses or ()),
            active=known.active is not False,
            auth_header=known.authHeader or None,
            fields={name: fields[name] for name in _EDITABLE if name in fields},
        )

    def _note(self, method: str, what: str) -> str:
        return f"{method} webhook at {self._host}: {what}"


def _words(answer: bytes, secrets: Iterable[str]) -> str:
    """Why they refuse, as they say it: `error` or `message` of their answer, fit to be logged."""
    try:
        fields = msgspec.json.decode(answer, type=dict[str, Any])
    except wire.UNREADABLE:
        return ""
    said = fields.get("error", fields.get("message"))
    said = said.get("message") if isinstance(said, dict) else said
    if not isinstance(said, str):
        return ""
    for secret in secrets:  # before it is cut: half a secret would not be found
        said = said.replace(secret, "…").replace(quote(secret, safe=""), "…")
    return f": {said[:_WORDS_MAX]!r}"
