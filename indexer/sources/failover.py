"""Several endpoints as one: fail-over in the order given, retries, and what enough of them say.

Reads are idempotent, so they are asked again, elsewhere or later, up to `ROUNDS_MAX` rounds and
`CALL_S_MAX` seconds.

Source: Solana JSON-RPC, HTTP methods.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog

from indexer.errors import ConfigError, SourceError, SourceRejected, SourceUnavailable
from indexer.sources import wire
from indexer.sources.endpoint import Endpoint
from indexer.sources.retry import backoff


#: How many times the endpoints are gone through for one call.
ROUNDS_MAX: Final = 5

#: The longest that one call may take, with all its retries and queueing, in seconds.
CALL_S_MAX: Final = 60.0

#: How long a call waits while every endpoint rests, in seconds; then the caller is told.
ALL_REST_S_MAX: Final = 10.0

#: No transaction version can be higher: it is seven bits on the wire.
VERSION_MAX: Final = 127

#: How often one question is asked because a node named a higher version: a block may hold several.
VERSION_TRIES_MAX: Final = 4

_NAMED_VERSION: Final = re.compile(r'"maxSupportedTransactionVersion":\s*(\d{1,3})\b')

_T = TypeVar("_T")

_log = structlog.get_logger()


class Failover:
    """One or more endpoints of one cluster. An async context manager.

    Attributes:
        endpoints: in the order of preference.
        quorum: how many endpoints must agree on a finalized transaction (see `truth`).
        version_max: `maxSupportedTransactionVersion` of every request; raised when a node names
            a higher one.
        draw: from 0.0 to 1.0, for the jitter of delays.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], *, quorum: int, draw: Callable[[], float]
    ) -> None:
        """Nothing is opened before `async with`; for the arguments see above."""
        if not 1 <= quorum <= len(endpoints):
            raise ConfigError((f"{len(endpoints)} RPC URLs cannot give a quorum of {quorum}",))
        self.endpoints = tuple(endpoints)
        self.quorum = quorum
        self.version_max = 1
        self.draw = draw
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for endpoint in self.endpoints:
                await opening.enter_async_context(endpoint)
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def problem(self) -> str | None:
        """Why no endpoint can be asked now; None when at least one can."""
        now = asyncio.get_running_loop().time()
        if any(not endpoint.health.rest_s(now) for endpoint in self.endpoints):
            return None
        return "; ".join(filter(None, (endpoint.health.problem for endpoint in self.endpoints)))

    # ------------------------------------------------------------------ asking

    async def call(self, method: str, params: Sequence[Any]) -> bytes:
        """The JSON of `result` from the first endpoint that answers; may be `null`.

        Raises:
            SourceUnavailable: none did, for now.
            SourceRejected: the question is wrong, or no endpoint serves it.
        """
        try:
            async with asyncio.timeout(CALL_S_MAX):
                return await self._call(method, params)
        except TimeoutError as error:
            raise SourceUnavailable(f"{method}: no answer within {CALL_S_MAX:g} s") from error

    async def _call(self, method: str, params: Sequence[Any]) -> bytes:
        delays = backoff(self.draw)
        unfit: dict[Endpoint, SourceRejected] = {}
        problem = SourceUnavailable(f"{method}: not asked")
        for _ in range(ROUNDS_MAX):
            for endpoint in await self.awake():
                if endpoint in unfit:
                    continue
                try:
                    return await endpoint.call(method, params)
                except SourceUnavailable as error:
                    problem = error
                except SourceRejected as error:
                    unfit[endpoint] = error
                    if error.code in wire.QUESTION_CODES or len(unfit) == len(self.endpoints):
                        raise
            await asyncio.sleep(next(delays))
        raise problem

    async def awake(self) -> list[Endpoint]:
        """The endpoints that do not rest, in order, those that are behind last.

        When all rest, waits for the first.

        Raises:
            SourceUnavailable: the first would be awake only after `ALL_REST_S_MAX`.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + ALL_REST_S_MAX
        while True:
            now = loop.time()
            rests = [(endpoint.health.rest_s(now), endpoint) for endpoint in self.endpoints]
            if awake := [endpoint for rest_s, endpoint in rests if not rest_s]:
                return sorted(awake, key=lambda endpoint: endpoint.behind)
            soonest_s = min(rest_s for rest_s, _ in rests)
            if now + soonest_s > give_up_at:
                raise SourceUnavailable(
                    f"every endpoint rests: {self.problem}", retry_after_s=soonest_s
                )
            await asyncio.sleep(soonest_s)

    async def call_versioned(
        self, method: str, subject: Any, options: Mapping[str, Any], endpoint: Endpoint | None
    ) -> bytes:
        """The JSON of `result` of a method that refuses transactions of unknown versions.

        Raises:
            SourceUnavailable, SourceRejected: as `call`, or as the endpoint that is given.
        """

        async def ask() -> bytes:
            known = {**options, "maxSupportedTransactionVersion": self.version_max}
            call = self.call if endpoint is None else endpoint.call
            return await call(method, [subject, known])

        for _ in range(VERSION_TRIES_MAX - 1):
            try:
                return await ask()
            except SourceRejected as error:
                if error.code != wire.UNSUPPORTED_VERSION or not self._raise_version(str(error)):
                    raise
        return await ask()

    def _raise_version(self, message: str) -> bool:
        """Takes the version from the node's own words; False when they name no usable one."""
        named = _NAMED_VERSION.search(message)
        if named is None or int(named[1]) > VERSION_MAX:
            return False
        version = int(named[1])
        if version > self.version_max:
            # The layout of a new version is read as that of the ones we know, or refused by the
            # decoder: somebody should look.
            _log.warning("transaction_version.raised", version=version, known=self.version_max)
            self.version_max = version
        return True

    async def _read(
        self,
        type_: type[_T],
        method: str,
        params: Sequence[Any],
        endpoint: Endpoint | None = None,
    ) -> _T:
        """From any endpoint, with retries; or from the one that is given, which is asked once."""
        if endpoint is not None:
            return endpoint.decode(await endpoint.call(method, params), type_, method)
        raw = await self.call(method, params)
        try:
            return msgspec.json.decode(raw, type=type_)
        except wire.UNREADABLE as error:
            raise SourceUnavailable(f"{method}: unexpected result: {error}") from error

    async def _from_each(
        self, ask: Callable[[Endpoint], Awaitable[_T | None]]
    ) -> tuple[list[_T], list[SourceError]]:
        """What the endpoints that are awake say, asked at the same time, and why others do not.

        One that answers None has nothing to say and is in neither list.
        """
        errors: list[SourceError] = []

        async def asked(endpoint: Endpoint) -> _T | None:
            try:
                return await ask(endpoint)
            except SourceError as error:
                errors.append(error)
                return None

        answers = await asyncio.gather(*(asked(endpoint) for endpoint in await self.awake()))
        return [answer for answer in answers if answer is not None], errors
