"""Clients of streams over both APIs: when one stream ends, the next one is at the other API.

What each has heard is kept, to be compared with the log in the end: nothing missed, nothing twice.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec


#: A client that was told nothing comes back after so long, as `EventSource` does.
_RETRY_S: Final = 3.0
#: Longer pauses are for servers that are full; nobody here waits for that.
_RETRY_S_MAX: Final = 5.0
#: Where no server listens, the next one is asked this soon.
_REFUSED_PAUSE_S: Final = 0.2
_CONNECT_TIMEOUT_S: Final = 5.0
#: Two heartbeats and a half.
_SILENCE_S: Final = 40.0
_LINE_BYTES_MAX: Final = 1024 * 1024

EVENTS: Final = "/api/sse/events"
ONE: Final = "/api/sse/payments/"

#: What a stream of one payment begins with each time: no event, but the payment as it stands.
_SNAPSHOT: Final = "payment"
_FINAL_EVENTS: Final = frozenset({"payment.settled", "payment.canceled", "payment.refunded"})


@dataclass(frozen=True, slots=True)
class Heard:
    """One event, as a client got it.

    Attributes:
        seq: its number in the log.
        at: loop time.
    """

    seq: int
    type: str
    at: float


class Listener:
    """One client of one stream.

    Attributes:
        began_after: the number of the last event before all that it is to hear; None: it was never
            let in.
        heard: what it got, in the order of arrival.
        is_over: the stream has ended for good, because its payment is final.
        reconnects: how often it came back.
        refused: how often no stream was to be had.
    """

    def __init__(
        self,
        apis: Sequence[str],
        path: str,
        *,
        address: str,
        first: int,
        key: str | None = None,
        on_event: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        """Prepares a client.

        Args:
            apis: URLs, taken in turn.
            path: of the stream.
            address: of loopback, from which it calls: each client is somebody of his own.
            first: which API it begins at.
            key: an API key; None: it needs none.
            on_event: is given type, payment id and the payment of each event.
        """
        self.path = path
        self.began_after: int | None = None
        self.heard: list[Heard] = []
        self.is_over = False
        self.reconnects = 0
        self.refused = 0
        self._follows_one = path.startswith(ONE)
        self._apis = apis
        self._turn = first
        self._address = address
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {key}"} if key else {}
        self._on_event = on_event
        self._last_id = ""
        self._retry_s = _RETRY_S

    @property
    def last_seq(self) -> int:
        """The number of the last event that it has."""
        return int(self._last_id or 0)

    async def run(self) -> None:
        """Listens until the stream is over, or for ever."""
        timeout = aiohttp.ClientTimeout(connect=_CONNECT_TIMEOUT_S, sock_read=_SILENCE_S)
        connector = aiohttp.TCPConnector(local_addr=(self._address, 0), force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, read_bufsize=_LINE_BYTES_MAX
        ) as session:
            while True:
                was_in = await self._once(session)
                if self.is_over:
                    return
                self._turn += 1
                self.reconnects += 1
                pause_s = min(self._retry_s, _RETRY_S_MAX) if was_in else _REFUSED_PAUSE_S
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))

    async def _once(self, session: aiohttp.ClientSession) -> bool:
        """One connection; whether there was a stream."""
        url = self._apis[self._turn % len(self._apis)] + self.path
        headers = dict(self._headers)
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        was_in = False
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(url, headers=headers) as response:
                if response.status == 204:
                    self.is_over = True
                    return True
                was_in = response.status == 200
                if was_in:
                    await self._read(response)
        self.refused += not was_in
        return was_in

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        id_, type_, data = "", "", b""
        async for line in response.content:
            if line == b"\n":
                self._last_id = id_ or self._last_id
                if id_ and self.began_after is None:
                    self.began_after = int(id_)
                if data:
                    self._take(int(id_), type_, data)
                id_, type_, data = "", "", b""
                continue
            name, _, value = line.rstrip(b"\n").partition(b": ")
            match name:
                case b"id":
                    id_ = value.decode()
                case b"event":
                    type_ = value.decode()
                case b"data":
                    data = value
                case b"retry":
                    self._retry_s = int(value) / 1000

    def _take(self, seq: int, type_: str, data: bytes) -> None:
        if type_ == _SNAPSHOT:  # what it has missed follows, also when the payment is final
            return
        self.heard.append(Heard(seq, type_, asyncio.get_running_loop().time()))
        self.is_over = self._follows_one and type_ in _FINAL_EVENTS
        if self._on_event is not None:
            payment = msgspec.json.decode(data)["payment"]
            self._on_event(type_, payment["id"], payment)


async def whole_log(api: str, key: str, last: int) -> list[tuple[int, str, str]]:
    """Number, type and payment id of every event up to a number, from the first one on."""
    log: list[tuple[int, str, str]] = []

    def take(type_: str, payment_id: str, _payment: Any) -> None:
        log.append((reader.heard[-1].seq, type_, payment_id))

    path = f"{EVENTS}?last_event_id=0"
    reader = Listener([api], path, address="127.0.0.1", first=0, key=key, on_event=take)
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(_SILENCE_S):
            while reader.last_seq < last:
                await asyncio.wait({reading}, timeout=_REFUSED_PAUSE_S)
                if reading.done():
                    reading.result()
    finally:
        reading.cancel()
    return log
