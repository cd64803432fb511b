"""One request to a partner's API, by the guarded way out.

A partner is chosen by the operator and not by a stranger; but its name server, its servers and
whoever stands between may be in other hands tomorrow. So its answer is bounded before it is
believed: in time from the first look-up to the last byte, in bytes as they come, and in bytes as
they are once unpacked. A redirect is no answer: what is to be asked for stands in the profile.

Only `gzip` is unpacked, here and in small steps: a bomb ends at the bound and not in memory.
"""

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from indexer.core.addresses import Networks
from indexer.errors import InvariantError, SourceError, SourceUnavailable
from indexer.sources import guard, wire
from indexer.sources.names import Lookup, Names


#: For a connection to one address, in seconds.
CONNECT_TIMEOUT_S: Final = 2.0
#: Connections to one partner at once; more requests wait for one, within their time.
CONNECTIONS_MAX: Final = 64
#: What is unpacked at a time, in bytes.
PIECE_BYTES: Final = 64 * 1024

_GZIP: Final = 16 + zlib.MAX_WBITS
_HEADERS: Final = {"User-Agent": "axiompay", "Accept-Encoding": "gzip"}


class Why(StrEnum):
    """Why there is no answer."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """By us: its address is one that must not be reached."""
    REDIRECT = "redirect"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"


class NoAnswer(SourceUnavailable):
    """A partner gave none that can be used; it may have done what was asked for all the same.

    Attributes:
        why: what kind of failure it was.
    """

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a partner answered.

    Attributes:
        status: as it came, not 3xx.
        headers: by their names in lower case; of several of one name, the first.
        body: unpacked.
        retry_after_s: what it asked us to wait, in seconds; None: nothing.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after_s: float | None = None


class Partner:
    """The way to one partner. An async context manager: its connections live inside."""

    def __init__(
        self,
        base_url: str,
        private_networks: Networks = (),
        *,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        """Nothing is opened before `async with`.

        Args:
            base_url: what every URL that is asked for begins with.
            private_networks: what is not public and may be reached all the same.
            lookup: addresses of a name; by default the system's resolver.
            tls: whose certificates are accepted; by default those whom the system trusts.
            connect_timeout_s: for a connection to one address.
        """
        self._origin = URL(base_url, encoded=True).origin()
        self._networks = tuple(private_networks)
        self._lookup = lookup or Names().addresses
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._kept = self._session(keeps_connections=True)
        self._fresh = self._session(keeps_connections=False)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sessions, self._kept, self._fresh = (self._kept, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        timeout_s: float,
        bytes_max: int,
        is_repeatable: bool,
    ) -> Answer:
        """Asks, and waits for the whole answer.

        The sentences of its errors hold no path and no query, where customers' data may stand,
        and no address.

        Args:
            method: of HTTP.
            url: as it is to be sent; not changed any more.
            headers: all that are to be sent, beside those of every client.
            body: None: none.
            timeout_s: from now to the last byte of the answer.
            bytes_max: of the answer's body, packed and unpacked.
            is_repeatable: it may arrive twice, and so go on a connection that was kept.

        Raises:
            NoAnswer: none that can be used, and why.
        """
        target = self._target(url)
        session = self._kept if is_repeatable else self._fresh
        if session is None:
            raise InvariantError("Partner is used outside of its `async with`")
        try:
            async with asyncio.timeout(timeout_s):
                context = guard.told()
                try:
                    return await self._send(
                        session, method, target, headers, body, bytes_max, context
                    )
                except aiohttp.ClientError as error:
                    if not guard.was_closed_before(error, context):
                        raise
                return await self._send(
                    session, method, target, headers, body, bytes_max, guard.told()
                )
        except NoAnswer:
            raise
        except (SourceError, aiohttp.ClientError, OSError) as error:  # TimeoutError among them
            raise self._wrapped(error, timeout_s) from error

    def _target(self, url: str) -> URL:
        """The URL; whoever made it has made it for this partner."""
        try:
            target = URL(url, encoded=True)
            is_ours = target.origin() == self._origin
        except ValueError as error:
            raise InvariantError("what a partner is asked for is no URL") from error
        if not is_ours:
            raise InvariantError("what a partner is asked for is not at the partner")
        return target

    def _session(self, *, keeps_connections: bool) -> aiohttp.ClientSession:
        return guard.session(
            self._networks,
            self._origin.scheme,
            lookup=self._lookup,
            tls=self._tls,
            connect_timeout_s=self._connect_timeout_s,
            connections_per_host_max=CONNECTIONS_MAX,
            headers=_HEADERS,
            keeps_connections=keeps_connections,
        )

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        target: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        bytes_max: int,
        context: object,
    ) -> Answer:
        async with session.request(
            method,
            target,
            data=body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=context,
        ) as response:
            _refuse_unless_final(response)
            said = response.headers
            return Answer(
                status=response.status,
                headers={name.lower(): said[name] for name in said},
                body=await _whole_body(response, bytes_max),
                retry_after_s=wire.retry_after_s(said.get("Retry-After"), said.get("Date")),
            )

    def _wrapped(self, error: Exception, timeout_s: float) -> NoAnswer:
        match error:
            case SourceUnavailable():  # by the look-up of its name
                return NoAnswer(Why.UNREACHABLE, str(error))
            case SourceError():
                return NoAnswer(Why.REFUSED, str(error))
            case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
                why = Why.UNREACHABLE
            case TimeoutError():
                why = Why.TIMEOUT
            case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
                why = Why.UNREADABLE
            case _:
                why = Why.UNREACHABLE
        said = guard.wrapped(error, timeout_s=timeout_s, connect_timeout_s=self._connect_timeout_s)
        return NoAnswer(why, str(said))


def _refuse_unless_final(response: aiohttp.ClientResponse) -> None:
    """Passes what is an answer, good or bad.

    Raises:
        NoAnswer: it is a redirect, or a change to another protocol.
    """
    if response.status >= 400 or 200 <= response.status < 300:
        return
    response.close()
    why = Why.REDIRECT if response.status >= 300 else Why.UNREADABLE
    raise NoAnswer(why, f"HTTP {response.status}, which is not followed")


async def _whole_body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """All of the body, unpacked.

    Raises:
        NoAnswer: it is longer than that, packed as nobody asked for, or damaged.
    """
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in {"identity", "gzip", "x-gzip"}:
        response.close()
        raise NoAnswer(Why.UNREADABLE, "its answer is packed in a way that was not asked for")
    unpacked = _Unpacked(bytes_max) if packing != "identity" else None
    kept = bytearray()
    size = 0
    try:
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if unpacked is None:
                kept += chunk
            else:
                await unpacked.add(chunk)
    except NoAnswer:
        response.close()
        raise
    return bytes(kept) if unpacked is None else unpacked.whole()


class _Unpacked:
    """A gzip body as it comes, bounded."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._unpacker = zlib.decompressobj(_GZIP)
        self._kept = bytearray()
        self._is_begun = False

    async def add(self, chunk: bytes) -> None:
        """Unpacks as much of it as may be, and lets others go on in between."""
        self._is_begun = True
        rest = chunk
        while rest:
            if self._unpacker.eof:  # several members in a row are one file: RFC 1952, section 2.2
                self._unpacker = zlib.decompressobj(_GZIP)
            try:
                self._kept += self._unpacker.decompress(rest, PIECE_BYTES)
            except zlib.error as error:
                raise NoAnswer(Why.UNREADABLE, "its answer is damaged") from error
            if len(self._kept) > self._bytes_max:
                raise _too_large(self._bytes_max)
            rest = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            await asyncio.sleep(0)

    def whole(self) -> bytes:
        """All of it.

        Raises:
            NoAnswer: the end is missing.
        """
        if self._is_begun and not self._unpacker.eof:
            raise NoAnswer(Why.UNREADABLE, "its answer is damaged")
        return bytes(self._kept)


def _too_large(bytes_max: int) -> NoAnswer:
    return NoAnswer(Why.TOO_LARGE, f"its answer has more than {bytes_max} bytes")
