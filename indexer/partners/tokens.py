"""Access tokens of one partner: bought once, however many ask, here and in other processes.

A token is kept in each process, and in Redis for all of them; for less long than it is said to be
good for, so that none ends on its way. Where there is none:

    in a process      the first who asks buys, the others wait for what comes of it
    across processes  who puts the lock into Redis buys, the others look again until there is a
                      token; a lock whose owner died ends by itself
    without Redis     each process buys for itself

A token that the partner refuses is dropped only where it is still the one that is kept: by then
another may have been bought, and that one must not be lost. Credentials that it refuses are not
tried again for a minute: whoever comes ever again with a wrong secret may be locked out for good.

The client's secret goes to the partner's token endpoint and nowhere else; no error, and no line
of the log, holds it or a token.

Source: RFC 6749, sections 4.4 and 5.
"""

import asyncio
import hashlib
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard
from urllib.parse import urlencode

import msgspec

from indexer.errors import SharedUnavailable, SourceUnavailable
from indexer.log import get_logger
from indexer.partners.figures import Figures, TokenOutcome
from indexer.partners.merging import Merging
from indexer.partners.shelf import look
from indexer.sources import wire
from indexer.sources.partner import Answer, NoAnswer, Partner, Why
from store.shared import Shared


log = get_logger(__name__)

#: For buying one, in seconds.
TIMEOUT_S: Final = 5.0
#: For coming by one, in seconds, with the wait for another process that may die over it.
PATIENCE_S: Final = 15.0
#: A lock is longer than its owner may be at work, so that nobody else begins meanwhile.
LOCK_TTL_S: Final = 7.0
#: How long until one looks again whether another process has bought one.
POLL_S: Final = 0.05

ANSWER_BYTES_MAX: Final = 64 * 1024

#: What a token is good for where the answer does not say, in seconds; and what is believed at
#: most: a token may be taken back, and none is worth more than a day.
EXPIRES_IN_S: Final = 300
EXPIRES_IN_S_MAX: Final = 24 * 60 * 60
#: A token is not used any more so long before its end: this, or that part of its time if longer.
MARGIN_S: Final = 30.0
MARGIN_PART: Final = 0.05

#: Each is used for so long at least, in seconds, whatever is said: else one would be bought for
#: every call.
KEPT_S_MIN: Final = 1.0

#: For how long refused credentials are not tried again, in seconds.
REFUSED_S: Final = 60.0

#: Tokens that the partner refused, and that are not taken from Redis again.
DROPPED_MAX: Final = 8

#: RFC 6749, section 5.1, `token_type` and appendix A.12; no space, as it stands in a header.
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
#: RFC 6749, section 5.2. Of what a partner says only these words are repeated.
_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


class NoToken(SourceUnavailable):
    """There is no token, so nothing can be asked of the partner.

    Attributes:
        is_refused: the partner does not accept our credentials: a person must act.
        why: what kind of failure it was; None: the partner answered, but sold none.
    """

    def __init__(
        self,
        message: str,
        *,
        is_refused: bool = False,
        why: Why | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.is_refused = is_refused
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """With what tokens of one partner are bought.

    Attributes:
        upstream: the partner's name.
        url: of the token endpoint.
        scope: what a token is asked for; None: nothing is said.
    """

    upstream: str
    url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None

    @property
    def key(self) -> str:
        """Under which its token is kept: other credentials have another one."""
        parts = [self.upstream, self.url, self.client_id, self.client_secret, self.scope]
        told = msgspec.json.encode(parts)
        return f"partner:{self.upstream}:{hashlib.sha256(told).hexdigest()[:32]}"


class _Record(msgspec.Struct, frozen=True):
    """What is kept: a token, or that there is none to be had. Equal ones are equal bytes."""

    token: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A record in this process.

    Attributes:
        until: by the loop's clock.
    """

    record: _Record
    until: float


class Tokens:
    """The tokens of one partner."""

    def __init__(
        self, credentials: Credentials, partner: Partner, shared: Shared | None, figures: Figures
    ) -> None:
        """Nothing is bought before it is asked for.

        Args:
            credentials: with what they are bought.
            partner: the way to it.
            shared: Redis; None: this process is alone.
            figures: of what was bought.
        """
        self._credentials = credentials
        self._partner = partner
        self._shared = shared
        self._figures = figures
        self._held: _Held | None = None
        self._dropped: deque[str] = deque(maxlen=DROPPED_MAX)
        self._buying: Merging[_Record] = Merging("partner-token", goes_on=True)

    async def bearer(self) -> str:
        """A token that is good now.

        Raises:
            NoToken: there is none, and why.
        """
        held = self._held
        if held is not None and asyncio.get_running_loop().time() < held.until:
            return _token_of(held.record)
        return _token_of(await self._buying.run("token", self._obtain))

    async def drop(self, token: str) -> None:
        """The partner refuses it: it is not used any more, here or in another process."""
        if token in self._dropped:
            return
        self._dropped.append(token)
        if self._held is not None and self._held.record.token == token:
            self._held = None
        if self._shared is not None:
            with suppress(SharedUnavailable):
                await self._shared.delete_if(self._credentials.key, _bytes_of(_Record(token)))

    async def close(self) -> None:
        """Ends what is under way."""
        await self._buying.close()

    async def _obtain(self) -> _Record:
        """From another process, or by buying it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._shared is not None:
                    with suppress(SharedUnavailable):
                        return await self._obtain_shared(self._shared)
                return await self._buy()
        except TimeoutError as error:
            raise NoToken("no token in time", why=Why.TIMEOUT) from error

    async def _obtain_shared(self, shared: Shared) -> _Record:
        """What another process has, or will have; bought here when none does it.

        Raises:
            SharedUnavailable: Redis is away, and nothing was bought.
        """
        while True:
            if (found := await self._look(shared)) is not None:
                return found
            async with self._locked(shared) as is_ours:
                if is_ours:
                    # Its last owner may have been done just after we looked.
                    return await self._look(shared) or await self._buy()
            await asyncio.sleep(POLL_S * (1 + secrets.randbelow(100) / 100))

    async def _look(self, shared: Shared) -> _Record | None:
        """What is kept in Redis, and good."""
        kept = await look(shared, self._credentials.key)
        if kept is None:
            return None
        try:
            record = msgspec.json.decode(kept.value, type=_Record)
        except wire.UNREADABLE:
            return None
        if record.token in self._dropped or not (record.refused or _is_token(record.token)):
            return None
        self._hold(record, kept.left_s)
        return record

    @asynccontextmanager
    async def _locked(self, shared: Shared) -> AsyncIterator[bool]:
        key, mine = f"{self._credentials.key}:lock", secrets.token_bytes(16)
        is_ours = await shared.put(key, mine, ttl_ms=round(LOCK_TTL_S * 1000), only_new=True)
        try:
            yield is_ours
        finally:
            if is_ours:
                with suppress(SharedUnavailable):
                    await shared.delete_if(key, mine)

    async def _buy(self) -> _Record:
        """Buys one, and keeps it; also what came of it when there was none to be had.

        Raises:
            NoToken: for now; credentials that are refused are a record.
        """
        asked_at = asyncio.get_running_loop().time()
        record, ttl_s = self._sold(await self._ask())
        left_s = max(KEPT_S_MIN, ttl_s - (asyncio.get_running_loop().time() - asked_at))
        self._hold(record, left_s)
        if self._shared is not None:
            with suppress(SharedUnavailable):
                ttl_ms = round(left_s * 1000)
                await self._shared.put(self._credentials.key, _bytes_of(record), ttl_ms=ttl_ms)
        return record

    async def _ask(self) -> Answer:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._credentials.client_id,
            "client_secret": self._credentials.client_secret,
        }
        if self._credentials.scope is not None:
            form["scope"] = self._credentials.scope
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        try:
            return await self._partner.send(
                "POST",
                self._credentials.url,
                headers,
                urlencode(form).encode(),
                timeout_s=TIMEOUT_S,
                bytes_max=ANSWER_BYTES_MAX,
                is_repeatable=False,
            )
        except NoAnswer as error:
            self._failed(f"{error}")
            raise NoToken(f"no token: {error}", why=error.why) from error

    def _sold(self, answer: Answer) -> tuple[_Record, float]:
        """What an answer of the token endpoint is worth, and for how many seconds."""
        status = answer.status
        if status in {408, 429} or status >= 500:
            self._failed(f"HTTP {status}")
            raise NoToken(f"no token: HTTP {status}", retry_after_s=answer.retry_after_s)
        said = _object(answer.body)
        if status >= 400:
            word = said.get("error")
            log.error(
                "partner.credentials_refused",
                upstream=self._credentials.upstream,
                status=status,
                error=word if word in _ERRORS else None,
            )
            self._figures.token(self._credentials.upstream, TokenOutcome.REFUSED)
            return _Record(refused=True), REFUSED_S
        token, good_for_s = said.get("access_token"), _seconds(said)
        kind = said.get("token_type", "Bearer")
        is_bearer = isinstance(kind, str) and kind.lower() == "bearer"
        if not _is_token(token) or good_for_s is None or not is_bearer:
            self._failed("it is no token")
            raise NoToken("no token: the answer holds none", why=Why.UNREADABLE)
        self._figures.token(self._credentials.upstream, TokenOutcome.BOUGHT)
        log.info(
            "partner.token_bought", upstream=self._credentials.upstream, expires_in_s=good_for_s
        )
        return _Record(token), good_for_s - _margin_s(good_for_s)

    def _failed(self, reason: str) -> None:
        self._figures.token(self._credentials.upstream, TokenOutcome.FAILED)
        log.warning("partner.token_failed", upstream=self._credentials.upstream, reason=reason)

    def _hold(self, record: _Record, left_s: float) -> None:
        self._held = _Held(record, asyncio.get_running_loop().time() + left_s)


def _token_of(record: _Record) -> str:
    if record.refused:
        raise NoToken("no token: our credentials are refused", is_refused=True)
    return record.token


def _bytes_of(record: _Record) -> bytes:
    return msgspec.json.encode(record)


def _is_token(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; empty when it is none."""
    try:
        found = msgspec.json.decode(body)
    except wire.UNREADABLE:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(said: dict[str, Any]) -> float | None:
    """What a token is good for; None when the answer says nonsense. Numbers may be text."""
    value = said.get("expires_in", EXPIRES_IN_S)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return min(float(value), EXPIRES_IN_S_MAX)


def _margin_s(good_for_s: float) -> float:
    """So long before its end a token is not used any more; at most half of its time."""
    return min(max(MARGIN_S, good_for_s * MARGIN_PART), good_for_s / 2)
