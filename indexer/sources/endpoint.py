"""One URL of a node: its connections and its health.

A request waits at the gate for its turn, is sent, and its answer is read up to a limit. What a
failure means is judged in `wire`; here it makes the endpoint rest for a while.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec
import structlog
from yarl import URL

from indexer.errors import ConfigError, InvariantError, SourceUnavailable
from indexer.redact import secrets_of
from indexer.sources import web, wire
from indexer.sources.gate import Gate
from indexer.sources.priority import Priority, at, present
from indexer.sources.retry import backoff


#: How often a line is logged about an endpoint that stays down, in seconds.
DOWN_LOGGED_EVERY_S: Final = 60.0

#: How long a finalized slot is taken for the present one, in seconds. It stays finalized for
#: ever, but a node that was reset must not be believed by what it said before.
FINALIZED_SLOT_KEPT_S: Final = 2.0

#: Idle connections are closed by us before a load balancer does it (many: after 60 s).
_KEEPALIVE_S: Final = 30.0
_HEADERS: Final = {"Content-Type": "application/json"}

#: A connection that the server had closed shows only when it is used: worth one more try.
_STALE: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError)

_T = TypeVar("_T")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is asked of one endpoint.

    Attributes:
        concurrency: requests under way at once, and connections kept open.
        rate: requests a second; 0 for no bound.
        timeout_s: from sending a request to the last byte of its answer.
        answer_bytes_max: a longer answer, unpacked, is refused. A full block is about 8 MB.
    """

    concurrency: int = 32
    rate: float = 100.0
    timeout_s: float = 10.0
    answer_bytes_max: int = 64 * 1024 * 1024


class Health:
    """Whether an endpoint is to be asked at all. Times are those of the event loop.

    Attributes:
        problem: why it rests, or why its last request failed; None while all is well.
    """

    def __init__(self, name: str, draw: Callable[[], float]) -> None:
        self.problem: str | None = None
        self._name = name
        self._draw = draw
        self._pauses: Iterator[float] | None = None
        self._rests_since = 0.0
        self._rests_until = 0.0
        self._paused_until = 0.0
        self._down_since = 0.0
        self._logged_at = 0.0

    def rest_s(self, now: float) -> float:
        """Seconds until it may be asked again; 0 when it may be asked now."""
        return max(0.0, self._rests_until - now)

    def pause_s(self, now: float) -> float:
        """Seconds for which the server itself asked to be left alone; 0 when it did not."""
        return max(0.0, self._paused_until - now)

    def failed(self, now: float, asked_at: float, error: Exception) -> None:
        """One request failed in a way that tells against the endpoint.

        Many requests fail at once when a node goes down: those that were already under way
        when the rest began do not make it longer, unless the server itself asks for more.
        """
        if self._pauses is None:
            self._pauses = backoff(self._draw)
            self._down_since, self._logged_at = now, now - DOWN_LOGGED_EVERY_S
        pause_s = 0.0
        if asked_at >= self._rests_since:
            self._rests_since = now
            pause_s = next(self._pauses)
        if isinstance(error, SourceUnavailable) and error.retry_after_s is not None:
            pause_s = max(pause_s, error.retry_after_s)
            self._paused_until = max(self._paused_until, now + error.retry_after_s)
        self._rests_until = max(self._rests_until, now + pause_s)
        self.problem = str(error)
        if now - self._logged_at >= DOWN_LOGGED_EVERY_S:
            self._logged_at = now
            _log.warning("endpoint.down", endpoint=self._name, problem=self.problem)

    def answered(self, now: float, asked_at: float) -> None:
        """One request was answered; an answer from before the trouble began proves nothing."""
        if self._pauses is None or asked_at < self._rests_since:
            return
        _log.info("endpoint.back", endpoint=self._name, down_s=round(now - self._down_since, 3))
        self._pauses, self.problem = None, None
        self._rests_until = self._paused_until = 0.0


class Endpoint:
    """JSON-RPC at one URL. An async context manager: its connections live inside.

    Attributes:
        behind: its finalized slots come much later than those of others (see `heads`): it is
            asked last.
        outcomes: how many requests were `answered`, `refused`, or `failed`, since the start.
    """

    def __init__(
        self,
        url: str,
        *,
        bounds: Bounds | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = wire.logged_url(url)
        if not url.startswith(("http://", "https://")) or self.name == "(no URL)":
            raise ConfigError((f"RPC URL {self.name}: must begin with http:// or https://",))
        self.bounds = bounds or Bounds()
        self.health = Health(self.name, draw)
        self.behind = False
        self.outcomes: Counter[str] = Counter()
        self._url = URL(url)
        self._secrets = secrets_of(url)
        self._gate = Gate(self.bounds.concurrency, self.bounds.rate)
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None
        self._finalized = _FinalizedSlot()

    async def __aenter__(self) -> Self:
        # The gate bounds the connections: waiting for one must not count as silence.
        self._session = web.session(
            aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=60)
        )
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

    async def call(self, method: str, params: Sequence[Any]) -> bytes:
        """The JSON of `result`, which may be `null`; waits for its turn by `priority.present()`.

        Raises:
            SourceUnavailable: the same question may be answered later.
            SourceRejected: this endpoint will not answer it; `code` says why.
        """
        loop = asyncio.get_running_loop()
        async with self._gate.place(present()):
            asked_at = loop.time()
            if pause_s := self.health.pause_s(asked_at):
                # It may have begun while this request waited for its turn, with many others.
                said = f"{method} at {self.name}: not asked, for it asked for a pause"
                raise SourceUnavailable(said, retry_after_s=pause_s)
            outcome = await self._ask(wire.Asked(method, self.name, self._secrets), params)
        if isinstance(outcome, wire.Fault) and outcome.rests:
            self.outcomes["failed"] += 1
            self.health.failed(loop.time(), asked_at, outcome.error)
            raise outcome.error
        self.health.answered(loop.time(), asked_at)
        if isinstance(outcome, wire.Fault):
            self.outcomes["refused"] += 1
            raise outcome.error
        self.outcomes["answered"] += 1
        return outcome

    async def finalized_slot(self, *, at_least: int = 0) -> int:
        """The highest finalized slot of this node, at most `FINALIZED_SLOT_KEPT_S` old.

        Args:
            at_least: a lower one is read anew, once; the answer may still be lower.
        """
        known, loop = self._finalized, asyncio.get_running_loop()
        asked_at = loop.time()
        if not known.is_good(asked_at - FINALIZED_SLOT_KEPT_S, at_least):
            async with known.reading:
                # Whoever waited for this lock takes what was asked for meanwhile.
                if not known.is_good(asked_at, 0):
                    sent_at = loop.time()
                    # One answer serves many, the most urgent among them.
                    with at(Priority.FINALITY):
                        raw = await self.call("getSlot", [{"commitment": "finalized"}])
                    known.slot, known.read_at = self.decode(raw, wire.Slot, "getSlot"), sent_at
        return known.slot

    def decode(self, raw: bytes, type_: type[_T], method: str) -> _T:
        """A result in its proper shape.

        Raises:
            SourceUnavailable: it has another one.
        """
        try:
            return msgspec.json.decode(raw, type=type_)
        except wire.UNREADABLE as error:
            asked = wire.Asked(method, self.name, self._secrets)
            raise wire.unreadable(asked, f"unexpected result: {error}").error from error

    async def _ask(self, asked: wire.Asked, params: Sequence[Any]) -> bytes | wire.Fault:
        request_id = next(self._ids)
        body = wire.encode_request(request_id, asked.method, params)
        try:
            async with asyncio.timeout(self.bounds.timeout_s):
                try:
                    return await self._post(asked, request_id, body)
                except aiohttp.ClientConnectorError:
                    raise
                except _STALE:
                    return await self._post(asked, request_id, body)
        except TimeoutError:
            return wire.unreachable(asked, f"no answer within {self.bounds.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind and the system's word: the text of some of these holds the URL.
            reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            return wire.unreachable(asked, f"{type(error).__name__}{reason}")

    async def _post(self, asked: wire.Asked, request_id: int, body: bytes) -> bytes | wire.Fault:
        if self._session is None:
            raise InvariantError(f"{self.name} is used outside of its `async with`")
        async with self._session.post(
            self._url, data=body, headers=_HEADERS, allow_redirects=False
        ) as response:
            answer = await web.whole_body(response, self.bounds.answer_bytes_max)
            if answer is None:
                limit = self.bounds.answer_bytes_max
                return wire.unreadable(asked, f"an answer of more than {limit} bytes")
            if 200 <= response.status < 300:
                return wire.decode_answer(answer, request_id, asked)
            return wire.failed(asked, response.status, web.pause_s(response), answer)


class _FinalizedSlot:
    """What one node said last, and when it was asked."""

    def __init__(self) -> None:
        self.slot = -1
        self.read_at = float("-inf")
        self.reading = asyncio.Lock()

    def is_good(self, since: float, at_least: int) -> bool:
        return self.read_at >= since and self.slot >= at_least
