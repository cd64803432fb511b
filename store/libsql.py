"""One libSQL server over HTTP: a body goes out, a body comes back, each within a time.

No request is ever repeated here: whether that is right, those who know what is in it decide. So
what failed is told apart: `NotSent` (nothing can have come of it) from `Lost` (it may have been
carried out).
"""

import asyncio
from io import BytesIO
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from indexer.errors import StoreUnavailable


#: Seconds that a connection may take to come about.
CONNECT_TIMEOUT_S: Final = 2.0
#: Bytes of the longest answer that is read.
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
#: Requests under way at once to one server; more wait their turn.
CONNECTIONS_MAX: Final = 32
#: Seconds for which an idle connection is kept. Servers close theirs after a minute or more.
KEPT_ALIVE_S: Final = 15.0

_PATH: Final = "/v3/pipeline"
_SHOWN_MAX: Final = 200


class NotSent(StoreUnavailable):
    """The request did not reach the server: nothing came of it."""


class Refused(NotSent):
    """The server did not let the request in, such as for its token."""


class Lost(StoreUnavailable):
    """The request was sent, and no answer came: it may have been carried out."""


class TimedOut(Lost):
    """There was no answer within the time."""


class Server:
    """One server. Belongs to the loop it was opened in.

    Attributes:
        name: host and port, for messages.
    """

    def __init__(self, url: str, token: str | None) -> None:
        """Connects when first used.

        Args:
            url: `http://`, `https://` or `libsql://` (which is https), checked by the settings.
            token: what proves who we are; None: nothing.
        """
        parts = urlsplit(url)
        scheme = "https" if parts.scheme == "libsql" else parts.scheme
        self.name = parts.netloc
        self._url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{_PATH}"
        # Packing costs the server more than the bytes cost the way, and may hide how many come.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=KEPT_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections; requests under way fail."""
        if self._session is not None:
            await self._session.close()

    async def post(self, body: bytes, *, timeout_s: float) -> bytes:
        """The server's answer.

        Raises:
            NotSent: it did not reach the server, or the server did not let it in.
            Lost: there is no answer to it.
        """
        if self._session is None or self._session.closed:
            raise NotSent("the database is closed")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.post(
                    self._url,
                    data=BytesIO(body),  # of bytes that are many, aiohttp complains
                    headers=self._headers,
                    timeout=timeout,
                    allow_redirects=False,
                ) as response,
            ):
                return self._checked(response.status, await _whole(response.content))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(f"{self.name} cannot be reached: {error}") from error
        except TimeoutError as error:
            raise TimedOut(f"{self.name} has not answered for {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Lost(f"{self.name} broke off: {reason:.{_SHOWN_MAX}}") from error

    def _checked(self, status: int, answer: bytes) -> bytes:
        if status == 200:
            return answer
        said = answer[:_SHOWN_MAX].decode(errors="replace")
        text = f"{self.name} answers {status}: {''.join(c for c in said if c.isprintable())}"
        if status in {401, 403}:
            raise Refused(f"{text}; AXIOM_DATABASE_TOKEN is what it is asked with")
        if status < 500:
            raise Refused(text)  # not let in; a redirect is not followed
        raise Lost(text)


async def _whole(content: aiohttp.StreamReader) -> bytes:
    found = bytearray()
    async for piece in content.iter_any():
        found += piece
        if len(found) > ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"more than {ANSWER_BYTES_MAX} bytes")
    return bytes(found)
