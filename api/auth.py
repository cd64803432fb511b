"""API keys: who asks, and may they.

Each route has one rule (`Access`), written beside it in the route table. There is no route
without one, and nothing outside this module decides.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from api.errors import Problem
from api.limits import KEY_CACHE_ENTRIES_MAX, KEY_CACHE_S, KEY_LENGTH_MAX
from store import keys
from store.database import Database
from store.keys import ApiKey


#: RFC 6750's form of the header; everything else about a key is the store's business.
_BEARER: Final = re.compile(rf"[Bb]earer +(axk_[A-Za-z0-9_\-]{{1,{KEY_LENGTH_MAX}}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route.

    Attributes:
        scope: what a key must be allowed to; None when keys mean nothing here.
        required: without such a key nothing is answered. Otherwise everyone is answered, and a
            caller with the scope is shown more.
    """

    scope: str | None
    required: bool


PUBLIC: Final = Access(scope=None, required=False)


def needs(scope: str) -> Access:
    """Only with a key that has the scope."""
    return Access(scope=scope, required=True)


def shows_more_with(scope: str) -> Access:
    """For everyone; a key with the scope is shown more."""
    return Access(scope=scope, required=False)


class Gate:
    """Looks up keys, and remembers for a moment that they are good.

    Only good keys are remembered, under their hash, so that a revoked key is refused after
    `KEY_CACHE_S` at the latest and a new one works at once.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """Prepares a gate.

        Args:
            database: where the keys are.
            clock: unix seconds, by which keys expire.
            monotonic: seconds, by which the gate forgets.
        """
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[str, tuple[float, ApiKey]] = OrderedDict()

    async def admit(self, request: Request, access: Access) -> ApiKey | None:
        """The caller's key, when it has the scope; None for everyone else who may pass.

        Raises:
            Problem: 401 without a valid key where one is needed, or with an invalid one
                wherever keys mean something; 403 when the key lacks the scope.
        """
        return self.permit(await self.identify(request, access), access)

    async def identify(self, request: Request, access: Access) -> ApiKey | None:
        """The caller's key, whatever it may do; None where there is none, or none means anything.

        Raises:
            Problem: 401 as of `admit`.
        """
        if access.scope is None:
            return None
        header = request.headers.get("authorization")
        if header is None:
            if access.required:
                raise _unauthorized("an API key is needed: `Authorization: Bearer axk_…`")
            return None
        token = _token(header)
        if token is None:
            raise _unauthorized("the header must read `Authorization: Bearer axk_…`")
        return await self._find(token)

    def permit(self, key: ApiKey | None, access: Access) -> ApiKey | None:
        """The key, when it has the scope; None for everyone else who may pass.

        Raises:
            Problem: 403 when it lacks a scope that is needed.
        """
        if key is None or access.scope is None or access.scope in key.scopes:
            return key
        if access.required:
            raise _forbidden(access.scope)
        return None

    def permits(self, key: ApiKey | None, access: Access) -> bool:
        """Whether `permit` raises nothing."""
        return key is None or not access.required or access.scope in key.scopes

    def would_look_up(self, request: Request, access: Access) -> bool:
        """Whether it takes a look into the database to know the key, which may well be made up.

        Not so of a key that was good not long ago.
        """
        token = _token(request.headers.get("authorization", ""))
        if access.scope is None or token is None:
            return False
        return keys.hash_key(token) not in self._known

    async def _find(self, token: str) -> ApiKey:
        hashed = keys.hash_key(token)
        remembered = self._known.get(hashed)
        if remembered is not None and self._monotonic() - remembered[0] < KEY_CACHE_S:
            key: ApiKey | None = remembered[1]
        else:
            key = await self._look_up(token, hashed)
        if key is None or key.expired(self._clock()):
            self._known.pop(hashed, None)
            raise _unauthorized("this API key is unknown, expired or revoked")
        return key

    async def _look_up(self, token: str, hashed: str) -> ApiKey | None:
        asked_at = self._monotonic()
        key = await keys.find(self._database, token, int(self._clock()))
        if key is None:
            return None
        self._known[hashed] = (asked_at, key)
        self._known.move_to_end(hashed)
        if len(self._known) > KEY_CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
        return key


def _token(header: str) -> str | None:
    """The API key in the header; None when it can be none."""
    bearer = _BEARER.fullmatch(header.strip())
    return None if bearer is None else bearer[1]


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def _forbidden(scope: str) -> Problem:
    challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
    return Problem(
        403,
        "forbidden",
        f"this API key lacks the scope {scope}",
        headers={"WWW-Authenticate": challenge},
    )
