"""Posts to URLs that others chose, and never to where they must not lead.

Who registers a receiver names any host he likes, and his name server answers what it likes, each
time anew. So a name is looked up when a connection is made, every address of the answer is
judged, and the connection goes to one of those that were judged: there is no second look-up in
between. Whatever else a host could do to us has a limit: time, bytes, headers, connections.

    https://   public addresses, and those in `private_networks`
    http://    only those in `private_networks`: elsewhere everybody on the way could read along

Redirects are not followed, proxies and `.netrc` of the environment not used, cookies not kept,
answers not unpacked.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from indexer.core import receiver
from indexer.core.addresses import Address, Networks, is_listed, is_public, literal, may_reach
from indexer.errors import (
    InvalidInput,
    InvariantError,
    SourceError,
    SourceRejected,
    SourceUnavailable,
)
from indexer.sources import wire
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

#: One header of an answer, in bytes; and how many there may be.
HEADER_BYTES_MAX: Final = 4096
HEADERS_MAX: Final = 64

#: Connections to one host, where several receivers may be: more than all of them use. There is no
#: bound over all hosts: a slow one would use it up.
CONNECTIONS_PER_HOST_MAX: Final = 1_000
#: Addresses of one name that are tried.
ADDRESSES_MAX: Final = 8
#: Idle connections are closed by us before most load balancers do it.
KEEPALIVE_S: Final = 30.0

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
            raise self._wrapped(error) from error

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
            _judge([address], self._networks, target.scheme)
        return target

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=_Guard(self._lookup, self._networks, scheme),
            use_dns_cache=False,
            socket_factory=partial(_socket, networks=self._networks, scheme=scheme),
            ssl=self._tls if self._tls is not None else True,
            limit=0,
            limit_per_host=CONNECTIONS_PER_HOST_MAX,
            keepalive_timeout=KEEPALIVE_S,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_timeout_s),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            trace_configs=[_reuse_told()],
        )

    async def _post(
        self,
        session: aiohttp.ClientSession,
        target: URL,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Reply:
        told = SimpleNamespace(is_reused=False)
        try:
            return await self._send(session, target, headers, body, told)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # That the host had closed a kept connection shows only when it is used.
            if isinstance(error, aiohttp.ClientConnectorError) or not told.is_reused:
                raise
        return await self._send(session, target, headers, body, SimpleNamespace())

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

    def _wrapped(self, error: Exception) -> SourceError:
        """Why there is no answer, in words that hold no path, no query and no address."""
        match error:
            case aiohttp.ClientConnectorCertificateError():
                cause = error.certificate_error
                verify = getattr(cause, "verify_message", "")
                return SourceUnavailable(f"its certificate is not accepted: {verify or 'invalid'}")
            case aiohttp.ClientConnectorSSLError():
                return SourceUnavailable("it does not speak TLS as we do")
            case aiohttp.ConnectionTimeoutError():
                return SourceUnavailable(
                    f"no connection within {self._limits.connect_timeout_s:g} s"
                )
            case TimeoutError():
                return SourceUnavailable(f"no answer within {self._limits.timeout_s:g} s")
            case aiohttp.ClientConnectorError(errno=number):
                # The system's own word for the number: the library's text holds the address.
                reason = os.strerror(number) if number else "no address of it answers"
                return SourceUnavailable(f"no connection: {reason}")
            case aiohttp.InvalidURL():
                return SourceRejected("its URL is no URL")
            case aiohttp.ClientResponseError():
                return SourceUnavailable("its answer is no HTTP, or its headers are too large")
            case _:
                return SourceUnavailable("the connection was closed before an answer")


class _Guard(AbstractResolver):
    """Gives out only addresses that may be reached."""

    def __init__(self, lookup: Lookup, networks: Networks, scheme: str) -> None:
        self._lookup = lookup
        self._networks = networks
        self._scheme = scheme

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # any will do
    ) -> list[ResolveResult]:
        """The host's addresses.

        Raises:
            SourceUnavailable: there are none.
            SourceRejected: one of them must not be reached: then the others are not trusted.
        """
        addresses = await self._lookup(host)
        if not addresses:
            raise SourceUnavailable("its name leads to no address")
        _judge(addresses, self._networks, self._scheme)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=_family(address),
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses[:ADDRESSES_MAX]
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _judge(addresses: Sequence[Address], networks: Networks, scheme: str) -> None:
    """Accepts a host's addresses.

    Raises:
        SourceRejected: one of them must not be reached.
    """
    if not all(may_reach(address, networks) for address in addresses):
        raise SourceRejected("its address is not public")
    if scheme == "http" and not all(
        is_listed(address, networks) and not is_public(address) for address in addresses
    ):
        raise SourceRejected("its URL must begin with https://: its address is public")


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _socket(info: Any, *, networks: Networks, scheme: str) -> socket.socket:
    """A socket for one address: the last place where it can be judged, however it came there."""
    family, kind, proto, _, address = info
    found = literal(str(address[0]))
    if found is None:
        raise SourceRejected("its address is not public")
    _judge([found], networks, scheme)
    return socket.socket(family=family, type=kind, proto=proto)


def _reuse_told() -> aiohttp.TraceConfig:
    """Says on which connection a request goes: a new one, or one that was kept."""
    trace = aiohttp.TraceConfig()

    async def reused(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
        context.trace_request_ctx.is_reused = True

    trace.on_connection_reuseconn.append(reused)
    return trace
