"""The one road of a call to a partner: each step may end it, and each has a limit.

    kept        an answer that is still good                        nothing is asked
    merged      an equal question is under way                      its answer is ours
    paced       the rate that the partner allows all of us          BUSY
    breaker     a partner in trouble is left alone                  AWAY
    proof       a key, or a token that is bought                    LOCKED
    sent        by the guarded way out; a token that is refused is dropped, and once replaced
    tried again what may be done twice, and failed in passing
    judged      what of the answer is let through                   kept for the next ones

Nothing of a caller is on this road: the request was made of the profile and of values, and so is
the key under which its answer is kept. Whoever asks the same is answered the same, and nobody is
told apart. What a route refuses to a caller is refused before.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus
from random import random
from typing import Final

import msgspec

from indexer.core.partner_answer import PartnerFailed, Passed, Trouble, judge
from indexer.core.partner_request import Asked
from indexer.core.profile import Method, PartnerSecrets, Profile, Route
from indexer.errors import InvariantError
from indexer.log import get_logger
from indexer.partners.breaker import Breaker, Ticket
from indexer.partners.figures import Figures, Outcome
from indexer.partners.merging import Merging
from indexer.partners.shelf import VALUE_BYTES_MAX, Shelf
from indexer.partners.tokens import NoToken, Tokens
from indexer.sources import wire
from indexer.sources.partner import Answer, NoAnswer, Partner, Why
from indexer.sources.retry import backoff
from store.limiter import Charge, Limiter


log = get_logger(__name__)

#: Calls to one partner that are under way at once; one more is not begun.
UNDER_WAY_MAX: Final = 512

#: How often one call is tried, and the pause before the second time at the most, in seconds.
TRIES_MAX: Final = 3
PAUSE_S: Final = 0.25
#: A partner that asks for a longer pause is not tried again, in seconds.
PAUSE_S_MAX: Final = 2.0

#: How long a call waits for the rate to have room, in seconds, and how often it looks.
PACED_S_MAX: Final = 2.0
PACED_EVERY_S: Final = 0.1

#: For how long a route that refused a fresh token is not believed when it refuses another one.
STUBBORN_S: Final = 60.0

#: A longer answer is judged in a thread, in bytes: nobody else waits meanwhile.
LONG_BYTES: Final = 64 * 1024

_PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_PASSING_WHY: Final = frozenset({Why.UNREACHABLE, Why.UNREADABLE})

_TROUBLE_OF: Final = {
    Why.TIMEOUT: Trouble.SLOW,
    Why.UNREACHABLE: Trouble.AWAY,
    Why.REFUSED: Trouble.AWAY,
    Why.REDIRECT: Trouble.FAILED,
    Why.TOO_LARGE: Trouble.FAILED,
    Why.UNREADABLE: Trouble.FAILED,
}
_OUTCOME_OF: Final = {
    Trouble.REFUSED: Outcome.DECLINED,
    Trouble.NOT_FOUND: Outcome.DECLINED,
    Trouble.BUSY: Outcome.LIMITED,
    Trouble.AWAY: Outcome.AWAY,
    Trouble.SLOW: Outcome.TIMEOUT,
    Trouble.FAILED: Outcome.FAILED,
    Trouble.LOCKED: Outcome.UNAUTHORIZED,
}


class Road:
    """The road to one partner."""

    def __init__(
        self,
        profile: Profile,
        secrets: PartnerSecrets,
        partner: Partner,
        tokens: Tokens | None,
        shelf: Shelf,
        limiter: Limiter,
        figures: Figures,
    ) -> None:
        """Nothing is under way.

        Args:
            profile: of the partner.
            secrets: what proves who we are; of these only the key is used here.
            partner: the way to it.
            tokens: where bearer tokens come from; None: none are needed.
            shelf: where answers are kept.
            limiter: counts calls of all processes together.
            figures: of what became of calls.
        """
        self.profile = profile
        self._secrets = secrets
        self._partner = partner
        self._tokens = tokens
        self._shelf = shelf
        self._limiter = limiter
        self._figures = figures
        self._identity = hashlib.sha256(
            f"{secrets.client_id}\0{secrets.client_secret}\0{secrets.key}".encode()
        ).hexdigest()
        self._merging: Merging[Passed] = Merging("partner-call", goes_on=False)
        self._breaker = Breaker()
        self._under_way = 0
        self._stubborn: dict[str, float] = {}
        figures.watch(profile.name, lambda: self._breaker.state(_now()))

    async def call(self, route: Route, asked: Asked) -> Passed:
        """What a frontend is answered, with a `Cache-Status` (RFC 9211).

        Raises:
            PartnerFailed: the call came to nothing, and why.
        """
        key = None if asked.key is None else self._kept_as(route, asked.key)
        if key is None:
            return _with_status(await self._counted(route, asked, None), "fwd=method")
        if route.cache_s and (kept := await self._shelf.get(key)) is not None:
            passed = _unpacked(kept.value)
            if passed is not None:
                self._figures.called(self.profile.name, route.name, Outcome.HIT)
                return _with_status(passed, f"hit; ttl={int(kept.left_s)}")
        is_first = key not in self._merging
        passed = await self._merging.run(key, lambda: self._counted(route, asked, key))
        status = "fwd=uri-miss" if route.cache_s else "fwd=bypass"
        if is_first:
            return _with_status(passed, f"{status}; stored" if _is_kept(route, passed) else status)
        self._figures.called(self.profile.name, route.name, Outcome.MERGED)
        return _with_status(passed, f"{status}; collapsed")

    async def close(self) -> None:
        """Ends what is under way."""
        await self._merging.close()
        if self._tokens is not None:
            await self._tokens.close()

    def _kept_as(self, route: Route, key: str) -> str:
        """Under what an answer is kept: also what is shown of it, and to whom it was given."""
        parts = [self._identity, key, *route.response, "", *route.response_headers]
        told = b"".join(b"%d:%s" % (len(part), part) for part in map(str.encode, parts))
        return f"partner:{self.profile.name}:answer:{hashlib.sha256(told).hexdigest()}"

    async def _counted(self, route: Route, asked: Asked, key: str | None) -> Passed:
        """Goes the road, keeps what came of it, and says in the figures how it ended."""
        outcome = None
        try:
            passed = await self._within_bounds(route, asked)
            if key is not None and _is_kept(route, passed):
                await self._shelf.put(key, _packed(passed), ttl_s=route.cache_s)
            outcome = Outcome.ANSWERED
        except PartnerFailed as error:
            outcome = _OUTCOME_OF[error.trouble]
            raise
        finally:
            if outcome is not None:
                self._figures.called(self.profile.name, route.name, outcome)
        return passed

    async def _within_bounds(self, route: Route, asked: Asked) -> Passed:
        if self._under_way >= UNDER_WAY_MAX:
            message = "too many calls to the partner are under way"
            raise PartnerFailed(Trouble.BUSY, message, retry_after_s=1)
        self._under_way += 1
        try:
            return await self._tried(route, asked)
        finally:
            self._under_way -= 1

    async def _tried(self, route: Route, asked: Asked) -> Passed:
        """Tries, and again what may be done twice and failed in passing."""
        deadline = _now() + route.timeout_s
        pauses = backoff(random, first_s=PAUSE_S, longest_s=PAUSE_S_MAX)
        for is_last in _tries(route):
            await self._paced(deadline)
            try:
                answer, proof = await self._sent(route, asked, deadline)
            except NoAnswer as error:
                if is_last or error.why not in _PASSING_WHY or not await _rested(pauses, deadline):
                    raise _failed(error) from error
                continue
            if (
                is_last
                or answer.status not in _PASSING
                or (answer.retry_after_s or 0) > PAUSE_S_MAX
                or not await _rested(pauses, deadline, answer.retry_after_s)
            ):
                return await _judged(route, answer, (proof, self._secrets.client_secret))
        raise InvariantError("the last try is the last")

    async def _paced(self, deadline: float) -> None:
        """Waits a little for the rate to have room."""
        rate, name = self.profile.rate, self.profile.name
        if rate is None:
            return
        charge = Charge(key=f"partner:{name}", name=name, rate=rate)
        until = min(deadline, _now() + PACED_S_MAX)
        while not (taken := await self._limiter.take([charge])).allowed:
            if _now() + PACED_EVERY_S >= until:
                raise PartnerFailed(
                    Trouble.BUSY,
                    "the partner takes no more calls for now",
                    retry_after_s=taken.retry_after_s,
                )
            await asyncio.sleep(PACED_EVERY_S * (0.5 + random()))  # noqa: S311  # no secret

    async def _sent(self, route: Route, asked: Asked, deadline: float) -> tuple[Answer, str]:
        """One try, if the breaker lets it pass: the answer, and what we proved ourselves with."""
        ticket = self._breaker.enter(_now())
        if ticket is None:
            raise PartnerFailed(
                Trouble.AWAY,
                "the partner is in trouble, and left alone for now",
                retry_after_s=max(1.0, self._breaker.wait_s(_now())),
            )
        is_well: bool | None = None
        try:
            answer, proof = await self._authorized(route, asked, deadline)
            is_well = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR
        except NoAnswer as error:
            # One that is too large says that the partner is there, and at work.
            is_well = error.why is Why.TOO_LARGE
            raise
        except NoToken as error:
            is_well = None if error.is_refused else False
            raise _no_token(error) from error
        finally:
            self._leave(ticket, is_well=is_well)
        return answer, proof

    def _leave(self, ticket: Ticket, *, is_well: bool | None) -> None:
        before = self._breaker.state(_now())
        self._breaker.leave(ticket, _now(), is_well=is_well)
        if (after := self._breaker.state(_now())) is not before:
            log.warning("partner.breaker", upstream=self.profile.name, state=after.name.lower())

    async def _authorized(self, route: Route, asked: Asked, deadline: float) -> tuple[Answer, str]:
        """With a token that is not refused, if there is one to be had; and that token."""
        if self._tokens is None:
            key = self._secrets.key
            return await self._asked(route, asked, key, deadline), key
        token = await self._token(self._tokens, deadline)
        answer = await self._asked(route, asked, token, deadline)
        if answer.status != HTTPStatus.UNAUTHORIZED:
            self._stubborn.pop(route.name, None)
            return answer, token
        if _now() < self._stubborn.get(route.name, 0.0):
            return answer, token
        # It was looked at and sent away, so that nothing was done: it may be sent again.
        await self._tokens.drop(token)
        token = await self._token(self._tokens, deadline)
        answer = await self._asked(route, asked, token, deadline)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            # It is not the token. Else each call of this route would cost another one.
            self._stubborn[route.name] = _now() + STUBBORN_S
        return answer, token

    async def _token(self, tokens: Tokens, deadline: float) -> str:
        try:
            async with asyncio.timeout_at(deadline):
                return await tokens.bearer()
        except TimeoutError as error:
            raise NoToken("no token in time", why=Why.TIMEOUT) from error

    async def _asked(self, route: Route, asked: Asked, proof: str, deadline: float) -> Answer:
        begun = _now()
        headers = dict(asked.headers)
        if proof:
            headers[self.profile.auth.header] = f"{self.profile.auth.scheme} {proof}".strip()
        try:
            return await self._partner.send(
                asked.method,
                asked.url,
                headers,
                asked.body,
                timeout_s=max(0.0, deadline - begun),
                bytes_max=self.profile.response_bytes_max,
                is_repeatable=_is_repeatable(route),
            )
        finally:
            self._figures.took(self.profile.name, route.name, _now() - begun)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_repeatable(route: Route) -> bool:
    return route.method is Method.GET or route.idempotent


def _tries(route: Route) -> Iterator[bool]:
    """For each try whether it is the last."""
    tries = TRIES_MAX if _is_repeatable(route) else 1
    return (number == tries for number in range(1, tries + 1))


async def _rested(pauses: Iterator[float], deadline: float, asked_s: float | None = None) -> bool:
    """Waits before the next try; False when there is no time for one."""
    pause_s = next(pauses) if asked_s is None else asked_s
    if _now() + pause_s >= deadline:
        return False
    await asyncio.sleep(pause_s)
    return True


async def _judged(route: Route, answer: Answer, secrets: Sequence[str]) -> Passed:
    """What of it is let through; never what the partner was shown of us."""
    judging = partial(
        judge,
        route,
        answer.status,
        answer.body,
        answer.retry_after_s,
        headers=answer.headers,
        secrets=secrets,
    )
    return judging() if len(answer.body) <= LONG_BYTES else await asyncio.to_thread(judging)


def _failed(error: NoAnswer) -> PartnerFailed:
    return PartnerFailed(_TROUBLE_OF[error.why], f"no answer of the partner: {error}")


def _no_token(error: NoToken) -> PartnerFailed:
    if error.is_refused:
        return PartnerFailed(Trouble.LOCKED, "the partner does not accept our credentials")
    trouble = Trouble.FAILED if error.why is None else _TROUBLE_OF[error.why]
    if error.retry_after_s is not None:
        trouble = Trouble.BUSY
    return PartnerFailed(trouble, f"{error}", retry_after_s=error.retry_after_s)


# --------------------------------------------------------------------------------- what is kept


def _is_kept(route: Route, passed: Passed) -> bool:
    return (
        bool(route.cache_s)
        and passed.status == HTTPStatus.OK
        and len(_packed(passed)) <= VALUE_BYTES_MAX
    )


def _packed(passed: Passed) -> bytes:
    """A line of headers, and the body."""
    return msgspec.json.encode(passed.headers) + b"\n" + passed.body


def _unpacked(raw: bytes) -> Passed | None:
    """What was kept; None when it is something else."""
    line, newline, body = raw.partition(b"\n")
    try:
        headers = msgspec.json.decode(line, type=dict[str, str])
    except wire.UNREADABLE:
        return None
    return Passed(status=HTTPStatus.OK, body=body, headers=headers) if newline else None


def _with_status(passed: Passed, status: str) -> Passed:
    """With what our cache did. The answer itself may be that of others as well: it is copied."""
    return Passed(
        status=passed.status,
        body=passed.body,
        headers={**passed.headers, "Cache-Status": f"axiompay; {status}"},
    )
