"""What all HTTP clients here have in common: no cookies, no proxy, answers that are bounded.

How long to wait is each client's own limit, around its whole request: the messages of aiohttp's
timeouts hold the URL, and with it the key.
"""

import aiohttp

from indexer.sources import wire


def session(connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
    """Connections that remember nothing of what a server says, and know no time limit."""
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
    )


async def whole_body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """All of the body, unpacked; None when it is longer than that, and then it ends here."""
    content, chunks, size = response.content, [], 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > bytes_max:
            response.close()
            return None
    return b"".join(chunks)


def pause_s(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that the server asks us to wait; None when it says none."""
    headers = response.headers
    return wire.retry_after_s(headers.get("Retry-After"), headers.get("Date"))
