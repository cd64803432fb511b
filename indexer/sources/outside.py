"""Posts to URLs that others chose, and never to where they must not lead.

Who registers a receiver names any host he likes, and his name server answers what it likes, each
time anew: `indexer.sources.guard` judges where a connection leads. Whatever else a host could do
to us has a limit: time, bytes, headers, connections. Redirects are not followed, answers not
unpacked.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Final, Protocol, Self

import aiohttp
from yarl import URL

from indexer.core import receiver
from indexer.core.addresses import Networks, literal
from indexer.errors import InvalidInput, InvariantError, SourceError, SourceRejected
from indexer.sources import guard, wire
from indexer.sources.names import Lookup, Names


#: From looking up the name to the end of the answer's headers, in seconds.
TIMEOUT_S: Final = 15.0
#: For a connection to one address, in seconds.
CONNECT_TIMEOUT_S: Final = 5.0
#: For the answer's body, in seconds: the status alone says whether it was received.
BODY_TIMEOUT_S: Final = 2.0

#: Of an answer's body, what is kept, in bytes.
BODY_BYTES_KEPT: Final = 1024
#: What is read of it, so that the connection can be used again; a longer one ends it.
BODY_BYTES_READ_MAX: Final = 64 * 1024

#: Connections to one host, where several receivers may be: more than all of them use. There is no
#: bound over all hosts: a slow one would use it up.
CONNECTIONS_PER_HOST_MAX: Final = 1_000
#: The longest pause that a receiver can ask for, in seconds.
RETRY_AFTER_S_MAX: Final = 24 * 60 * 60.0

_HEADERS: Final = {"User-Agent": "axiompay", "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a receiver answered.

    Attributes:
        status: as it came: not every one is success, and 3xx is not followed.
        body: the beginning of it, at most `BODY_BYTES_KEPT`, as it came.
        retry_after_s: what it asked us to wait, at most `RETRY_AFTER_S_MAX`; None: nothing.
    """

    status: int
    body: bytes = b""
    retry_after_s: float | None = None


class Sender(Protocol):
    """Posts a body to a URL."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer, whatever its status.

        Raises:
            SourceUnavailable: there was none; it may have been received all the same.
            SourceRejected: nothing is sent there.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long one waits for a receiver, in seconds."""

    timeout_s: float = TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    body_timeout_s: float = BODY_TIMEOUT_S


class Outside:
    """The guarded way out. An async context manager: its connections live inside."""

    def __init__(
        self,
        private_networks: Networks = (),
        *,
        limits: Limits | None = None,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing is opened before `async with`.

        Args:
            private_networks: what is not public and may be reached all the same.
            limits: of time.
            lookup: addresses of a name; by default the system's resolver.
            tls: whose certificates are accepted; by default those whom the system trusts.
        """
        self._networks = tuple(private_networks)
        self._limits = limits or Limits()
        self._lookup = lookup or Names().addresses
        self._tls = tls
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        self._sessions = {scheme: self._session(scheme) for scheme in ("https", "http")}
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Posts, and waits for the answer.

        The sentences of its errors hold no path and no query, where receivers have their keys,
        and no address, so that nobody explores a network with them.

        Raises:
            SourceUnavailable: no answer, and why.
            SourceRejected: nothing is sent to this URL, and why.
        """
        target = self._checked(url)
        session = self._sessions.get(target.scheme)
        if session is None:
            raise InvariantError("Outside is used outside of its `async with`")
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._post(session, target, headers, body)
        except SourceError:
            raise
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError among them
            limits = self._limits
            raise guard.wrapped(
                error, timeout_s=limits.timeout_s, connect_timeout_s=limits.connect_timeout_s
            ) from error

    def _checked(self, url: str) -> URL:
        """The URL as one to be called; an address in it is judged here."""
        try:
            receiver.check_url(url, self._networks)
            target = URL(url, encoded=True)
            address = literal(target.host or "")
        except (InvalidInput, ValueError) as error:
            said = error.message if isinstance(error, InvalidInput) else "is no URL"
            raise SourceRejected(f"its URL {said}") from error
        if address is not None:
            guard.judge([address], self._networks, target.scheme)
        return target

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        return guard.session(
            self._networks,
            scheme,
            lookup=self._lookup,
            tls=self._tls,
            connect_timeout_s=self._limits.connect_timeout_s,
            connections_per_host_max=CONNECTIONS_PER_HOST_MAX,
            headers=_HEADERS,
        )

    async def _post(
        self,
        session: aiohttp.ClientSession,
        target: URL,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        told = guard.told()
        try:
            return await self._send(session, target, headers, body, told)
        except aiohttp.ClientError as error:
            if not guard.was_closed_before(error, told):
                raise
        return await self._send(session, target, headers, body, guard.told())

    async def _send(
        self,
        session: aiohttp.ClientSession,
        target: URL,
        headers: Mapping[str, str],
        body: bytes,
        told: SimpleNamespace,
    ) -> Reply:
        async with session.post(
            target, data=body, headers=headers, allow_redirects=False, trace_request_ctx=told
        ) as response:
            said = response.headers
            pause_s = wire.retry_after_s(
                said.get("Retry-After"), said.get("Date"), longest_s=RETRY_AFTER_S_MAX
            )
            kept = await self._beginning(response)
            return Reply(status=response.status, body=kept, retry_after_s=pause_s)

    async def _beginning(self, response: aiohttp.ClientResponse) -> bytes:
        """The body's beginning. Whatever goes wrong with it, the status has been said."""
        kept, size = b"", 0
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while chunk := await response.content.readany():
                    kept += chunk[: BODY_BYTES_KEPT - len(kept)]
                    size += len(chunk)
                    if size > BODY_BYTES_READ_MAX:
                        response.close()
                        break
        except (TimeoutError, aiohttp.ClientError, OSError):
            response.close()
        return kept
