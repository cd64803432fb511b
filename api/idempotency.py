"""The same request twice has one effect and one answer.

    key seen before, same body      the stored answer again, with `Idempotent-Replayed: true`
    key seen before, other body     422
    the first one is still at work  409, `Retry-After: 1`
    refused (4xx), failed (5xx)     nothing is stored: the key is as good as new

The answer is stored in the same batch as the effect, so there is never one without the other.
Two processes may race past the first look; the key is unique in the database, so one batch is
refused whole, and the loser answers with what the winner stored.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.errors import Problem
from api.limits import (
    IDEMPOTENCY_KEY_LENGTH_MAX,
    IDEMPOTENCY_PRUNE_EVERY_S,
    IDEMPOTENCY_RETENTION_S,
)
from indexer.errors import Conflict
from store import idempotency
from store.database import Database, Statement
from store.idempotency import Stored


_BARE: Final = re.compile(r"[!#-~][!-~]*", re.ASCII)
#: RFC 8941, String: `"` and `\` are escaped, and nothing else is.
_QUOTED: Final = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"', re.ASCII)


class Once(NamedTuple):
    """What must happen once: a caller's key, for one route."""

    api_key_id: str
    route: str
    key: str


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
        self._at_work: set[Once] = set()
        self._pruned_at = 0.0

    async def answer(
        self, once: Once, raw: bytes, prepare: Callable[[], Awaitable[Effect]]
    ) -> Response:
        """The stored answer; or the effect is prepared, written, and answered.

        Args:
            once: what must happen once.
            raw: the request's body, by which a repetition is told from another request.
            prepare: makes the effect out of the request; what it raises is not remembered.

        Raises:
            Problem: 409 or 422, see above.
            Conflict: the effect itself was refused by the database.
        """
        fingerprint = hashlib.sha256(raw).hexdigest()
        stored = await self._find(once)
        if stored is not None:
            return _replay(stored, fingerprint)
        with self._alone(once):
            effect = await prepare()
            try:
                await self._database.write(self._batch(once, fingerprint, effect))
            except Conflict:
                stored = await self._find(once)
                if stored is None:
                    raise
                return _replay(stored, fingerprint)
        return Response(effect.body, effect.status, effect.headers)

    async def _find(self, once: Once) -> Stored | None:
        return await idempotency.find(self._database, once.api_key_id, once.route, once.key)

    @contextmanager
    def _alone(self, once: Once) -> Iterator[None]:
        if once in self._at_work:
            raise Problem(
                409,
                "idempotency_key_in_use",
                "the first request with this key is still at work",
                headers={"Retry-After": "1"},
            )
        self._at_work.add(once)
        try:
            yield
        finally:
            self._at_work.discard(once)

    def _batch(self, once: Once, fingerprint: str, effect: Effect) -> list[Statement]:
        now = int(self._clock())
        stored = Stored(
            fingerprint=fingerprint,
            status=effect.status,
            headers=effect.headers,
            body=effect.body,
            created_at=now,
        )
        batch = [*effect.statements, idempotency.insert(*once, stored)]
        if now - self._pruned_at >= IDEMPOTENCY_PRUNE_EVERY_S:
            self._pruned_at = now
            batch.append(idempotency.prune(now - IDEMPOTENCY_RETENTION_S))
        return batch


def _replay(stored: Stored, fingerprint: str) -> Response:
    if stored.fingerprint != fingerprint:
        raise Problem(
            422,
            "idempotency_key_reused",
            "this `Idempotency-Key` belongs to a request with another body",
        )
    headers = {**stored.headers, "Idempotent-Replayed": "true"}
    return Response(stored.body, stored.status, headers)
