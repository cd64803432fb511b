"""The same request twice has one effect and one answer.

    key seen before, same body      the stored answer again, with `Idempotent-Replayed: true`
    key seen before, other body     422, also while the first one is at work
    the first one is still at work  its answer, if it comes within `IDEMPOTENCY_WAIT_S`;
                                    otherwise 409, `Retry-After: 1`
    refused (4xx), failed (5xx)     nothing is stored: the key is as good as new

Whoever works holds a lease in the database (`store.idempotency`), so that it is the same for one
process and for several. The answer is stored in the same batch as the effect, and only by the
lease's holder: there is never one without the other, and never two.

    a process dies             its lease ends by itself, and the next request does the work
    it was paused, or cut off  its lease was taken meanwhile: its batch is refused whole, and it
                               answers with what the other one stored
    the outcome is not known   the lease is given back first, so that a batch which is still on
                               its way is refused, and then it is looked whether it was stored
    the caller leaves          what was begun is finished, or the lease given back

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.errors import Problem
from api.limits import (
    IDEMPOTENCY_KEY_LENGTH_MAX,
    IDEMPOTENCY_POLL_S_MAX,
    IDEMPOTENCY_POLL_S_MIN,
    IDEMPOTENCY_PRUNE_EVERY_S,
    IDEMPOTENCY_RENEW_EVERY_S,
    IDEMPOTENCY_RETENTION_S,
    IDEMPOTENCY_WAIT_S,
)
from indexer.errors import Conflict, StoreError, StoreUnavailable
from indexer.log import get_logger
from store import idempotency
from store.database import Database, Statement
from store.idempotency import Lease, Once, Stored


__all__ = ["Effect", "Ledger", "Once", "key_of"]

log = get_logger(__name__)

_HOLDER_BYTES: Final = 16

_BARE: Final = re.compile(r"[!#-~][!-~]*", re.ASCII)
#: RFC 8941, String: `"` and `\` are escaped, and nothing else is.
_QUOTED: Final = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"', re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a request does and says, before anything of it is done.

    Attributes:
        statements: to be written in one batch with the answer.
    """

    statements: Sequence[Statement]
    status: int
    headers: Mapping[str, str]
    body: bytes


def key_of(request: Request) -> str:
    """The request's idempotency key, without the quotes of a structured field.

    Raises:
        Problem: 400, there is none, or it is none.
    """
    values = request.headers.getlist("idempotency-key")
    if len(values) != 1:
        raise _bad_key("send exactly one `Idempotency-Key` header, such as a fresh UUID")
    value = values[0].strip()
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(value):
        key = value
    else:
        raise _bad_key("`Idempotency-Key` must be visible ASCII without spaces, quoted or not")
    if len(key) > IDEMPOTENCY_KEY_LENGTH_MAX:
        raise _bad_key(f"`Idempotency-Key` has at most {IDEMPOTENCY_KEY_LENGTH_MAX} characters")
    return key


def _bad_key(detail: str) -> Problem:
    return Problem(400, "bad_idempotency_key", detail)


class Ledger:
    """Sees to it that what must happen once does."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._pruned_at = 0

    async def answer(
        self, once: Once, raw: bytes, prepare: Callable[[], Awaitable[Effect]]
    ) -> Response:
        """The stored answer; or the effect is prepared, written, and answered.

        Args:
            once: what must happen once.
            raw: the request's body, by which a repetition is told from another request.
            prepare: makes the effect out of the request; what it raises is not remembered. It
                may be called for the same thing by two processes, of which one writes.

        Raises:
            Problem: 409 or 422, see above.
            Conflict: the effect itself was refused by the database.
            StoreUnavailable: nothing was stored, or, when not even that can be known, whoever
                repeats the request will be told.
        """
        lease = Lease(
            once=once,
            fingerprint=hashlib.sha256(raw).hexdigest(),
            holder=secrets.token_hex(_HOLDER_BYTES),
        )
        stored = (await idempotency.look(self._database, once, self._now)).stored
        if stored is not None:
            return _replay(stored, lease.fingerprint)
        try:
            stored = await self._claim(lease)
            if stored is None:
                async with self._renewed(lease):
                    effect = await prepare()
        except BaseException:
            # Also when it is not known whether the lease is ours: after this it is not.
            with suppress(StoreError):
                await idempotency.release(self._database, lease)
            raise
        if stored is not None:
            return _replay(stored, lease.fingerprint)
        return await self._write(lease, effect)

    @property
    def _now(self) -> int:
        return int(self._clock())

    async def _claim(self, lease: Lease) -> Stored | None:
        """None once the lease is ours; the answer when another one has stored it."""
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + IDEMPOTENCY_WAIT_S, IDEMPOTENCY_POLL_S_MIN
        while True:
            standing = await idempotency.claim(self._database, lease, self._now)
            if standing.stored is not None or standing.holder == lease.holder:
                return standing.stored
            while standing.holder is not None:
                if standing.fingerprint != lease.fingerprint:
                    raise _reused()
                if loop.time() >= deadline:
                    raise _in_use()
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, IDEMPOTENCY_POLL_S_MAX)
                standing = await idempotency.look(self._database, lease.once, self._now)

    @asynccontextmanager
    async def _renewed(self, lease: Lease) -> AsyncIterator[None]:
        """Keeps the lease while the block is at work."""
        renewing = asyncio.create_task(self._renew(lease), name="idempotency.renew")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait((renewing,))

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(IDEMPOTENCY_RENEW_EVERY_S)
            try:
                if not await idempotency.renew(self._database, lease, self._now):
                    return  # the write will be refused, and say so
            except StoreError as error:
                log.warning("idempotency.not_renewed", error=str(error))

    async def _write(self, lease: Lease, effect: Effect) -> Response:
        """Writes the effect with its answer."""
        stored = Stored(
            fingerprint=lease.fingerprint,
            status=effect.status,
            headers=effect.headers,
            body=effect.body,
            created_at=self._now,
        )
        batch = [*effect.statements, *idempotency.store(lease, stored), *self._pruning()]
        try:
            await self._database.write(batch)
        except (Conflict, StoreUnavailable) as error:
            return await self._look_again(lease, stored, error)
        except BaseException:
            with suppress(StoreError):
                await idempotency.release(self._database, lease)
            raise
        return _answer(stored)

    async def _look_again(self, lease: Lease, ours: Stored, error: StoreError) -> Response:
        """What became of a batch that was refused, or may have been."""
        was_ours, stored = await idempotency.release(self._database, lease)
        if stored == ours:
            return _answer(ours)  # it was written, and only the word of it was lost
        if was_ours:
            raise error
        log.warning("idempotency.lease_lost", route=lease.once.route)
        if stored is None:
            raise _in_use()
        return _replay(stored, lease.fingerprint)

    def _pruning(self) -> list[Statement]:
        """What is to be forgotten with this write, now and then."""
        now = self._now
        if now - self._pruned_at < IDEMPOTENCY_PRUNE_EVERY_S:
            return []
        self._pruned_at = now
        return idempotency.prune(now - IDEMPOTENCY_RETENTION_S, now)


def _answer(stored: Stored) -> Response:
    return Response(stored.body, stored.status, stored.headers)


def _replay(stored: Stored, fingerprint: str) -> Response:
    if stored.fingerprint != fingerprint:
        raise _reused()
    headers = {**stored.headers, "Idempotent-Replayed": "true"}
    return Response(stored.body, stored.status, headers)


def _reused() -> Problem:
    return Problem(
        422,
        "idempotency_key_reused",
        "this `Idempotency-Key` belongs to a request with another body",
    )


def _in_use() -> Problem:
    return Problem(
        409,
        "idempotency_key_in_use",
        "the first request with this key is still at work",
        headers={"Retry-After": "1"},
    )
