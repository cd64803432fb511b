"""Connections that lead only to where they may, whatever a name server says.

A name is looked up when a connection is made, every address of the answer is judged, and the
connection goes to one of those that were judged: there is no second look-up in between, and so
nothing for a name server to gain that says the right thing first and another one afterwards.

    https://   public addresses, and those in the networks that are listed
    http://    only those in the networks: elsewhere everybody on the way could read along

Proxies and `.netrc` of the environment are not used, cookies not kept, answers not unpacked. Not
to follow redirects is up to whoever sends.
"""

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from indexer.core.addresses import Address, Networks, is_listed, is_public, literal, may_reach
from indexer.errors import SourceError, SourceRejected, SourceUnavailable
from indexer.sources.names import Lookup


#: One header of an answer, in bytes; and how many there may be.
HEADER_BYTES_MAX: Final = 4096
HEADERS_MAX: Final = 64

#: Addresses of one name that are tried.
ADDRESSES_MAX: Final = 8
#: Idle connections are closed by us before most load balancers do it.
KEEPALIVE_S: Final = 30.0


def session(
    networks: Networks,
    scheme: str,
    *,
    lookup: Lookup,
    tls: ssl.SSLContext | None,
    connect_timeout_s: float,
    connections_per_host_max: int,
    headers: Mapping[str, str],
    keeps_connections: bool = True,
) -> aiohttp.ClientSession:
    """A guarded session for one scheme, with no limit of time but that of connecting.

    Args:
        networks: what is not public and may be reached all the same.
        scheme: `https` or `http`, of every URL that is asked for.
        lookup: addresses of a name.
        tls: whose certificates are accepted; None: those whom the system trusts.
        connect_timeout_s: for a connection to one address.
        connections_per_host_max: there is no bound over all hosts: a slow one would use it up.
        headers: of every request.
        keeps_connections: False opens a new one for each request: on one that was kept, nobody
            can say whether the server had closed it before or after it read a request.
    """
    connector = aiohttp.TCPConnector(
        resolver=Guard(lookup, networks, scheme),
        use_dns_cache=False,
        socket_factory=partial(guarded_socket, networks=networks, scheme=scheme),
        ssl=tls if tls is not None else True,
        limit=0,
        limit_per_host=connections_per_host_max,
        **({"keepalive_timeout": KEEPALIVE_S} if keeps_connections else {"force_close": True}),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        headers=headers,
        auto_decompress=False,
        trust_env=False,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        max_headers=HEADERS_MAX,
        trace_configs=[_reuse_told()],
    )


def told() -> SimpleNamespace:
    """What a request is told about its connection, by `trace_request_ctx`: `is_reused`."""
    return SimpleNamespace(is_reused=False)


def was_closed_before(error: Exception, context: SimpleNamespace) -> bool:
    """Whether a kept connection may have been closed before the request was sent on it.

    That the host had closed it shows only when it is used.
    """
    if isinstance(error, aiohttp.ClientConnectorError) or not context.is_reused:
        return False
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def wrapped(error: Exception, *, timeout_s: float, connect_timeout_s: float) -> SourceError:
    """Why there is no answer, in words that hold no path, no query and no address."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            verify = getattr(cause, "verify_message", "")
            return SourceUnavailable(f"its certificate is not accepted: {verify or 'invalid'}")
        case aiohttp.ClientConnectorSSLError():
            return SourceUnavailable("it does not speak TLS as we do")
        case aiohttp.ConnectionTimeoutError():
            return SourceUnavailable(f"no connection within {connect_timeout_s:g} s")
        case TimeoutError():
            return SourceUnavailable(f"no answer within {timeout_s:g} s")
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


class Guard(AbstractResolver):
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
        judge(addresses, self._networks, self._scheme)
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


def judge(addresses: Sequence[Address], networks: Networks, scheme: str) -> None:
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


def guarded_socket(info: Any, *, networks: Networks, scheme: str) -> socket.socket:
    """A socket for one address: the last place where it can be judged, however it came there.

    Raises:
        SourceRejected: it must not be reached.
    """
    family, kind, proto, _, address = info
    found = literal(str(address[0]))
    if found is None:
        raise SourceRejected("its address is not public")
    judge([found], networks, scheme)
    return socket.socket(family=family, type=kind, proto=proto)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _reuse_told() -> aiohttp.TraceConfig:
    """Says on which connection a request goes: a new one, or one that was kept."""
    trace = aiohttp.TraceConfig()

    async def reused(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
        context.trace_request_ctx.is_reused = True

    trace.on_connection_reuseconn.append(reused)
    return trace
