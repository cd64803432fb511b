"""How often a caller may call, and what he is told about it.

Who calls is his API key, and everyone else is the address that he calls from. What he may do:

    default   `AXIOM_RATE_LIMIT`, or the key's own rate: all calls together that are not below
    <call>    what `AXIOM_RATE_LIMITS` names: that call by itself, for keys and addresses alike
    webhooks  the doors for webhooks, by address, before it is known who knocks
    none      health, figures and the description of the API

A key is looked up before anything is counted, because who calls is not known before. So that this
costs a stranger more than us, wrong keys are counted twice: as a request of their address, and for
themselves, in this process alone. An address that has tried too many is not even looked up; keys
that were right not long ago are, whoever else shares their address.

A stream is never answered 429, which would end a browser's `EventSource` for good: see `stream`.

Sources: draft-ietf-httpapi-ratelimit-headers (the fields, the type of the problem), RFC 9110
section 10.2.3 (Retry-After).
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from api.auth import Gate
from api.callers import caller_address
from api.errors import Problem
from api.limits import DOOR_RATE
from indexer.core.rate import Rate
from indexer.errors import ConfigError
from indexer.log import get_logger
from indexer.settings import Settings
from store.keys import ApiKey
from store.limiter import Charge, Limiter, Taken


if TYPE_CHECKING:
    from api.calls import Call


log = get_logger(__name__)


QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

DEFAULT: Final = "default"
WEBHOOKS: Final = "webhooks"


class Limit(StrEnum):
    """What a call is counted against, where `AXIOM_RATE_LIMITS` does not name it.

    Attributes:
        DEFAULT: the rate that all calls share, or the key's own.
        WEBHOOKS: the rate of the doors, by address.
        STREAM: as `DEFAULT`; who is over it is sent away without an error (see `stream`).
        HANDLER: what the call's handler counts it against (`Rates.charge`); only who has no good
            key is counted before, as of `DEFAULT`.
        EXEMPT: nothing.
    """

    DEFAULT = "default"
    WEBHOOKS = "webhooks"
    STREAM = "stream"
    HANDLER = "handler"
    EXEMPT = "exempt"


class RateOutcome(StrEnum):
    """What became of a request that was counted."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Policy:
    """A rate with its name, by which callers and monitors are told of it."""

    name: str
    rate: Rate


class TooMany(Problem):
    """A caller is over his rate.

    Attributes:
        retry_after_s: until he is not.
    """

    def __init__(self, taken: Taken) -> None:
        super().__init__(
            429,
            "rate_limited",
            f"too many requests; the next one is answered in {taken.retry_after_s} s",
            type=QUOTA_EXCEEDED,
            title="Request cannot be satisfied as assigned quota has been exceeded",
            violated_policies=taken.violated,
            headers={"Retry-After": str(taken.retry_after_s)},
        )
        self.retry_after_s = taken.retry_after_s


class Rates:
    """Counts requests against the rates of a deployment.

    Attributes:
        counts: requests by policy and outcome.
        limiter: what counts them.
    """

    def __init__(
        self, limiter: Limiter, settings: Settings, monotonic: Callable[[], float]
    ) -> None:
        """Prepares.

        Args:
            limiter: what counts.
            settings: the rates, and which proxies are trusted.
            monotonic: seconds, which never go back.
        """
        self.limiter = limiter
        self.counts: Counter[tuple[str, RateOutcome]] = Counter()
        self._default = Policy(DEFAULT, settings.rate_limit)
        self._own = {name: Policy(name, rate) for name, rate in settings.rate_limits.items()}
        self._trusted_proxies = settings.trusted_proxies
        self._wrong_keys = Limiter(None, monotonic)
        self._may_warn = not settings.trusted_proxies

    async def admit(self, gate: Gate, request: Request, call: "Call") -> ApiKey | None:
        """The caller's key, if the call's rule asks for one and he has it, once he is counted.

        Raises:
            TooMany: 429.
            Problem: 401, 403 as of `Gate`.
        """
        if call.limit is Limit.EXEMPT:
            return await gate.admit(request, call.access)
        key = await self._identified(gate, request, call)
        if key is not None:
            request.state.api_key_id = key.id
        if call.limit is not Limit.HANDLER or not gate.permits(key, call.access):
            await self.charge(request, key, self.policy_of(call, key))
        return gate.permit(key, call.access)

    async def charge(self, request: Request, key: ApiKey | None, *policies: Policy) -> None:
        """Counts one request of this caller against these policies, all or none of them.

        What is left stands in the headers of the answer, whoever makes it.

        Raises:
            TooMany: 429.
        """
        caller = self._caller(request, key)
        self._warn_of_a_proxy(request)
        self._tell(
            request, await self.limiter.take([_charge(policy, caller) for policy in policies])
        )

    def policy_of(self, call: "Call", key: ApiKey | None) -> Policy:
        """What a call is counted against. A key's own rate stands in for the default."""
        if (own := self._own.get(call.name)) is not None:
            return own
        if call.limit is Limit.WEBHOOKS:
            return Policy(WEBHOOKS, DOOR_RATE)
        if key is not None and key.rate is not None:
            return Policy(DEFAULT, key.rate)
        return self._default

    async def _identified(self, gate: Gate, request: Request, call: "Call") -> ApiKey | None:
        """The caller's key.

        Raises:
            TooMany: 429.
            Problem: 401.
        """
        policy = self.policy_of(call, None)
        tried = [_charge(policy, self._caller(request, None))]
        looks_up = gate.would_look_up(request, call.access)
        if looks_up and (refused := self._wrong_keys.refusal(tried)) is not None:
            self._tell(request, refused)
        try:
            return await gate.identify(request, call.access)
        except Problem:
            if looks_up:
                await self._wrong_keys.take(tried)
            await self.charge(request, None, policy)
            raise

    def _tell(self, request: Request, taken: Taken) -> None:
        """Puts it into the headers of the answer, and counts it.

        Raises:
            TooMany: it was not let through.
        """
        request.state.headers = headers_of(taken)
        if taken.allowed:
            for left in taken.charges:
                self.counts[left.charge.name, RateOutcome.ACCEPTED] += 1
            return
        for name in taken.violated:
            self.counts[name, RateOutcome.REJECTED] += 1
        raise TooMany(taken)

    def _warn_of_a_proxy(self, request: Request) -> None:
        """Says once that somebody tells of a proxy, where none is trusted.

        If there is one, all callers behind it are taken for one.
        """
        if self._may_warn and "x-forwarded-for" in request.headers:
            self._may_warn = False
            peer = request.client.host if request.client else ""
            log.warning("http.forwarded_for_is_not_believed", peer=peer)

    def _caller(self, request: Request, key: ApiKey | None) -> str:
        if key is not None:
            return f"key:{key.id}"
        return f"address:{caller_address(request, self._trusted_proxies)}"


def check_rates(settings: Settings, calls: Collection["Call"]) -> None:
    """Checks that each rate is one of a call that has a rate.

    Raises:
        ConfigError: it is not; a rate that limits nothing would be believed in.
    """
    limited = {call.name for call in calls if call.limit is not Limit.EXEMPT}
    if unknown := sorted(settings.rate_limits.keys() - limited):
        problem = (
            f"AXIOM_RATE_LIMITS: {', '.join(unknown)}: no such call, or one without a limit; "
            "they are named as in /api/openapi.json (operationId)"
        )
        raise ConfigError((problem,))


def headers_of(taken: Taken) -> Mapping[str, str]:
    """What the caller is told: the rates, and what is left of each."""
    policies = [
        f'"{left.charge.name}";q={left.charge.rate.quota};w={left.charge.rate.window_s}'
        for left in taken.charges
    ]
    limits = [f'"{left.charge.name}";r={left.remaining};t={left.reset_s}' for left in taken.charges]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}


def _charge(policy: Policy, caller: str) -> Charge:
    return Charge(key=f"{policy.name}:{caller}", name=policy.name, rate=policy.rate)
